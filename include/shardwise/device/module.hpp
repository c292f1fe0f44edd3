// A module's way to a device and back: to_device(module), to_host(module). Layer: device.
#pragma once

#include <type_traits>

#include <shardwise/device/tensor.hpp>
#include <shardwise/nn/visit.hpp>
#include <shardwise/parallel/parallelize_module.hpp>

namespace shardwise {

namespace detail {

// Copies the parameters of a module to another memory space, leaf by leaf; tied ones stay tied.
template <class Space>
class Carrier {
 public:
  struct NoMesh {
    template <class Mesh>
    operator Mesh() const {  // NOLINT: a child on one device asks for the mesh that it has not
      return Mesh();
    }
  };
  NoMesh mesh() const { return {}; }

  template <class New, class Old>
  New parameter(Old& old) {
    if (!old.defined()) return New();
    for (const Known& k : known_)
      if (k.old == old.impl().get())
        return New(typename New::TensorType(k.made, typename New::MeshState{}), old.requires_grad());
    New made(carried(old.tensor()), old.requires_grad());
    known_.push_back({old.impl().get(), made.impl()});
    return made;
  }
  template <class X>
  X plain(X& old) {
    static_assert(
        !is_tensor<std::remove_const_t<X>>,
        "shardwise::to_device: [V1] a tensor in a module has the type that the module wrote, host memory; declare it as a "
        "Param<Scope, \"name\", rank>, which lies where the scope says");
    return old;
  }

 private:
  struct Known {
    const TensorImpl* old;
    Ref<TensorImpl> made;
  };
  template <Element T, std::size_t R, class From>
  static Tensor<T, R, Space> carried(const Tensor<T, R, From>& x) {
    if constexpr (is_host<Space>)
      return to_host(x);
    else
      return to_device(x);
  }
  List<Known> known_;
};

template <class New, class Space, class Old>
New carried(const Old& module) {
  Carrier<Space> carrier;
  return parallelized<New>(module, carrier);
}

}  // namespace detail

/// A copy of a module whose parameters lie on the calling thread's device: `Mlp<>` becomes `Mlp<Unsharded<float, Cuda>>`. Gradients stay
/// behind; a parameter that requires one requires one there too. PyTorch: `module.to("cuda")`, which changes the module itself.
template <template <class> class M, class T>
M<Unsharded<T, Cuda>> to_device(const M<Unsharded<T>>& module) {
  return detail::carried<M<Unsharded<T, Cuda>>, Cuda>(module);
}
/// A copy of a module on a device whose parameters lie in the host's memory. PyTorch: `module.cpu()`.
template <template <class> class M, class T>
M<Unsharded<T>> to_host(const M<Unsharded<T, Cuda>>& module) {
  return detail::carried<M<Unsharded<T>>, Host>(module);
}

}  // namespace shardwise

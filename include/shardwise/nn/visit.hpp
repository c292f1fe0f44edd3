// Walking a module: its parameters and its sub-modules by qualified name, and the erased list that optimizers
// take. Layer: nn.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/base/reflect.hpp>
#include <shardwise/nn/child.hpp>
#include <shardwise/nn/param.hpp>

namespace shardwise {

namespace detail {

// What a member of a module is. An optional one counts as what it may hold.
template <class X>
inline constexpr bool is_optional = false;
template <class X>
inline constexpr bool is_optional<std::optional<X>> = true;
template <class X>
struct held {
  using type = X;
};
template <class X>
struct held<std::optional<X>> : held<X> {};

// What is walked: a member that knows its name.
template <class X>
inline constexpr bool is_module_member = is_param<X> || is_child<X> || is_child_list<X> || is_child_array<X>;
template <class X>
inline constexpr bool is_module_member<std::optional<X>> = is_module_member<X>;

// What else a model may have: its own configuration, and what is written for a scope as a module is, alone or several.
template <class X>
inline constexpr bool follows_scope = false;
template <template <class> class M, class S>
  requires is_scope<S>
inline constexpr bool follows_scope<M<S>> = true;
template <class X>
inline constexpr bool follows_scope<std::optional<X>> = follows_scope<X>;
template <class X, class A>
inline constexpr bool follows_scope<std::vector<X, A>> = is_module_member<X> || follows_scope<X>;
template <class X, std::size_t N>
inline constexpr bool follows_scope<std::array<X, N>> = is_module_member<X> || follows_scope<X>;

// Whether it has parameters, which no walk finds there: PyTorch does not look into lists either. A pointer may hide them on purpose.
template <class X>
inline constexpr bool hides_parameters = false;
template <class... M>
constexpr bool any_has_parameters(MemberTypes<M...>) {
  return ((is_module_member<M> || hides_parameters<M>) || ...);
}
template <template <class> class M, class S>
  requires(is_scope<S> && member_count<M<S>> >= 0 && member_count<M<S>> <= max_members)
inline constexpr bool hides_parameters<M<S>> = any_has_parameters(member_types<M<S>>());
template <class X>
inline constexpr bool hides_parameters<std::optional<X>> = hides_parameters<X>;
template <class X, class A>
inline constexpr bool hides_parameters<std::vector<X, A>> = is_module_member<X> || hides_parameters<X>;
template <class X, std::size_t N>
inline constexpr bool hides_parameters<std::array<X, N>> = is_module_member<X> || hides_parameters<X>;

// The aggregate behind a child, a list's element or a parallelized root.
template <class M>
auto& aggregate_of(M& module) {
  if constexpr (requires { typename std::remove_const_t<M>::Module; }) {
    using Aggregate = typename std::remove_const_t<M>::Module;
    return static_cast<std::conditional_t<std::is_const_v<M>, const Aggregate, Aggregate>&>(module);
  } else {
    return module;
  }
}

inline std::string joined_path(const std::string& path, std::string_view name) {
  return text(path, path.empty() ? "" : ".", name);
}

template <class M, class OnModule, class OnParam>
void walk_module(M& module, const std::string& path, OnModule& on_module, OnParam& on_param);

template <class Member, class OnModule, class OnParam>
void walk_member(Member& member, const std::string& path, OnModule& on_module, OnParam& on_param) {
  using X = std::remove_const_t<Member>;
  if constexpr (is_param<X>) {
    if (member.defined()) on_param(joined_path(path, X::param_name.view()), member.tensor());
  } else if constexpr (is_child<X>) {
    walk_module(member, joined_path(path, X::child_name.view()), on_module, on_param);
  } else if constexpr (is_child_list<X>) {
    const std::string list = joined_path(path, X::child_name.view());
    std::size_t i = 0;
    for (auto& element : member) walk_module(element, joined_path(list, std::string(text(i++))), on_module, on_param);
  } else if constexpr (is_child_array<X>) {
    const std::string list = joined_path(path, X::child_name.view());
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (walk_module(member.template get<I>(), joined_path(list, index_name<I>().view()), on_module, on_param), ...);
    }(std::make_index_sequence<X::length>());
  } else if constexpr (is_optional<X> && is_module_member<X>) {
    if (member.has_value()) walk_member(*member, path, on_module, on_param);
  } else {
    static_assert(
        !hides_parameters<X>,
        "shardwise::for_each_parameter: [C4] a member of the model has parameters that are not found: a module in a module is "
        "a Child<Scope, \"name\", Module>; many are a ChildList or a ChildArray, no std::vector and no std::array");
  }
}

template <class M, class OnModule, class OnParam>
void walk_module(M& module, const std::string& path, OnModule& on_module, OnParam& on_param) {
  on_module(path, module);
  visit_members(aggregate_of(module), [&](auto&... member) { (walk_member(member, path, on_module, on_param), ...); });
}

struct Ignore {
  template <class... X>
  void operator()(const X&...) const {}
};

}  // namespace detail

/// Calls f(qualified name, tensor) for every parameter, in the order of declaration. The tensor is the plain or distributed
/// tensor itself. PyTorch: `named_parameters()` (tied ones are visited under each name).
template <class M, class F>
void for_each_parameter(M&& module, F&& f) {
  detail::Ignore ignore;
  auto on_param = [&](const std::string& name, auto& tensor) { f(std::string_view(name), tensor); };
  detail::walk_module(module, "", ignore, on_param);
}

/// Calls f(qualified name, module) for the module itself ("") and every module in it. PyTorch: `named_modules()`.
template <class M, class F>
void for_each_module(M&& module, F&& f) {
  detail::Ignore ignore;
  auto on_module = [&](const std::string& name, auto& m) { f(std::string_view(name), m); };
  detail::walk_module(module, "", on_module, ignore);
}

/// A parameter whose type is forgotten: what an optimizer works on.
struct ParameterHandle {
  std::string name;
  DType dtype;
  detail::Ref<detail::TensorImpl> impl;
};
using ParameterList = std::vector<ParameterHandle>;

namespace detail {
template <class List>
[[gnu::noinline]] void add_parameter(List& list, std::string_view name, DType dtype, const Ref<TensorImpl>& impl) {
  for (const auto& known : list)
    if (known.impl == impl) return;
  list.push_back({std::string(name), dtype, impl});
}
}  // namespace detail

/// All parameters of modules that require a gradient or not, each once: tied ones under their first name. Tensors that no
/// module holds may stand among them, named by their place: `parameters(model, w, b)`. PyTorch: `parameters()`, a list of tensors.
template <class... M>
ParameterList parameters(M&&... from) {
  static_assert(sizeof...(M) > 0,
                "shardwise::parameters: of what? Hand it a module, or tensors: parameters(model), parameters(w, b)");
  ParameterList list;
  auto add = [&](std::string_view name, auto& tensor) {
    using T = typename std::remove_cvref_t<decltype(tensor)>::value_type;
    detail::add_parameter(list, name, dtype_of<T>, tensor.impl());
  };
  std::size_t place = 0;
  (
      [&] {
        if constexpr (requires { from.impl(); })
          add(std::string(detail::text(place)), from);
        else
          for_each_parameter(from, add);
        ++place;
      }(),
      ...);
  return list;
}

/// Forgets the gradients. PyTorch: `optimizer.zero_grad()`.
template <class = void>
void zero_grad(const ParameterList& list) {
  const ParameterHandle* const all = list.data();
  for (std::size_t i = 0; i < list.size(); ++i)
    if (all[i].impl->slot != nullptr) all[i].impl->slot->clear();
}

/// Reduces all pending gradients: one coalesced all_reduce per mesh axis and element type. Every optimizer step begins with it.
///
/// Ranks: all of the mesh, with lists of the same parameters in the same order. Throws: CommError and its kinds.
template <class = void>
void settle_gradients(const ParameterList& list) {
  for (int axis = 0; axis < 32; ++axis) {
    const std::uint32_t bit = 1u << axis;
    for (const ParameterHandle& first : list) {
      const detail::GradSlot* f = first.impl->slot.get();
      const auto waits = [&](const detail::GradSlot* s) {
        return s != nullptr && s->has_grad() && (s->pending & bit) != 0;
      };
      if (!waits(f)) continue;
      // All that share mesh and element type with the first travel together.
      const auto together = [&](const detail::GradSlot* s) {
        return waits(s) && s->dtype == f->dtype && s->reducer->identity() == f->reducer->identity();
      };
      const std::size_t element = size_of(f->dtype);
      const detail::GradMemory* const elsewhere = f->memory;  // of all of them: they share the mesh
      const auto allocate = [&](std::int64_t n) {
        const std::size_t bytes = static_cast<std::size_t>(n) * element;
        return elsewhere != nullptr ? elsewhere->allocate(bytes) : detail::Buffer(bytes);
      };
      const auto copy = [&](const detail::Buffer& to, const detail::Buffer& from, std::size_t bytes) {
        if (elsewhere != nullptr)
          elsewhere->copy(to, from, bytes);
        else
          std::memcpy(to.data(), from.data(), bytes);
      };
      std::int64_t count = 0;
      for (const ParameterHandle& p : list)
        if (together(p.impl->slot.get())) count += p.impl->slot->count;
      const detail::Buffer all = allocate(count);
      for (const bool back : {false, true}) {
        std::byte* at = all.data();
        const DType dtype = f->dtype;
        if (back) f->reducer->all_reduce(axis, dtype, at, count);
        for (const ParameterHandle& p : list) {
          detail::GradSlot* s = p.impl->slot.get();
          if (!together(s)) continue;
          const std::size_t bytes = static_cast<std::size_t>(s->count) * element;
          if (back && !s->grad.exclusive()) s->grad = allocate(s->count);
          const detail::Buffer part = detail::Buffer::view(at);
          if (bytes > 0) copy(back ? s->grad : part, back ? part : s->grad, bytes);
          at += bytes;
        }
      }
      for (const ParameterHandle& p : list) {
        detail::GradSlot* s = p.impl->slot.get();
        if (s != f && together(s)) s->pending &= ~bit;
      }
      first.impl->slot->pending &= ~bit;
    }
  }
}

}  // namespace shardwise

// Child, ChildList, ChildArray: modules inside modules. Each knows its name and the rest of the plan, and wraps its call
// with the styles that the plan gives it. Layer: nn.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <shardwise/comm/trace.hpp>
#include <shardwise/nn/scope.hpp>

namespace shardwise {

namespace detail {

// Styles in plan order: inputs first to last, the module, outputs first to last (PyTorch: hooks in the order of their registration).
// No function more than these, and no std::apply: each is a line (std::apply ten) of every error in a user's flow.
template <auto own, std::size_t I, class M, class Mesh, class... X>
auto prepared_inputs(const M& module, const Mesh& mesh, const X&... x) {
  if constexpr (I == own.size) {
    return std::tuple<X...>(x...);
  } else {
    constexpr auto style = own.template get<I>().style;
    auto prepared = std::remove_cv_t<decltype(style)>::template prepare_input<style>(module, mesh, x...);
    if constexpr (I + 1 == own.size)
      return prepared;
    else
      return [&]<std::size_t... Input>(std::index_sequence<Input...>) {
        return prepared_inputs<own, I + 1>(module, mesh, std::get<Input>(prepared)...);
      }(std::make_index_sequence<std::tuple_size_v<decltype(prepared)>>());
  }
}

template <auto own, std::size_t I, class M, class Mesh, class Y>
auto prepared_output(const M& module, const Mesh& mesh, const Y& y) {
  if constexpr (I == own.size) {
    return y;
  } else {
    constexpr auto style = own.template get<I>().style;
    auto prepared = std::remove_cv_t<decltype(style)>::template prepare_output<style>(module, mesh, y);
    if constexpr (I + 1 == own.size)
      return prepared;
    else
      return prepared_output<own, I + 1>(module, mesh, prepared);
  }
}

// A module and the mesh that its styles work on. Without styles of its own it is the module and nothing else.
template <class M, auto own = scope_traits<typename module_traits<M>::Scope>::own>
class Styled : public M {
 public:
  using Module = M;
  using Mesh = typename scope_traits<typename module_traits<M>::Scope>::Mesh;

  Styled() = default;
  Styled(M module, Mesh mesh = Mesh()) : M(std::move(module)), mesh_(std::move(mesh)) {}  // NOLINT

  template <class... X>
  auto operator()(const X&... x) const {
    const M& module = *this;
    const auto inputs = prepared_inputs<own, 0>(module, mesh_, x...);
    if constexpr (std::tuple_size_v<decltype(inputs)> == 1)
      return prepared_output<own, 0>(module, mesh_, module(std::get<0>(inputs)));
    else
      return [&]<std::size_t... Input>(std::index_sequence<Input...>) {
        return prepared_output<own, 0>(module, mesh_, module(std::get<Input>(inputs)...));
      }(std::make_index_sequence<std::tuple_size_v<decltype(inputs)>>());
  }

 private:
  [[no_unique_address]] Mesh mesh_;
};

template <class M>
class Styled<M, Plan<>{}> : public M {
 public:
  using Module = M;
  using Mesh = typename scope_traits<typename module_traits<M>::Scope>::Mesh;

  Styled() = default;
  Styled(M module, const Mesh& = Mesh()) : M(std::move(module)) {}  // NOLINT

  template <class... X>
  auto operator()(const X&... x) const {
    return static_cast<const M&>(*this)(x...);
  }
};

}  // namespace detail

/// A named child: `Child<Scope, "net1", nn::Linear> net1;`. Made of the module that it holds.
/// `std::optional<Child<...>>` is one that a model may go without, as PyTorch's `self.head = None`: no rule of a plan finds a module there.
template <class Scope, Name name, template <class> class M>
class Child : public detail::Styled<M<typename detail::scope_traits<Scope>::template Below<name>>> {
 public:
  using Module = M<typename detail::scope_traits<Scope>::template Below<name>>;
  using Base = detail::Styled<Module>;
  static constexpr Name child_name = name;

  Child() = default;
  Child(Module module, typename Base::Mesh mesh = {})
      : Base(std::move(module), std::move(mesh)) {}  // NOLINT: a child is a module

  template <class... X>
  auto operator()(const X&... x) const {
    const detail::ModuleFrame frame(&child_name);
    return static_cast<const Base&>(*this)(x...);
  }
};

/// As many children of one type as there are at run time: `ChildList<Scope, "layers", Block> layers;`. On a mesh no rule
/// of the plan may tell their indices apart.
template <class Scope, Name name, template <class> class M>
class ChildList {
 public:
  using ListScope = typename detail::scope_traits<Scope>::template Below<name>;
  using Module = M<typename detail::scope_traits<ListScope>::BelowIndices>;
  static constexpr Name child_name = name;

  /// An element, called by its place in the list.
  class Element : public detail::Styled<Module> {
   public:
    using Base = detail::Styled<Module>;
    Element() = default;
    Element(Module module, typename Base::Mesh mesh = {}) : Base(std::move(module), std::move(mesh)) {}  // NOLINT

    template <class... X>
    auto operator()(const X&... x) const {
      const detail::ModuleFrame list(&child_name);
      const detail::ModuleFrame frame(nullptr, index);
      return static_cast<const Base&>(*this)(x...);
    }
    std::int64_t index = 0;
  };

  ChildList() = default;
  ChildList(std::initializer_list<Module> modules) {
    for (const Module& module : modules) push_back(module);
  }
  ChildList(std::vector<Module> modules) {  // NOLINT: a list of modules
    for (Module& module : modules) push_back(std::move(module));
  }

  /// Also braced, as a child is made: `layers.push_back({nn::linear(8, 16), nn::linear(16, 8)})`.
  void push_back(Module module, typename Element::Base::Mesh mesh = {}) {
    elements_.emplace_back(std::move(module), std::move(mesh));
    elements_.back().index = static_cast<std::int64_t>(elements_.size()) - 1;
  }
  std::size_t size() const { return elements_.size(); }
  bool empty() const { return elements_.empty(); }
  Element& operator[](std::size_t i) { return elements_[i]; }
  const Element& operator[](std::size_t i) const { return elements_[i]; }
  auto begin() { return elements_.begin(); }
  auto end() { return elements_.end(); }
  auto begin() const { return elements_.begin(); }
  auto end() const { return elements_.end(); }

 private:
  std::vector<Element> elements_;
};

namespace detail {

// "0" to "999", as names.
template <std::size_t I>
constexpr Name index_name() {
  char digits[4] = {};
  std::size_t n = 0;
  std::size_t rest = I;
  do {
    digits[n++] = static_cast<char>('0' + rest % 10);
    rest /= 10;
  } while (rest > 0);
  char text[4] = {};
  for (std::size_t i = 0; i < n; ++i) text[i] = digits[n - 1 - i];
  return Name(std::string_view(text, n));
}

template <class ListScope, template <class> class M, class Indices>
struct child_tuple;
template <class ListScope, template <class> class M, std::size_t... I>
struct child_tuple<ListScope, M, std::index_sequence<I...>> {
  using type = std::tuple<Child<ListScope, index_name<I>(), M>...>;
};

}  // namespace detail

/// N children, each with its own rules: `ChildArray<Scope, "layers", Block, 2> layers;`, made of its modules;
/// `layers(x)` goes through all of them in order.
template <class Scope, Name name, template <class> class M, std::size_t N>
class ChildArray {
  static_assert(N >= 1 && N <= 1000, "shardwise::ChildArray: [C1] from 1 to 1000 children");

 public:
  using ListScope = typename detail::scope_traits<Scope>::template Below<name>;
  using Elements = typename detail::child_tuple<ListScope, M, std::make_index_sequence<N>>::type;
  static constexpr Name child_name = name;
  static constexpr std::size_t length = N;

  ChildArray() = default;
  template <class... Modules>
    requires(sizeof...(Modules) == N && (std::convertible_to<Modules, std::tuple_element_t<0, Elements>> || ...))
  ChildArray(Modules... modules) : elements_(std::move(modules)...) {}  // NOLINT: an array of modules
  explicit ChildArray(Elements elements) : elements_(std::move(elements)) {}

  static constexpr std::size_t size() { return N; }
  template <std::size_t I>
  auto& get() {
    return std::get<I>(elements_);
  }
  template <std::size_t I>
  const auto& get() const {
    return std::get<I>(elements_);
  }

  template <class X>
  auto operator()(const X& x) const {
    const detail::ModuleFrame frame(&child_name);
    return from<0>(x);
  }

 private:
  template <std::size_t I, class X>
  auto from(const X& x) const {
    if constexpr (I + 1 == N)
      return std::get<I>(elements_)(x);
    else
      return from<I + 1>(std::get<I>(elements_)(x));
  }

  Elements elements_;
};

namespace detail {

template <class X>
inline constexpr bool is_child = false;
template <class S, Name N, template <class> class M>
inline constexpr bool is_child<Child<S, N, M>> = true;
template <class X>
inline constexpr bool is_child_list = false;
template <class S, Name N, template <class> class M>
inline constexpr bool is_child_list<ChildList<S, N, M>> = true;
template <class X>
inline constexpr bool is_child_array = false;
template <class S, Name N, template <class> class M, std::size_t K>
inline constexpr bool is_child_array<ChildArray<S, N, M, K>> = true;

}  // namespace detail
}  // namespace shardwise

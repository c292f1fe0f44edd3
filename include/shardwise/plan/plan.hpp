// Plans: rules from path patterns to styles, as one structural value that can be a template argument, and what remains
// of a plan below a child. Knows nothing of modules or of what styles do. Layer: plan.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

#include <shardwise/base/name.hpp>
#include <shardwise/plan/pattern.hpp>

namespace shardwise {

/// A pattern and the style that the modules it matches get.
template <class Style>
struct Rule {
  Name pattern;
  Style style;
};

/// A pattern without its style yet: `"layers.*.net[1]"_path`.
struct Path {
  Name pattern;
  template <class Style>
  constexpr Rule<Style> operator=(Style style) const {  // NOLINT: reads as in a plan of PyTorch
    return {pattern, style};
  }
};

inline namespace literals {
/// A path pattern: atoms separated by dots, each as in Python's `fnmatch`; "" is the module itself.
template <Name Pattern>
consteval Path operator""_path() {
  return {Pattern};
}
}  // namespace literals

namespace detail {

template <std::size_t I, class R>
struct PlanLeaf {
  R rule;
};
template <class Indices, class... R>
struct PlanLeaves;
template <std::size_t... I, class... R>
struct PlanLeaves<std::index_sequence<I...>, R...> : PlanLeaf<I, R>... {};

template <std::size_t I, class R>
constexpr const R& leaf(const PlanLeaf<I, R>& l) {
  return l.rule;
}

}  // namespace detail

/// Rules in their order.
template <class... Rules>
struct Plan : detail::PlanLeaves<std::index_sequence_for<Rules...>, Rules...> {
  static constexpr std::size_t size = sizeof...(Rules);
  template <std::size_t I>
  constexpr const auto& get() const {
    return detail::leaf<I>(*this);
  }
};

/// A plan in which a rule that matches nothing is a compile error.
template <class P>
struct StrictPlan {
  P plan;
};

/// `constexpr auto plan = parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{});`
/// PyTorch: the dictionary that `parallelize_module` takes.
template <class... Styles>
constexpr Plan<Rule<Styles>...> parallelize_plan(Rule<Styles>... rules) {
  return {{{rules}...}};
}

/// The plan itself, checked: `parallelize_module<strict(plan)>(model, mesh)`.
template <class... Rules>
constexpr StrictPlan<Plan<Rules...>> strict(Plan<Rules...> plan) {
  return {plan};
}

namespace detail {

template <class P>
inline constexpr bool is_plan = false;
template <class... Rules>
inline constexpr bool is_plan<Plan<Rules...>> = true;
template <class P>
inline constexpr bool is_strict = false;
template <class P>
inline constexpr bool is_strict<StrictPlan<P>> = true;

// A style alone is a plan for the module itself.
template <class S>
constexpr auto as_plan(S style) {
  if constexpr (is_plan<S>)
    return style;
  else if constexpr (is_strict<S>)
    return style.plan;
  else
    return parallelize_plan(Rule<S>{Name(), style});
}

template <class P, std::size_t... I>
constexpr auto patterns_of(const P& plan, std::index_sequence<I...>) {
  return std::array<Name, sizeof...(I)>{plan.template get<I>().pattern...};
}
template <class... Rules>
constexpr std::array<Name, sizeof...(Rules)> patterns(const Plan<Rules...>& plan) {
  return patterns_of(plan, std::index_sequence_for<Rules...>());
}

// Which rules go on below a child (or below every index of a list), and the patterns they go on with.
template <std::size_t N>
struct Descent {
  std::array<bool, N> keep{};
  std::array<Name, N> rest{};
  std::size_t count = 0;
};

template <std::size_t N>
constexpr Descent<N> descend_to(const std::array<Name, N>& patterns, std::string_view child) {
  Descent<N> d;
  for (std::size_t i = 0; i < N; ++i) {
    const std::string_view pattern = patterns[i].view();
    if (pattern.empty() || !match_atom(first_atom(pattern), child)) continue;
    d.keep[i] = true;
    d.rest[i] = Name(rest_after_first_atom(pattern));
    ++d.count;
  }
  return d;
}

template <std::size_t N>
constexpr Descent<N> descend_to_indices(const std::array<Name, N>& patterns) {
  Descent<N> d;
  for (std::size_t i = 0; i < N; ++i) {
    const std::string_view pattern = patterns[i].view();
    if (pattern.empty() || match_indices(first_atom(pattern)) != IndexMatch::all) continue;
    d.keep[i] = true;
    d.rest[i] = Name(rest_after_first_atom(pattern));
    ++d.count;
  }
  return d;
}

// The first rule that tells indices of a list apart, or N.
template <std::size_t N>
constexpr std::size_t rule_that_tells_indices_apart(const std::array<Name, N>& patterns) {
  for (std::size_t i = 0; i < N; ++i)
    if (!patterns[i].empty() && match_indices(first_atom(patterns[i].view())) == IndexMatch::some) return i;
  return N;
}

template <std::size_t N, std::size_t Count>
constexpr std::array<std::size_t, Count> kept(const Descent<N>& d) {
  std::array<std::size_t, Count> list{};
  std::size_t n = 0;
  for (std::size_t i = 0; i < N; ++i)
    if (d.keep[i]) list[n++] = i;
  return list;
}

template <class Style>
constexpr Rule<Style> rule_of(const Name& pattern, Style style) {
  return {pattern, style};
}

// The kept rules with what remains of their patterns. Their numbers are template arguments of a function: g++ 12 takes two plans
// for one where a member's initialiser picks the rules through an array.
template <std::size_t... I, class P, std::size_t N>
constexpr auto rest_of_plan(const P& plan, const Descent<N>& d, std::index_sequence<I...>) {
  return parallelize_plan(rule_of(d.rest[I], plan.template get<I>().style)...);
}

template <class List, class Sequence>
struct KeptSequence;
template <class D, std::size_t... J>
struct KeptSequence<D, std::index_sequence<J...>> {
  static constexpr auto list = kept<D::size, sizeof...(J)>(D::descent);
  using type = std::index_sequence<list[J]...>;
};
template <class D>
using kept_sequence = typename KeptSequence<D, std::make_index_sequence<D::descent.count>>::type;

template <auto plan, Name child>
struct Below {
  static constexpr std::size_t size = plan.size;
  static constexpr auto descent = descend_to(patterns(plan), child.view());
  static constexpr auto rest() { return rest_of_plan(plan, descent, kept_sequence<Below>()); }
};
template <auto plan>
struct BelowIndices {
  static constexpr std::size_t size = plan.size;
  static constexpr auto descent = descend_to_indices(patterns(plan));
  static constexpr auto rest() { return rest_of_plan(plan, descent, kept_sequence<BelowIndices>()); }
};

// What remains of a plan below a child, and below the indices of a list.
template <auto plan, Name child>
inline constexpr auto below = Below<plan, child>::rest();
template <auto plan>
inline constexpr auto below_indices = BelowIndices<plan>::rest();

// The rules of the module itself: those with no atoms left.
template <auto plan>
constexpr auto own_descent() {
  constexpr auto all = patterns(plan);
  Descent<plan.size> d;
  for (std::size_t i = 0; i < plan.size; ++i)
    if (all[i].empty()) {
      d.keep[i] = true;
      ++d.count;
    }
  return d;
}
template <auto plan>
struct Own {
  static constexpr std::size_t size = plan.size;
  static constexpr auto descent = own_descent<plan>();
  static constexpr auto rest() { return rest_of_plan(plan, descent, kept_sequence<Own>()); }
};
template <auto plan>
inline constexpr auto own_rules = Own<plan>::rest();

}  // namespace detail
}  // namespace shardwise

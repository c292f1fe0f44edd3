// What a plan says of a module, found out from types alone: rules that match nothing, modules with two parameter-sharding
// styles, lists whose indices a rule tells apart, layers that a style does not know. Layer: parallel.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

#include <shardwise/base/reflect.hpp>
#include <shardwise/mesh/device_mesh.hpp>
#include <shardwise/nn/child.hpp>
#include <shardwise/nn/param.hpp>
#include <shardwise/nn/visit.hpp>

namespace shardwise::detail {

// Rules are numbered as in the plan at the root; N stands for none.
template <std::size_t N>
struct PlanFacts {
  std::array<bool, N> matched{};
  std::size_t first_style = N;  // two parameter-sharding styles for one module
  std::size_t second_style = N;
  std::size_t ambiguous = N;  // tells indices of a run-time list apart
  std::size_t unsupported = N;  // shards parameters of a layer that it does not know, or of a module without any
  Name repeated;  // a name that two members of one module have
};

// The descent is an argument of the function, not of the template: g++ 12 takes two for one that differ in their flags alone.
template <std::size_t K, std::size_t N>
constexpr auto numbers_below(const Descent<N>& descent, const std::array<std::size_t, N>& numbers) {
  std::array<std::size_t, K> list{};
  std::size_t n = 0;
  for (std::size_t i = 0; i < N; ++i)
    if (descent.keep[i]) list[n++] = numbers[i];
  return list;
}

template <auto plan, class M, std::size_t N>
constexpr void gather_facts(PlanFacts<N>& facts, const std::array<std::size_t, plan.size>& numbers);

template <auto style, class Kind>
constexpr bool supports_kind() {
  using Style = std::remove_cvref_t<decltype(style)>;
  if constexpr (Style::shards_parameters)
    return Style::template supports<Kind>;
  else
    return true;
}

template <auto plan, class S, Name name, template <class> class M, std::size_t N>
constexpr void gather_below(PlanFacts<N>& facts, const std::array<std::size_t, plan.size>& numbers) {
  constexpr auto descent = descend_to(patterns(plan), name.view());
  gather_facts<below<plan, name>, M<S>>(facts, numbers_below<descent.count>(descent, numbers));
}

template <class Member>
struct MemberFacts {  // configuration, tensors, parameters: nothing below
  template <auto plan, std::size_t N>
  static constexpr void gather(PlanFacts<N>&, const std::array<std::size_t, plan.size>&) {}
};

template <class S, Name name, template <class> class M>
struct MemberFacts<Child<S, name, M>> {
  template <auto plan, std::size_t N>
  static constexpr void gather(PlanFacts<N>& facts, const std::array<std::size_t, plan.size>& numbers) {
    gather_below<plan, S, name, M>(facts, numbers);
  }
};

template <class S, Name name, template <class> class M>
struct MemberFacts<ChildList<S, name, M>> {
  template <auto plan, std::size_t N>
  static constexpr void gather(PlanFacts<N>& facts, const std::array<std::size_t, plan.size>& numbers) {
    constexpr auto to_list = descend_to(patterns(plan), name.view());
    constexpr auto list_plan = below<plan, name>;
    const auto list_numbers = numbers_below<to_list.count>(to_list, numbers);
    for (std::size_t i = 0; i < list_plan.size; ++i)  // a rule that ends at the list itself applies to nothing callable
      if (patterns(list_plan)[i].empty()) facts.unsupported = list_numbers[i];
    constexpr std::size_t apart = rule_that_tells_indices_apart(patterns(list_plan));
    if constexpr (apart < list_plan.size) {
      facts.ambiguous = list_numbers[apart];
      facts.matched[list_numbers[apart]] = true;
    } else {
      constexpr auto to_element = descend_to_indices(patterns(list_plan));
      gather_facts<below_indices<list_plan>, M<S>>(facts, numbers_below<to_element.count>(to_element, list_numbers));
    }
  }
};

template <class S, Name name, template <class> class M, std::size_t K>
struct MemberFacts<ChildArray<S, name, M, K>> {
  template <auto plan, std::size_t N>
  static constexpr void gather(PlanFacts<N>& facts, const std::array<std::size_t, plan.size>& numbers) {
    constexpr auto to_list = descend_to(patterns(plan), name.view());
    constexpr auto list_plan = below<plan, name>;
    const auto list_numbers = numbers_below<to_list.count>(to_list, numbers);
    for (std::size_t i = 0; i < list_plan.size; ++i)
      if (patterns(list_plan)[i].empty()) facts.unsupported = list_numbers[i];
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (gather_below<list_plan, S, index_name<I>(), M>(facts, list_numbers), ...);
    }(std::make_index_sequence<K>());
  }
};

template <class X>
struct MemberFacts<std::optional<X>> : MemberFacts<X> {};

// Whether the layer has parameters at all, and all of kinds that the style knows.
template <auto style, class... M>
constexpr bool knows_parameters(MemberTypes<M...>) {
  bool any = false;
  bool all = true;
  const auto ask = [&]<class X>(std::type_identity<X>) {
    if constexpr (is_param<X>) {
      any = true;
      all = all && supports_kind<style, typename X::kind>();
    }
  };
  (ask(std::type_identity<typename held<M>::type>{}), ...);
  return any && all;
}

template <auto plan, std::size_t I, class M, std::size_t N>
constexpr void gather_own(PlanFacts<N>& facts, const std::array<std::size_t, plan.size>& numbers,
                          std::size_t& sharding) {
  if constexpr (I < plan.size) {
    constexpr auto rule = plan.template get<I>();
    if constexpr (rule.pattern.empty()) {
      using Style = std::remove_cvref_t<decltype(rule.style)>;
      facts.matched[numbers[I]] = true;
      if constexpr (Style::shards_parameters) {
        if (sharding < N) {
          facts.first_style = sharding;
          facts.second_style = numbers[I];
        }
        sharding = numbers[I];
        // A style for any layer may meet one without parameters (dropout under SequenceParallel).
        if (!knows_parameters<rule.style>(member_types<M>()) && !supports_kind<rule.style, OtherLayer>())
          facts.unsupported = numbers[I];
      }
    }
    gather_own<plan, I + 1, M>(facts, numbers, sharding);
  }
}

template <auto plan, class... M, std::size_t N>
constexpr void gather_members(MemberTypes<M...>, PlanFacts<N>& facts,
                              const std::array<std::size_t, plan.size>& numbers) {
  (MemberFacts<M>::template gather<plan>(facts, numbers), ...);
}

template <class X>
constexpr Name name_of_member() {
  if constexpr (requires { X::child_name; })
    return X::child_name;
  else if constexpr (requires { X::param_name; })
    return X::param_name;
  else
    return Name();
}
// The first name that two members have; empty where there is none.
template <class... M>
constexpr Name repeated_name(MemberTypes<M...>) {
  const Name names[] = {name_of_member<typename held<M>::type>()..., Name()};
  for (std::size_t i = 0; i < sizeof...(M); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (!names[i].empty() && names[i] == names[j]) return names[i];
  return Name();
}

template <auto plan, class M, std::size_t N>
constexpr void gather_facts(PlanFacts<N>& facts, const std::array<std::size_t, plan.size>& numbers) {
  if constexpr (plan.size > 0) {
    std::size_t sharding = N;
    const Name repeated = repeated_name(member_types<M>());
    if (!repeated.empty()) facts.repeated = repeated;
    gather_own<plan, 0, M>(facts, numbers, sharding);
    gather_members<plan>(member_types<M>(), facts, numbers);
  }
}

template <auto plan, class M>
constexpr PlanFacts<plan.size> facts_of() {
  PlanFacts<plan.size> facts;
  std::array<std::size_t, plan.size> numbers{};
  for (std::size_t i = 0; i < plan.size; ++i) numbers[i] = i;
  gather_facts<plan, M>(facts, numbers);
  return facts;
}

template <auto plan>
constexpr Name pattern_or_none(std::size_t i) {
  return i < plan.size ? patterns(plan)[i] : Name();
}
template <auto plan>
constexpr std::size_t first_unmatched(const PlanFacts<plan.size>& facts) {
  for (std::size_t i = 0; i < plan.size; ++i)
    if (!facts.matched[i]) return i;
  return plan.size;
}

// Whether a module holds what is known at run time only: the length of a list, whether an optional module is there.
template <class Member>
inline constexpr bool is_known_late = false;
template <class... M>
constexpr bool any_known_late(MemberTypes<M...>) {
  return (is_known_late<M> || ...);
}
template <class M>
inline constexpr bool contains_late = any_known_late(member_types<M>());
template <class X>
inline constexpr bool is_known_late<std::optional<X>> = is_module_member<X> && !is_param<X>;
template <class S, Name name, template <class> class M>
inline constexpr bool is_known_late<Child<S, name, M>> = contains_late<M<S>>;
template <class S, Name name, template <class> class M>
inline constexpr bool is_known_late<ChildList<S, name, M>> = true;
template <class S, Name name, template <class> class M, std::size_t K>
inline constexpr bool is_known_late<ChildArray<S, name, M, K>> = contains_late<M<S>>;

// The first rule whose right-hand side is no style.
template <class... Styles>
constexpr std::size_t first_without_style(const Plan<Rule<Styles>...>&) {
  constexpr bool styles[] = {ParallelStyle<Styles>..., true};
  std::size_t i = 0;
  while (i < sizeof...(Styles) && styles[i]) ++i;
  return i;
}

// Rules of the check; their arguments name what is wrong.
template <bool Found, Name pattern>
inline constexpr bool rule_has_a_style = !Found;
template <bool Found, Name pattern>
inline constexpr bool rule_matches_a_module = !Found;
template <bool Found, Name first, Name second>
inline constexpr bool one_style_shards_parameters = !Found;
template <bool Found, Name pattern>
inline constexpr bool rule_treats_all_indices_alike = !Found;
template <bool Found, Name pattern>
inline constexpr bool style_knows_the_layer = !Found;
template <bool Found, Name name>
inline constexpr bool members_have_names_of_their_own = !Found;

// What parallelize_module takes.
template <class M>
inline constexpr bool is_model_on_one_device = false;
template <template <class> class M, class T>
inline constexpr bool is_model_on_one_device<M<Unsharded<T>>> = true;
template <class Mesh>
inline constexpr bool is_device_mesh = false;
template <class Comm, Name... Axes>
inline constexpr bool is_device_mesh<DeviceMesh<Comm, Axes...>> = true;

}  // namespace shardwise::detail

namespace shardwise {

/// Calls that the overloads in parallelize_module.hpp do not take: these say why, not a list of candidates.
template <auto plan, class M, class Mesh, class... More>
const M& parallelize_module(const M& module, const Mesh&, const More&...) {
  static_assert(
      detail::is_model_on_one_device<M>,
      "shardwise::parallelize_module: [Q9] the model is a template over its scope alone and still on one device: "
      "template <class Scope = Unsharded<float>> struct Model");
  static_assert(
      !detail::is_model_on_one_device<M> || detail::is_device_mesh<Mesh>,
      "shardwise::parallelize_module: [Q10] the second argument is a mesh: init_device_mesh<\"tp\">(world, {4})");
  return module;
}
template <class M, class... More>
const M& parallelize_module(const M& module, const More&...) {
  static_assert(sizeof(M) == 0,
                "shardwise::parallelize_module: [Q11] the plan stands in angle brackets: constexpr auto plan = "
                "parallelize_plan(...); parallelize_module<plan>(model, mesh)");
  return module;
}

}  // namespace shardwise

// parallelize_module: from a one-device model and a plan to the same model on a mesh, with the same results. And MeshContext,
// where the mesh argument may be left out. Layer: parallel.
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include <shardwise/base/warning.hpp>
#include <shardwise/nn/visit.hpp>
#include <shardwise/parallel/check.hpp>
#include <shardwise/redistribute/local.hpp>

namespace shardwise {

struct ParallelizeOptions {
  /// The rank of the axis whose weights count; `no_source`: everybody's own, without communication.
  int src_data_rank = 0;
};

namespace detail {

template <class T>
inline constexpr char type_tag = 0;

// Moves the parameters of one model to the mesh, leaf by leaf, in the order of declaration on every rank.
template <class Mesh>
class Parallelizer {
 public:
  Parallelizer(const Mesh& mesh, int source, bool release) : mesh_(mesh), source_(source), release_(release) {}

  template <class NewParam, class OldParam>
  NewParam parameter(OldParam& old) {
    using New = typename NewParam::TensorType;
    using Old = typename OldParam::TensorType;
    if (!old.defined()) return NewParam();
    if (const Tied* t = find(old.impl().get(), &type_tag<New>, NewParam::param_name)) {  // tied ones stay tied
      New shared = share<New>(t->made);
      return NewParam(std::move(shared), t->made->slot != nullptr);
    }
    NewParam parameter(moved<New>(static_cast<const Old&>(old)), old.requires_grad());
    remember(old.impl().get(), &type_tag<New>, parameter.impl());
    if (release_) static_cast<Old&>(old) = Old();
    return parameter;
  }

  template <class X>
  X plain(X& old) {
    if constexpr (is_tensor<X>) {
      if (!old.defined()) return X();
      static_assert(!X::distributed,
                    "shardwise::parallelize_module: [Q8] the model is on one device: its tensors are plain");
      X copy = moved<X>(old);
      if (release_) old = X();
      return copy;
    } else {
      return old;
    }
  }

  const Mesh& mesh() const { return mesh_; }

 private:
  struct Tied {
    const TensorImpl* old;
    const char* type;
    Ref<TensorImpl> made;
  };

  template <class New>
  [[gnu::cold]] New share(const Ref<TensorImpl>& impl) {
    if constexpr (New::distributed)
      return New(impl, mesh_);
    else
      return New(impl, typename New::MeshState{});
  }

  // A copy of the source rank's values: this rank's part of them, or all.
  template <class New, class Old>
  [[gnu::cold]] New moved(const Old& old) {
    const Extents& global = old.impl()->global;
    if constexpr (New::distributed) {
      New made = make_tensor<typename New::value_type, New::rank, typename New::layout_type>(global, mesh_);
      fill<is_interleaved(New::placements)>(New::placements, old, made);
      return made;
    } else {
      if (source_ == no_source || !mesh_.is_member()) {
        if constexpr (std::is_same_v<New, Old>)
          return clone(old);
        else
          return to_device(old);
      }
      New made = make_tensor<typename New::value_type, New::rank, typename New::layout_type>(global,
                                                                                             typename New::MeshState{});
      fill<false>(PlacementList<Mesh::ndim>{}, old, made);
      return made;
    }
  }
  template <bool Interleaved, class Old, class New>
  [[gnu::cold]] void fill(const PlacementList<Mesh::ndim>& placements, const Old& old, New& made) {
    if constexpr (!mesh_on_host<Mesh>) {
      if (mesh_.is_member())
        DeviceExecutor<mesh_on_host<Mesh>>::template distribute_tensor<Interleaved>(mesh_, placements, old, made,
                                                                                    source_);
    } else if (mesh_.is_member()) {
      distribute<Interleaved>(mesh_, placements, old.impl()->global, dtype_of<typename New::value_type>, source_,
                              old.data(), made.data(), made.bytes());
    }
  }

  [[gnu::noinline, gnu::cold]] const Tied* find(const TensorImpl* old, const char* type, const Name& name) const {
    for (const Tied& t : tied_)
      if (t.old == old) {
        SHARDWISE_REQUIRE(t.type == type,
                          text("shardwise::parallelize_module: a parameter \"", name.view(),
                               "\" is tied to another one, and the plan gives them different placements; give both the "
                               "same"),
                          PlanError);
        return &t;
      }
    return nullptr;
  }
  [[gnu::noinline, gnu::cold]] void remember(const TensorImpl* old, const char* type, const Ref<TensorImpl>& made) {
    tied_.push_back({old, type, made});
  }

  const Mesh& mesh_;
  int source_;
  bool release_;
  List<Tied> tied_;
};

template <class New, class Old, class P>
New parallelized(Old& old, P& parallelizer);

// A member of the old aggregate on its way to the member of the new one: the new aggregate's own member types drive it.
template <class Old, class P>
struct OnItsWay {
  Old& old;
  P& parallelizer;

  template <class New>
    requires(is_optional<New> == is_optional<std::remove_const_t<Old>>)
  [[gnu::cold]] operator New() const {  // NOLINT: brace initialisation of the aggregate asks for it
    if constexpr (!is_module_member<New>) {
      constexpr bool on_any_scope = std::is_convertible_v<Old&, New>;
      static_assert(
          on_any_scope,
          "shardwise::parallelize_module: [Q6] a member follows the scope without a name of its own: a module in a module is a "
          "Child<Scope, \"name\", Module>; many are a ChildList or a ChildArray, no std::vector and no std::array");
      if constexpr (on_any_scope) return old;
      __builtin_unreachable();
    } else if constexpr (is_optional<New>) {
      if (!old.has_value()) return New();
      return New(OnItsWay<std::remove_reference_t<decltype(*old)>, P>{*old, parallelizer}
                     .template as<typename New::value_type>());
    } else if constexpr (is_param<New>) {
      return parallelizer.template parameter<New>(old);
    } else if constexpr (is_child<New>) {
      return New(parallelized<typename New::Module>(aggregate_of(old), parallelizer), parallelizer.mesh());
    } else if constexpr (is_child_list<New>) {
      New list;
      for (auto& element : old)
        list.push_back(parallelized<typename New::Module>(aggregate_of(element), parallelizer), parallelizer.mesh());
      return list;
    } else {
      return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return New(typename New::Elements{
            OnItsWay<std::remove_reference_t<decltype(old.template get<I>())>, P>{old.template get<I>(), parallelizer}
                .template as<std::tuple_element_t<I, typename New::Elements>>()...});
      }(std::make_index_sequence<New::length>());
    }
  }
  template <class New>
  New as() const {
    return *this;
  }
};

// Configuration comes as it is: converting, it would lose to the constructors that take anything, std::any's and std::variant's.
template <class Old, class P>
[[gnu::cold]] auto on_its_way(Old& old, P& parallelizer) {
  using X = std::remove_const_t<Old>;
  if constexpr (is_module_member<X> || follows_scope<X>)
    return OnItsWay<Old, P>{old, parallelizer};
  else
    return parallelizer.plain(old);
}

template <class New, class Old, class P>
[[gnu::cold]] New parallelized(Old& old, P& parallelizer) {
  return visit_members(old, [&](auto&... member) { return New{on_its_way(member, parallelizer)...}; });
}

template <class M, auto plan, class Mesh>
struct parallel_type {
  using Aggregate =
      typename module_traits<M>::template Rebind<Parallel<plan, Mesh, typename module_traits<M>::Scope::value_type>>;
  static constexpr bool root_has_style = own_rules<plan>.size > 0;
  using type = std::conditional_t<root_has_style, Styled<Aggregate>, Aggregate>;
};

// One warning, or of a strict plan one error, that lists every rule that no module of this model matches.
template <class = void>
[[gnu::cold]] void report_rules(const Name* rules, const bool* matched, std::size_t count, bool strict = false) {
  std::string unmatched;
  for (std::size_t i = 0; i < count; ++i)
    if (!matched[i]) unmatched = text(unmatched, unmatched.empty() ? "\"" : ", \"", rules[i].view(), "\"");
  SHARDWISE_REQUIRE(
      !strict,
      text("shardwise::parallelize_module: rules of a strict plan match no module, since a list is empty or an "
           "optional module is not there: ",
           unmatched, "; fill it first, or drop the rule"),
      PlanError);
  warn(std::string(text("parallelize_module: these rules of the plan match no module and do nothing: ", unmatched)));
}

// Only at run time is it known whether a list is empty and an optional module there; what else the rules match, the types say.
template <auto plan, class M>
void report_unmatched_rules(const M& module, bool strict) {
  constexpr auto rules = patterns(plan);
  bool matched[plan.size] = {};
  bool all = true;
  for_each_module(module, [&](std::string_view path, const auto&) {
    for (std::size_t i = 0; i < plan.size; ++i)
      if (rules[i].empty() ? path.empty() : (!path.empty() && match_path(rules[i].view(), path))) matched[i] = true;
  });
  for (const bool m : matched) all = all && m;
  if (!all) report_rules(rules.data(), matched, plan.size, strict);
}

}  // namespace detail

/// While it lives, `parallelize_module<plan, Mesh>(model)` of this thread uses its mesh. Contexts nest.
/// PyTorch: `with device_mesh:`.
template <class Mesh>
class MeshContext;

namespace detail {

struct ContextEntry {
  const char* type = nullptr;
  const void* mesh = nullptr;
  ContextEntry* outer = nullptr;
};
inline ContextEntry*& innermost_context() {
  thread_local ContextEntry* entry = nullptr;
  return entry;
}

}  // namespace detail

template <class Mesh>
class MeshContext {
 public:
  explicit MeshContext(const Mesh& mesh)
      : mesh_(mesh), entry_{&detail::type_tag<Mesh>, &mesh_, detail::innermost_context()} {
    detail::innermost_context() = &entry_;
  }
  MeshContext(const MeshContext&) = delete;
  MeshContext& operator=(const MeshContext&) = delete;
  ~MeshContext() { detail::innermost_context() = entry_.outer; }

 private:
  Mesh mesh_;
  detail::ContextEntry entry_;
};

namespace detail {

template <auto plan_or_style, class M, class Mesh>
[[gnu::cold]] auto parallelize(M& module, const Mesh& mesh, const ParallelizeOptions& options, bool release) {
  static_assert(
      Mesh::ndim == 1,
      "shardwise::parallelize_module: [Q1] plans work on one mesh axis; give the sub-mesh of that axis: mesh.get<\"tp\">()");
  constexpr auto plan = as_plan(plan_or_style);
  constexpr std::size_t no_style = first_without_style(plan);
  static_assert(
      rule_has_a_style<(no_style < plan.size), pattern_or_none<plan>(no_style)>,
      "shardwise::parallelize_module: [Q7] a rule's right-hand side is a style; see the concept ParallelStyle");
  if constexpr (Mesh::ndim != 1 || no_style < plan.size) {
    return module;  // no further errors about what is no plan
  } else {
    constexpr auto facts = facts_of<plan, M>();
    static_assert(
        one_style_shards_parameters<(facts.second_style < plan.size), pattern_or_none<plan>(facts.first_style),
                                    pattern_or_none<plan>(facts.second_style)>,
        "shardwise::parallelize_module: [Q2] two rules give one module two parameter-sharding styles; keep one of them");
    static_assert(
        rule_treats_all_indices_alike<(facts.ambiguous < plan.size), pattern_or_none<plan>(facts.ambiguous)>,
        "shardwise::parallelize_module: [Q3] a rule tells the indices of a ChildList apart; use ChildArray<Scope, name, Module, N>");
    static_assert(
        style_knows_the_layer<(facts.unsupported < plan.size), pattern_or_none<plan>(facts.unsupported)>,
        "shardwise::parallelize_module: [Q4] the style does not know this layer: ColwiseParallel and RowwiseParallel shard linear "
        "and embedding layers (of your own: Param<Scope, name, rank, LinearLayer>)");
    static_assert(
        members_have_names_of_their_own<!facts.repeated.empty(), facts.repeated>,
        "shardwise::parallelize_module: [Q12] two members of a module have one name; give each a name of its own");
    constexpr std::size_t unmatched = first_unmatched<plan>(facts);
    if constexpr (is_strict<std::remove_cvref_t<decltype(plan_or_style)>>)
      static_assert(
          rule_matches_a_module<(unmatched < plan.size), pattern_or_none<plan>(unmatched)>,
          "shardwise::parallelize_module: [Q5] a rule of a strict plan matches no module; mend its pattern or drop it");
    if constexpr (facts.second_style < plan.size || facts.ambiguous < plan.size || facts.unsupported < plan.size) {
      return module;
    } else {
      SHARDWISE_REQUIRE(options.src_data_rank >= no_source && options.src_data_rank < mesh.size(),
                        text("shardwise::parallelize_module: src_data_rank ", options.src_data_rank,
                             " is not on an axis of ", mesh.size(), " ranks"));
      if constexpr (plan.size == 0)
        warn("parallelize_module: the plan is empty; the module comes back as it was");
      else if constexpr (contains_late<M>)
        report_unmatched_rules<plan>(module, is_strict<std::remove_cvref_t<decltype(plan_or_style)>>);
      else if constexpr (unmatched < plan.size)
        report_rules(patterns(plan).data(), facts.matched.data(), plan.size);
      using Type = parallel_type<M, plan, Mesh>;
      Parallelizer<Mesh> parallelizer(mesh, options.src_data_rank, release);
      auto aggregate = parallelized<typename Type::Aggregate>(module, parallelizer);
      if constexpr (Type::root_has_style)
        return typename Type::type(std::move(aggregate), mesh);
      else
        return aggregate;
    }
  }
}

template <class Mesh>
const Mesh& mesh_of_context() {
  for (const ContextEntry* e = innermost_context(); e != nullptr; e = e->outer)
    if (e->type == &type_tag<Mesh>) return *static_cast<const Mesh*>(e->mesh);
  fail(
      "shardwise::parallelize_module: no mesh of this type is active; give the mesh as an argument, or put MeshContext context(mesh); "
      "around the call");
}

}  // namespace detail

/// The model on a mesh, parallelized by a plan or, for a single layer, by one style; a copy that shares nothing with the model.
///
/// Moves: every parameter from `src_data_rank`, sharded ones as shards. Needs: the same model type on all ranks of the mesh. Gives:
/// `M<Parallel<plan, Mesh>>`, or a type derived from it where the root has a style; children and parameters keep their names.
/// Gradient: parameters are leaves that require a gradient where the model's do. Ranks: all of the mesh.
/// Throws: `PlanError` for tied parameters with different placements, and for a rule of a strict plan that finds no module in an
/// empty list or an absent optional one, `Error` for a source outside the axis, CommError and its kinds.
/// Warns, once, of rules that match nothing (`strict(plan)`: a compile error) and of an empty plan.
/// PyTorch: `parallelize_module`.
template <auto plan, template <class> class M, class T, class Comm, Name... Axes>
auto parallelize_module(const M<Unsharded<T>>& module, const DeviceMesh<Comm, Axes...>& mesh,
                        const ParallelizeOptions& options = {}) {
  auto copy = module;  // handles, not elements
  return detail::parallelize<plan>(copy, mesh, options, false);
}

/// Gives the model's memory back leaf by leaf, so that one that just fits can still be sharded.
template <auto plan, template <class> class M, class T, class Comm, Name... Axes>
auto parallelize_module(M<Unsharded<T>>&& module, const DeviceMesh<Comm, Axes...>& mesh,
                        const ParallelizeOptions& options = {}) {
  auto taken = std::move(module);
  return detail::parallelize<plan>(taken, mesh, options, true);
}

/// On the innermost `MeshContext` of this mesh type. Throws `Error` where there is none.
template <auto plan, class Mesh, template <class> class M, class T>
auto parallelize_module(const M<Unsharded<T>>& module, const ParallelizeOptions& options = {}) {
  return parallelize_module<plan>(module, detail::mesh_of_context<Mesh>(), options);
}

}  // namespace shardwise

// The type that a move gives, with the rules of redistribute checked: for the forms of it that do more than move one tensor
// at once. Layer: redistribute.
#pragma once

#include <cstddef>

#include <shardwise/redistribute/redistribute.hpp>

namespace shardwise::detail {

template <class X, class... P>
struct RedistributeTarget {
  static constexpr bool valid = sizeof...(P) == X::Mesh::ndim && (shard_dim_in_range<P, X::rank> && ...);
  static constexpr void check() { check_placements<typename X::Mesh, X::rank, P...>(); }
  // A member template: nothing is named where the placements are wrong.
  template <bool Valid = valid>
  struct Type {
    using type = X;
  };
  template <bool Valid>
    requires Valid
  struct Type<Valid> {
    using type = Redistributed<X, P...>;
  };
};

template <class X, Name Axis, class P>
struct RedistributeTarget<X, On<Axis, P>> {
  static constexpr bool valid = shard_dim_in_range<P, X::rank>;
  static constexpr void check() {
    static_assert(
        valid,
        "shardwise::redistribute: [P2] the shard dimension exists in the tensor; choose one from -rank to rank - 1");
  }
  template <bool Valid = valid>
  struct Type {
    using type = X;
  };
  template <bool Valid>
    requires Valid
  struct Type<Valid> {
    using type = BasicTensor<typename X::value_type, X::rank,
                             typename distributed_of<typename X::Mesh, with_axis<X, Axis, P>()>::type>;
  };
};

// X moved to P..., or to On<"axis", P>. X itself where a rule is broken, so that the error is the rule's sentence alone.
template <class X, class... P>
using TargetOf = typename RedistributeTarget<X, P...>::template Type<>::type;

// The assertions of `redistribute`, and whether they hold.
template <class X, class... P>
constexpr bool check_target() {
  RedistributeTarget<X, P...>::check();
  constexpr bool reachable = all_redistributable<typename X::layout_type, typename TargetOf<X, P...>::layout_type>;
  static_assert(
      reachable,
      "shardwise::redistribute: [P3] the target is Partial where the source is not; redistribute to Replicate or Shard, "
      "or say as_partial<Op>(x), or from_local<Partial<Op>>(x.to_local(), mesh) where every rank's part is a term");
  return RedistributeTarget<X, P...>::valid && reachable;
}

}  // namespace shardwise::detail

// Reflection of aggregates: how many members one has, a call with all of them, a call for each of them. Works by
// brace initialisation and structured bindings: no base classes, no members that are references to non-const, and
// a C array counts as its elements; a converting constructor template of what an optional holds must be constrained.
// Layer: base.
#pragma once

#include <type_traits>
#include <utility>

namespace shardwise {

/// An aggregate that is reflected has at most this many members.
inline constexpr int max_members = 32;

namespace detail {

// Converts to whatever a member is; never called. Not constexpr, so that no compiler evaluates it for the constraints of
// members like std::optional. Defined all the same: clang 19 instantiates the constructor bodies of an optional's value
// and rejects a mere declaration where that value's type has no linkage. Const while the probe is not, so that a
// member's converting constructor template is the better match instead of an ambiguous one.
struct MemberProbe {
  template <class T>
  operator T() const {  // NOLINT: converts to every member
    __builtin_unreachable();
  }
};

// The first count, from above, that A can be braced with; max_members + 1 stands for more, -1 for none. It goes
// downwards because a member without a default value makes too few initialisers fail like too many: neither counting
// upwards nor bisection finds the end. One function template with a requires-expression per count costs a
// type one instantiation where a template per count costs thirty.
template <class A>
consteval int count_members() {
  // clang-format off
#define SHARDWISE_P2 p, p
#define SHARDWISE_P4 SHARDWISE_P2, SHARDWISE_P2
#define SHARDWISE_P8 SHARDWISE_P4, SHARDWISE_P4
#define SHARDWISE_P16 SHARDWISE_P8, SHARDWISE_P8
#define SHARDWISE_COUNT(n, ...) if constexpr (requires(MemberProbe p) { A{__VA_ARGS__}; }) return n; else
  SHARDWISE_COUNT(33, SHARDWISE_P16, SHARDWISE_P16, p)
  SHARDWISE_COUNT(32, SHARDWISE_P16, SHARDWISE_P16)
  SHARDWISE_COUNT(31, SHARDWISE_P16, SHARDWISE_P8, SHARDWISE_P4, SHARDWISE_P2, p)
  SHARDWISE_COUNT(30, SHARDWISE_P16, SHARDWISE_P8, SHARDWISE_P4, SHARDWISE_P2)
  SHARDWISE_COUNT(29, SHARDWISE_P16, SHARDWISE_P8, SHARDWISE_P4, p)
  SHARDWISE_COUNT(28, SHARDWISE_P16, SHARDWISE_P8, SHARDWISE_P4)
  SHARDWISE_COUNT(27, SHARDWISE_P16, SHARDWISE_P8, SHARDWISE_P2, p)
  SHARDWISE_COUNT(26, SHARDWISE_P16, SHARDWISE_P8, SHARDWISE_P2)
  SHARDWISE_COUNT(25, SHARDWISE_P16, SHARDWISE_P8, p)
  SHARDWISE_COUNT(24, SHARDWISE_P16, SHARDWISE_P8)
  SHARDWISE_COUNT(23, SHARDWISE_P16, SHARDWISE_P4, SHARDWISE_P2, p)
  SHARDWISE_COUNT(22, SHARDWISE_P16, SHARDWISE_P4, SHARDWISE_P2)
  SHARDWISE_COUNT(21, SHARDWISE_P16, SHARDWISE_P4, p)
  SHARDWISE_COUNT(20, SHARDWISE_P16, SHARDWISE_P4)
  SHARDWISE_COUNT(19, SHARDWISE_P16, SHARDWISE_P2, p)
  SHARDWISE_COUNT(18, SHARDWISE_P16, SHARDWISE_P2)
  SHARDWISE_COUNT(17, SHARDWISE_P16, p)
  SHARDWISE_COUNT(16, SHARDWISE_P16)
  SHARDWISE_COUNT(15, SHARDWISE_P8, SHARDWISE_P4, SHARDWISE_P2, p)
  SHARDWISE_COUNT(14, SHARDWISE_P8, SHARDWISE_P4, SHARDWISE_P2)
  SHARDWISE_COUNT(13, SHARDWISE_P8, SHARDWISE_P4, p)
  SHARDWISE_COUNT(12, SHARDWISE_P8, SHARDWISE_P4)
  SHARDWISE_COUNT(11, SHARDWISE_P8, SHARDWISE_P2, p)
  SHARDWISE_COUNT(10, SHARDWISE_P8, SHARDWISE_P2)
  SHARDWISE_COUNT(9, SHARDWISE_P8, p)
  SHARDWISE_COUNT(8, SHARDWISE_P8)
  SHARDWISE_COUNT(7, SHARDWISE_P4, SHARDWISE_P2, p)
  SHARDWISE_COUNT(6, SHARDWISE_P4, SHARDWISE_P2)
  SHARDWISE_COUNT(5, SHARDWISE_P4, p)
  SHARDWISE_COUNT(4, SHARDWISE_P4)
  SHARDWISE_COUNT(3, SHARDWISE_P2, p)
  SHARDWISE_COUNT(2, SHARDWISE_P2)
  SHARDWISE_COUNT(1, p)
  if constexpr (requires { A{}; }) return 0;
  else return -1;
#undef SHARDWISE_COUNT
#undef SHARDWISE_P16
#undef SHARDWISE_P8
#undef SHARDWISE_P4
#undef SHARDWISE_P2
  // clang-format on
}

}  // namespace detail

/// The number of members of the aggregate A: 0 to 32, 33 for more, -1 where it cannot be told (A is no aggregate,
/// has a base class or a reference to non-const).
template <class A>
inline constexpr int member_count = -1;
template <class A>
  requires std::is_aggregate_v<A>
inline constexpr int member_count<A> = detail::count_members<std::remove_cv_t<A>>();

/// Calls `f(m0, m1, ...)` with all members of `aggregate`, as lvalues, const where the aggregate is.
template <class A, class F>
constexpr decltype(auto) visit_members(A& aggregate, F&& f) {
  constexpr int count = member_count<A>;
  static_assert(count >= 0,
                "shardwise::for_each_member: [M2] an aggregate of values; remove bases, constructors, references");
  static_assert(count <= max_members,
                "shardwise::for_each_member: [M1] at most 32 members a module; group some into a child module");
  // clang-format off
#define SHARDWISE_M1 m0
#define SHARDWISE_M2 SHARDWISE_M1, m1
#define SHARDWISE_M3 SHARDWISE_M2, m2
#define SHARDWISE_M4 SHARDWISE_M3, m3
#define SHARDWISE_M5 SHARDWISE_M4, m4
#define SHARDWISE_M6 SHARDWISE_M5, m5
#define SHARDWISE_M7 SHARDWISE_M6, m6
#define SHARDWISE_M8 SHARDWISE_M7, m7
#define SHARDWISE_M9 SHARDWISE_M8, m8
#define SHARDWISE_M10 SHARDWISE_M9, m9
#define SHARDWISE_M11 SHARDWISE_M10, m10
#define SHARDWISE_M12 SHARDWISE_M11, m11
#define SHARDWISE_M13 SHARDWISE_M12, m12
#define SHARDWISE_M14 SHARDWISE_M13, m13
#define SHARDWISE_M15 SHARDWISE_M14, m14
#define SHARDWISE_M16 SHARDWISE_M15, m15
#define SHARDWISE_M17 SHARDWISE_M16, m16
#define SHARDWISE_M18 SHARDWISE_M17, m17
#define SHARDWISE_M19 SHARDWISE_M18, m18
#define SHARDWISE_M20 SHARDWISE_M19, m19
#define SHARDWISE_M21 SHARDWISE_M20, m20
#define SHARDWISE_M22 SHARDWISE_M21, m21
#define SHARDWISE_M23 SHARDWISE_M22, m22
#define SHARDWISE_M24 SHARDWISE_M23, m23
#define SHARDWISE_M25 SHARDWISE_M24, m24
#define SHARDWISE_M26 SHARDWISE_M25, m25
#define SHARDWISE_M27 SHARDWISE_M26, m26
#define SHARDWISE_M28 SHARDWISE_M27, m27
#define SHARDWISE_M29 SHARDWISE_M28, m28
#define SHARDWISE_M30 SHARDWISE_M29, m29
#define SHARDWISE_M31 SHARDWISE_M30, m30
#define SHARDWISE_M32 SHARDWISE_M31, m31
#define SHARDWISE_BIND(n) \
  else if constexpr (count == n) { auto& [SHARDWISE_M##n] = aggregate; return f(SHARDWISE_M##n); }
  if constexpr (count <= 0 || count > max_members) { return f(); }
  SHARDWISE_BIND(1)
  SHARDWISE_BIND(2)
  SHARDWISE_BIND(3)
  SHARDWISE_BIND(4)
  SHARDWISE_BIND(5)
  SHARDWISE_BIND(6)
  SHARDWISE_BIND(7)
  SHARDWISE_BIND(8)
  SHARDWISE_BIND(9)
  SHARDWISE_BIND(10)
  SHARDWISE_BIND(11)
  SHARDWISE_BIND(12)
  SHARDWISE_BIND(13)
  SHARDWISE_BIND(14)
  SHARDWISE_BIND(15)
  SHARDWISE_BIND(16)
  SHARDWISE_BIND(17)
  SHARDWISE_BIND(18)
  SHARDWISE_BIND(19)
  SHARDWISE_BIND(20)
  SHARDWISE_BIND(21)
  SHARDWISE_BIND(22)
  SHARDWISE_BIND(23)
  SHARDWISE_BIND(24)
  SHARDWISE_BIND(25)
  SHARDWISE_BIND(26)
  SHARDWISE_BIND(27)
  SHARDWISE_BIND(28)
  SHARDWISE_BIND(29)
  SHARDWISE_BIND(30)
  SHARDWISE_BIND(31)
  SHARDWISE_BIND(32)
#undef SHARDWISE_BIND
#undef SHARDWISE_M32
#undef SHARDWISE_M31
#undef SHARDWISE_M30
#undef SHARDWISE_M29
#undef SHARDWISE_M28
#undef SHARDWISE_M27
#undef SHARDWISE_M26
#undef SHARDWISE_M25
#undef SHARDWISE_M24
#undef SHARDWISE_M23
#undef SHARDWISE_M22
#undef SHARDWISE_M21
#undef SHARDWISE_M20
#undef SHARDWISE_M19
#undef SHARDWISE_M18
#undef SHARDWISE_M17
#undef SHARDWISE_M16
#undef SHARDWISE_M15
#undef SHARDWISE_M14
#undef SHARDWISE_M13
#undef SHARDWISE_M12
#undef SHARDWISE_M11
#undef SHARDWISE_M10
#undef SHARDWISE_M9
#undef SHARDWISE_M8
#undef SHARDWISE_M7
#undef SHARDWISE_M6
#undef SHARDWISE_M5
#undef SHARDWISE_M4
#undef SHARDWISE_M3
#undef SHARDWISE_M2
#undef SHARDWISE_M1
  // clang-format on
}

namespace detail {

template <class... M>
struct MemberTypes {};

struct CollectTypes {  // defined: clang asks for it where models live in an unnamed namespace
  template <class... M>
  constexpr MemberTypes<std::remove_cvref_t<M>...> operator()(M&...) const {
    return {};
  }
};
template <class A>
using member_types = decltype(visit_members(std::declval<A&>(), CollectTypes{}));

}  // namespace detail

/// Calls `f(member)` for every member of `aggregate` in their order.
template <class A, class F>
constexpr void for_each_member(A& aggregate, F&& f) {
  visit_members(aggregate, [&f](auto&... members) { (void(f(members)), ...); });
}

}  // namespace shardwise

#include <shardwise/base/reflect.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

using namespace shardwise;

namespace {

// As Child and Param are: not default constructible, with a converting constructor template.
struct Inner {
  int value = 0;
};
struct FromAnything {
  int value;
  template <class M>
  FromAnything(M&& inner) : value(inner.value) {}
};
struct FromCopy {
  int value;
  template <class M>
    requires(!std::is_same_v<M, FromCopy>)
  explicit FromCopy(const M& inner) : value(inner.value) {}
  FromCopy(Inner inner) : value(inner.value) {}
};
struct Constrained {
  int value;
  template <class M>
    requires std::is_convertible_v<M, Inner>
  Constrained(M&& inner) : value(static_cast<Inner>(std::forward<M>(inner)).value) {}
};
struct MoveOnly {
  std::unique_ptr<int> pointer;
  explicit MoveOnly(int i) : pointer(std::make_unique<int>(i)) {}
};

struct Empty {};
struct One {
  int a;
};
struct Callable {
  FromAnything first;
  Constrained second;
  auto operator()(const auto& x) const { return second.value * first.value * x; }
};
struct Mixed {
  std::optional<int> maybe;
  std::vector<FromAnything> list;
  std::tuple<int, FromCopy> tuple;
  std::string text;
  int integer = 3;
  float real = 0.5f;
  bool flag = true;
  FromCopy child;
  std::variant<int, std::string> either;
  std::array<double, 4> array;
  std::pair<int, float> pair;
  MoveOnly unique;
  Inner inner;
  Empty empty;
};
struct OnlyTuple {
  std::tuple<FromAnything, Constrained> layers;
};
struct OnlyOptional {
  std::optional<Constrained> layer;
};
struct SeveralOptional {
  std::optional<Constrained> a;
  std::optional<Constrained> b;
};
struct OnlyNested {
  Callable nested;
};
struct Referring {
  const std::string& text;
  std::int64_t n;
};
template <class T>
struct Templated {
  T a, b;
  std::optional<T> c;
  auto operator()(const auto& x) const { return a + b + x; }
};
struct Most {
  Constrained a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7;
  int c0, c1, c2, c3, c4, c5, c6, c7, d0, d1, d2, d3, d4, d5, d6, d7;
};
struct TooMany {
  int a[33];
};
struct Derived : One {
  int b;
};
class NoAggregate {
 public:
  explicit NoAggregate(int i) : i_(i) {}
  int get() const { return i_; }

 private:
  int i_;
};

static_assert(member_count<Empty> == 0);
static_assert(member_count<One> == 1);
static_assert(member_count<const One> == 1);
static_assert(member_count<Callable> == 2);
static_assert(member_count<const Callable> == 2);
static_assert(member_count<Mixed> == 14);
static_assert(member_count<OnlyTuple> == 1);
static_assert(member_count<OnlyOptional> == 1);
static_assert(member_count<SeveralOptional> == 2);
static_assert(member_count<OnlyNested> == 1);
static_assert(member_count<Referring> == 2);
static_assert(member_count<Templated<float>> == 3);
static_assert(member_count<Templated<std::string>> == 3);
static_assert(member_count<Templated<Constrained>> == 3);
static_assert(member_count<Most> == 32);
static_assert(member_count<TooMany> == 33);
static_assert(member_count<NoAggregate> == -1);

constexpr int sum(const Templated<int>& t) {
  return visit_members(t, [](int a, int b, const std::optional<int>& c) { return a + b + *c; });
}
static_assert(sum({1, 2, 3}) == 6);

struct Collector {
  std::string text;
  void operator()(int i) { text += "i" + std::to_string(i); }
  void operator()(const std::string& s) { text += "s" + s; }
  void operator()(bool b) { text += b ? "true" : "false"; }
  void operator()(const auto&) { text += "."; }
};

}  // namespace

TEST_CASE("for_each_member visits the members in their order") {
  Mixed mixed{std::nullopt, {}, {1, Inner{2}}, "text", 7, 0.5f, false, Inner{5}, 1, {}, {}, MoveOnly(1), {}, {}};
  Collector collector;
  for_each_member(mixed, collector);
  CHECK(collector.text == "...stexti7.false.......");
  const Mixed& constant = mixed;
  Collector again;
  for_each_member(constant, again);
  CHECK(again.text == collector.text);
}

TEST_CASE("members are visited in place") {
  Templated<int> t{1, 2, 3};
  for_each_member(t, [](auto& member) { member = 9; });
  CHECK(t.a == 9);
  CHECK(t.b == 9);
  CHECK(t.c == 9);
  const Templated<int>& constant = t;
  for_each_member(constant,
                  [](auto& member) { static_assert(std::is_const_v<std::remove_reference_t<decltype(member)>>); });
}

TEST_CASE("visit_members gives all members at once and returns what f returns") {
  Callable callable{Inner{3}, Inner{4}};
  CHECK(visit_members(callable, [](FromAnything& a, Constrained& b) { return 10 * a.value + b.value; }) == 34);
  int& first = visit_members(callable, [](FromAnything& a, Constrained&) -> int& { return a.value; });
  first = 5;
  CHECK(callable.first.value == 5);
  CHECK(callable(2) == 40);
  Empty empty;
  CHECK(visit_members(empty, [] { return 1; }) == 1);
  int calls = 0;
  for_each_member(empty, [&](auto&) { ++calls; });
  CHECK(calls == 0);
}

TEST_CASE("thirty-two members are visited") {
  Inner i;
  Most most{i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  int total = 0, count = 0;
  for_each_member(most, [&]<class M>(M& member) {
    ++count;
    if constexpr (std::is_same_v<M, int>) total += member;
  });
  CHECK(count == 32);
  CHECK(total == 136);
}

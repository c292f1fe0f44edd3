// Plans as template arguments: different rests are different values, matched rules are matched. g++ 12 takes two values for one
// where arrays in them leave elements out, which plans must never do.
#include <type_traits>

#include <shardwise/shardwise.hpp>

using namespace shardwise;

namespace {

template <auto>
struct Holder {};
template <auto a, auto b>
constexpr bool differ = !std::is_same_v<Holder<a>, Holder<b>>;
template <auto plan, Name child>
constexpr auto below = detail::below<plan, child>;

constexpr auto p1 =
    parallelize_plan("a"_path = ColwiseParallel{}, "b"_path = ColwiseParallel{.use_local_output = false});
constexpr auto p2 =
    parallelize_plan("a"_path = ColwiseParallel{.use_local_output = false}, "b"_path = ColwiseParallel{});
constexpr auto p3 =
    parallelize_plan("b"_path = ColwiseParallel{}, "a"_path = ColwiseParallel{.use_local_output = false});
static_assert(differ<p1, p2>);
static_assert(differ<p1, p3>);
static_assert(differ<below<p1, "a">, below<p1, "b">>);
static_assert(!differ<below<p1, "a">, below<p2, "b">>);
static_assert(differ<below<p1, "a">, below<p2, "a">>);
constexpr auto q = parallelize_plan("a.x"_path = SequenceParallel{}, "b.x"_path = SequenceParallel{.sequence_dim = 0},
                                    "c.y"_path = SequenceParallel{}, "d.x"_path = SequenceParallel{},
                                    "d.y"_path = SequenceParallel{.sequence_dim = 0},
                                    "e.x"_path = SequenceParallel{.sequence_dim = 0}, "e.y"_path = SequenceParallel{});
static_assert(differ<below<q, "a">, below<q, "b">>);
static_assert(differ<below<q, "a">, below<q, "c">>);
static_assert(differ<below<q, "d">, below<q, "e">>);
static_assert(below<below<q, "d">, "x">.get<0>().style.sequence_dim == 1);
static_assert(below<below<q, "d">, "y">.get<0>().style.sequence_dim == 0);
static_assert(below<below<q, "e">, "x">.get<0>().style.sequence_dim == 0);
static_assert(below<below<q, "e">, "y">.get<0>().style.sequence_dim == 1);
constexpr auto r = parallelize_plan("layers.0"_path = SequenceParallel{.sequence_dim = 0, .use_local_output = true},
                                    "layers.1"_path = SequenceParallel{.sequence_dim = 1, .use_local_output = false},
                                    "layers.2"_path = SequenceParallel{.sequence_dim = 0, .use_local_output = false});
static_assert(below<below<r, "layers">, "2">.get<0>().style.sequence_dim == 0);
static_assert(differ<below<below<r, "layers">, "0">, below<below<r, "layers">, "2">>);
static_assert(differ<below<below<r, "layers">, "0">, below<below<r, "layers">, "1">>);

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  Child<Scope, "net2", nn::Linear> net2;
};
constexpr auto star = parallelize_plan("net1"_path = ColwiseParallel{}, "*2"_path = RowwiseParallel{},
                                       "net3"_path = RowwiseParallel{}, "net[12]"_path = PrepareModuleInput{});
constexpr auto facts = detail::facts_of<star, Mlp<>>();
static_assert(facts.matched[0]);
static_assert(facts.matched[1]);
static_assert(!facts.matched[2]);
static_assert(facts.matched[3]);
static_assert(facts.second_style == star.size);
static_assert(detail::first_unmatched<star>(facts) == 2);

}  // namespace

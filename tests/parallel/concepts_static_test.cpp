// What is nearly a placement, an element type, a reduction or a style is none.
#include <complex>
#include <string>

#include <shardwise/nn/scope.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;

namespace near_misses {

// Placements are a closed list: what looks like one is not known to planner and executor.
struct LooksLikeShard {
  static constexpr int dim = 0;
  friend constexpr bool operator==(const LooksLikeShard&, const LooksLikeShard&) = default;
};
struct LooksLikePartial {
  static constexpr ReduceOp op = ReduceOp::sum;
};
struct DerivedShard : Shard<0> {};
static_assert(Placement<Shard<0>>);
static_assert(!Placement<LooksLikeShard> && !Placement<LooksLikePartial> && !Placement<DerivedShard>);
static_assert(!Placement<Shard<0>&> && !Placement<Shard<0>*>);
static_assert(!Placement<On<"tp", Replicate>> && !Placement<Sum> && !Placement<ReduceOp> && !Placement<void>);

struct NamesNoOperation {
  using op = ReduceOp;
};
static_assert(ReduceOpTag<Max>);
static_assert(!ReduceOpTag<NamesNoOperation> && !ReduceOpTag<ReduceOp> && !ReduceOpTag<Partial<>*>);

static_assert(Element<std::complex<double>> && !Element<std::complex<int>> && !Element<std::complex<long double>>);
static_assert(!Element<bool> && !Element<char> && !Element<unsigned> && !Element<long double> && !Element<const float>);
static_assert(RealElement<half> && !RealElement<std::complex<float>> && !RealElement<std::int32_t>);
static_assert(FieldElement<std::complex<float>> && !FieldElement<std::uint8_t>);

// A style says whether it places parameters, and can be copied into a plan.
struct Silent {};
struct SaysNo {
  static constexpr bool shards_parameters = false;
};
struct SaysSomethingElse {
  static constexpr const std::string* shards_parameters();
};
struct Says {
  struct Answer {};
  static constexpr Answer shards_parameters{};
};
struct HoldsMemory : SaysNo {
  std::string name;
};
static_assert(ParallelStyle<SaysNo>);
static_assert(!ParallelStyle<Silent> && !ParallelStyle<SaysSomethingElse> && !ParallelStyle<Says>);
static_assert(!ParallelStyle<HoldsMemory> && !ParallelStyle<Replicate> && !ParallelStyle<SaysNo*>);

}  // namespace near_misses

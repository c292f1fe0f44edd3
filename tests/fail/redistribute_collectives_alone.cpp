// A mesh of a communicator that has the collectives, and no exchanges for tensors to move over.
// expect-error: shardwise::redistribute: \[P9\] tensors move over exchanges, which this communicator has not: make the mesh of OverCollectives\(world\), from <shardwise/comm/over_collectives.hpp>; see the concept DirectAccessCommunicator
#include <chrono>
#include <optional>
#include <utility>

#include <shardwise/comm/over_collectives.hpp>
#include <shardwise/core.hpp>

using namespace shardwise;

// What the concept asks for and no more.
class Collectives : ThreadCommunicator {
 public:
  using ThreadCommunicator::abort;
  using ThreadCommunicator::all_gather;
  using ThreadCommunicator::all_gather_v;
  using ThreadCommunicator::all_reduce;
  using ThreadCommunicator::all_to_all_v;
  using ThreadCommunicator::axis;
  using ThreadCommunicator::barrier;
  using ThreadCommunicator::broadcast;
  using ThreadCommunicator::deadline;
  using ThreadCommunicator::id;
  using ThreadCommunicator::memory_space;
  using ThreadCommunicator::rank;
  using ThreadCommunicator::recv;
  using ThreadCommunicator::reduce_scatter;
  using ThreadCommunicator::reduce_scatter_v;
  using ThreadCommunicator::scatter;
  using ThreadCommunicator::scatter_v;
  using ThreadCommunicator::send;
  using ThreadCommunicator::size;

  explicit Collectives(ThreadCommunicator ranks) : ThreadCommunicator(std::move(ranks)) {}
  Collectives with_axis(Name axis) const { return Collectives(ThreadCommunicator::with_axis(axis)); }
  Collectives with_deadline(std::chrono::milliseconds deadline) const {
    return Collectives(ThreadCommunicator::with_deadline(deadline));
  }
  std::optional<Collectives> split(int color, int key) const {
    const auto part = ThreadCommunicator::split(color, key);
    return part ? std::optional<Collectives>(*part) : std::nullopt;
  }
};
static_assert(Communicator<Collectives> && !DirectAccessCommunicator<Collectives>);

#if SHARDWISE_EXPECT_FAIL
using World = Collectives;
#else
using World = OverCollectives<Collectives>;
#endif

template <class... P>
using Matrix = DTensor<float, 2, DeviceMesh<World, "tp">, P...>;

Matrix<Replicate> moved(const Matrix<Shard<0>>& x) { return redistribute<Replicate>(x); }

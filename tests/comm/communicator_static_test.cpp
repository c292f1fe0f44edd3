// An archetype of the Communicator concept, and for each of its requirements one that lacks just that.
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <shardwise/comm/communicator.hpp>

using namespace shardwise;

namespace {

enum Missing {
  nothing,
  own_rank,
  own_size,
  own_axis,
  with_axis_,
  own_id,
  own_deadline,
  with_deadline_,
  gather,
  gather_v,
  reduce,
  scatter_reduce,
  scatter_reduce_v,
  exchange_v,
  one_to_all,
  one_to_each,
  one_to_each_v,
  sending,
  receiving,
  meeting,
  splitting,
  aborting,
  number_of_requirements
};

template <int Lacks>
struct Archetype {
  using Counts = std::span<const std::int64_t>;
  static constexpr MemorySpace memory_space = MemorySpace::host;

  int rank() const
    requires(Lacks != own_rank);
  int size() const
    requires(Lacks != own_size);
  Name axis() const
    requires(Lacks != own_axis);
  Archetype with_axis(Name) const
    requires(Lacks != with_axis_);
  std::uint64_t id() const
    requires(Lacks != own_id);
  std::chrono::milliseconds deadline() const
    requires(Lacks != own_deadline);
  Archetype with_deadline(std::chrono::milliseconds) const
    requires(Lacks != with_deadline_);

  template <class T>
  void all_gather(std::span<const T>, std::span<T>) const
    requires(Lacks != gather);
  template <class T>
  void all_gather_v(std::span<const T>, std::span<T>, Counts) const
    requires(Lacks != gather_v);
  template <class T>
  void all_reduce(std::span<const T>, std::span<T>, ReduceOp) const
    requires(Lacks != reduce);
  template <class T>
  void reduce_scatter(std::span<const T>, std::span<T>, ReduceOp) const
    requires(Lacks != scatter_reduce);
  template <class T>
  void reduce_scatter_v(std::span<const T>, std::span<T>, Counts, ReduceOp) const
    requires(Lacks != scatter_reduce_v);
  template <class T>
  void all_to_all_v(std::span<const T>, Counts, std::span<T>, Counts) const
    requires(Lacks != exchange_v);
  template <class T>
  void broadcast(std::span<T>, int) const
    requires(Lacks != one_to_all);
  template <class T>
  void scatter(std::span<const T>, std::span<T>, int) const
    requires(Lacks != one_to_each);
  template <class T>
  void scatter_v(std::span<const T>, Counts, std::span<T>, int) const
    requires(Lacks != one_to_each_v);
  template <class T>
  void send(std::span<const T>, int) const
    requires(Lacks != sending);
  template <class T>
  void recv(std::span<T>, int) const
    requires(Lacks != receiving);
  void barrier() const
    requires(Lacks != meeting);
  std::optional<Archetype> split(int, int) const
    requires(Lacks != splitting);
  void abort(std::string) const
    requires(Lacks != aborting);
};

static_assert(Communicator<Archetype<nothing>>);
static_assert(!DirectAccessCommunicator<Archetype<nothing>>);

template <int I = 1>
constexpr bool each_is_required() {
  if constexpr (I == number_of_requirements)
    return true;
  else
    return !Communicator<Archetype<I>> && each_is_required<I + 1>();
}
static_assert(each_is_required());

// One without a memory space, one that answers in another type, one that cannot be copied.
struct Somewhere : Archetype<nothing> {
  Somewhere with_axis(Name) const;
  Somewhere with_deadline(std::chrono::milliseconds) const;
  std::optional<Somewhere> split(int, int) const;
};
static_assert(Communicator<Somewhere>);
struct Lost : Somewhere {
  Lost with_axis(Name) const;
  Lost with_deadline(std::chrono::milliseconds) const;
  std::optional<Lost> split(int, int) const;

 private:
  using Somewhere::memory_space;
};
static_assert(!Communicator<Lost>);
struct WideRank : Somewhere {
  std::int64_t rank() const;
  WideRank with_axis(Name) const;
  WideRank with_deadline(std::chrono::milliseconds) const;
  std::optional<WideRank> split(int, int) const;
};
static_assert(!Communicator<WideRank>);
struct SplitsToPart : Somewhere {
  SplitsToPart with_axis(Name) const;
  SplitsToPart with_deadline(std::chrono::milliseconds) const;  // split still gives the base
};
static_assert(!Communicator<SplitsToPart>);
struct Unique : Somewhere {
  Unique(const Unique&) = delete;
  Unique with_axis(Name) const;
  Unique with_deadline(std::chrono::milliseconds) const;
  std::optional<Unique> split(int, int) const;
};
static_assert(!Communicator<Unique>);

}  // namespace

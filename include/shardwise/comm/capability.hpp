// capability: what a communicator can do with an element type, as a value for `if constexpr` and static_assert. Layer: comm.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/reduce.hpp>

namespace shardwise {

namespace detail {

template <class C, class T>
constexpr bool can(Collective collective) {
  switch (collective) {
    case Collective::none: return true;
    case Collective::all_gather: return GatheringCommunicator<C, T>;
    case Collective::reduce_scatter:
    case Collective::all_reduce: return ReducingCommunicator<C, T>;
    case Collective::all_to_all: return ExchangingCommunicator<C, T>;
    case Collective::broadcast:
    case Collective::scatter: return RootedCommunicator<C, T>;
    case Collective::send:
    case Collective::recv: return MessagingCommunicator<C, T>;
    case Collective::barrier: return SynchronisingCommunicator<C>;
    case Collective::split: break;
  }
  return SplittingCommunicator<C>;
}
template <class C, class T>
constexpr bool can(ReduceOp op) {
  return ReducingCommunicator<C, T> && reducible<T>(op);
}

}  // namespace detail

/// Whether a communicator of type C does `Operation`, a `Collective` or a `ReduceOp`, with elements of type T:
/// `capability<ThreadCommunicator, Collective::all_reduce, float>`, `capability<World, ReduceOp::max, std::complex<float>>` (never: they
/// have no order).
template <class C, auto Operation, Element T>
inline constexpr bool capability = detail::can<C, T>(Operation);

}  // namespace shardwise

// What a rank communicates, told to whoever listens: the hook that CommDebugMode hangs on.
// Costs one thread-local load where nobody listens. Layer: comm.
#pragma once

#include <cstdint>
#include <string_view>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>

namespace shardwise {

/// One communication of the calling rank.
struct CommEvent {
  Collective collective = Collective::none;
  DType dtype = DType::float32;
  std::string_view axis;       ///< the mesh axis (or "dp_tp" for several, "" for a bare communicator)
  std::int64_t bytes = 0;      ///< bytes that this rank receives from the others
  bool backward = false;       ///< issued by backward()
  std::string_view module;     ///< path of the module that asked for it, "" outside any
};

namespace detail {

/// A listener. Listeners form a stack per thread; every one of them hears every event.
struct CommListener {
  CommListener* outer = nullptr;
  void (*on_event)(CommListener&, const CommEvent&) = nullptr;
};

struct TraceState {
  CommListener* listeners = nullptr;
  bool backward = false;
  std::string_view module;
};

inline TraceState& trace_state() {
  thread_local TraceState state;
  return state;
}

/// Told by a communicator once a call is known to be the same on all ranks, before it returns.
inline void trace(Collective collective, DType dtype, std::string_view axis, std::int64_t bytes) {
  TraceState& state = trace_state();
  if (state.listeners == nullptr) [[likely]]
    return;
  const CommEvent event{collective, dtype, axis, bytes, state.backward, state.module};
  for (CommListener* l = state.listeners; l != nullptr; l = l->outer) l->on_event(*l, event);
}

}  // namespace detail
}  // namespace shardwise

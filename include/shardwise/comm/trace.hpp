// What a rank communicates, told to whoever listens: the hook that CommDebugMode hangs on.
// Costs one thread-local load where nobody listens. Layer: comm.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>
#include <shardwise/base/name.hpp>
#include <shardwise/base/text.hpp>

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

// The modules of a thread as a tree of paths, grown as they are entered, so that a path costs no string each time.
class ModulePath {
 public:
  ModulePath() = default;
  const std::string& text() const { return text_; }

  // `name` has static storage: it is compared by address. An index of a list: name null.
  template <class = void>  // compiled where modules are called
  ModulePath& child(const Name* name, std::int64_t index) {
    for (const auto& known : children_)
      if (known->name_ == name && known->index_ == index) return *known;
    auto made = make_ref<ModulePath>();
    made->name_ = name;
    made->index_ = index;
    const char* const dot = text_.empty() ? "" : ".";
    made->text_ =
        name != nullptr ? std::string(detail::text(text_, dot, name->view())) : detail::text(text_, dot, index);
    children_.push_back(std::move(made));
    return *children_.back();
  }

 private:
  std::string text_;
  const Name* name_ = nullptr;
  std::int64_t index_ = -1;
  List<Ref<ModulePath>> children_;
};

struct TraceState {
  CommListener* listeners = nullptr;
  bool backward = false;
  std::string_view module;
  ModulePath root;
  ModulePath* path = &root;
};

inline TraceState& trace_state() {
  thread_local TraceState state;
  return state;
}

// Inside it, what communicates belongs to a child of the module around it.
class ModuleFrame {
 public:
  template <class = void>
  explicit ModuleFrame(const Name* name, std::int64_t index = -1)
      : state_(trace_state()), before_(state_.path), module_(state_.module) {
    state_.path = &before_->child(name, index);
    state_.module = state_.path->text();
  }
  ModuleFrame(const ModuleFrame&) = delete;
  ModuleFrame& operator=(const ModuleFrame&) = delete;
  ~ModuleFrame() {
    state_.path = before_;
    state_.module = module_;
  }

 private:
  TraceState& state_;
  ModulePath* before_;
  std::string_view module_;
};

// Told by a communicator once a call is known to be the same on all ranks, before it returns.
inline void trace(Collective collective, DType dtype, std::string_view axis, std::int64_t bytes) {
  TraceState& state = trace_state();
  if (state.listeners == nullptr) [[likely]]
    return;
  const CommEvent event{collective, dtype, axis, bytes, state.backward, state.module};
  for (CommListener* l = state.listeners; l != nullptr; l = l->outer) l->on_event(*l, event);
}

}  // namespace detail
}  // namespace shardwise

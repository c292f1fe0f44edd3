// The tape: named nodes recorded by operators, gradient slots, and backward(). Knows element types and byte
// buffers, nothing of tensors, shapes or meshes. One tape per thread. Layer: tape.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/memory.hpp>

namespace shardwise {

namespace detail {

struct Node;

// Reduces pending gradients over one axis of a mesh. Implemented where meshes are known.
struct PendingReducer {
  virtual ~PendingReducer() = default;
  virtual void all_reduce(int axis, DType dtype, void* data, std::int64_t count) const = 0;
  virtual const void* identity() const = 0;  // equal for equal meshes of this rank
};

// Where the gradient of one value gathers.
//
// `pending` has a bit per mesh axis on which the ranks hold terms of a sum that is still to be reduced.
// `not_first` has a bit per axis on which this rank's coordinate is not 0: what is already complete joins a
// pending sum on the first rank only.
struct GradSlot {
  std::shared_ptr<Node> producer;  // null for a leaf
  std::shared_ptr<const PendingReducer> reducer;
  Buffer grad;
  std::int64_t count = 0;
  std::uint64_t mark = 0;
  std::uint32_t pending = 0;
  std::uint32_t not_first = 0;
  DType dtype = DType::float32;
  bool leaf = true;

  bool has_grad() const { return static_cast<bool>(grad); }
  void clear() {
    grad = Buffer();
    pending = 0;
  }
};

inline void add_in_place(DType dtype, void* into, const void* from, std::int64_t n) {
  visit_dtype(dtype, [&]<class T>(T) {
    if constexpr (!std::is_integral_v<T>) {  // integers have no gradient
      T* __restrict a = static_cast<T*>(into);
      const T* __restrict b = static_cast<const T*>(from);
      for (std::int64_t i = 0; i < n; ++i) a[i] = static_cast<T>(a[i] + b[i]);
    }
  });
}

// Adds a contribution, which is pending on the axes of `pending`. The buffer may be shared: it is copied before
// it is ever written.
inline void accumulate(GradSlot& slot, Buffer contribution, std::uint32_t pending) {
  const std::size_t bytes = static_cast<std::size_t>(slot.count) * size_of(slot.dtype);
  const std::uint32_t all = slot.pending | pending;
  const bool drop_new = ((all & ~pending) & slot.not_first) != 0;
  if (!slot.has_grad()) {
    slot.pending = pending;
    slot.grad = std::move(contribution);
    return;
  }
  const bool drop_old = ((all & ~slot.pending) & slot.not_first) != 0;
  slot.pending = all;
  if (drop_new && drop_old) {
    slot.grad = Buffer(bytes);
    std::memset(slot.grad.data(), 0, bytes);
  } else if (drop_old) {
    slot.grad = std::move(contribution);
  } else if (!drop_new) {
    if (!slot.grad.exclusive()) {
      if (contribution.exclusive()) {
        std::swap(slot.grad, contribution);
      } else {
        Buffer own(bytes);
        std::memcpy(own.data(), slot.grad.data(), bytes);
        slot.grad = std::move(own);
      }
    }
    add_in_place(slot.dtype, slot.grad.data(), contribution.data(), slot.count);
  }
}

struct TapeState {
  std::uint64_t sequence = 0;
  std::uint64_t run = 0;
  bool enabled = true;
};
inline TapeState& tape_state() {
  thread_local TapeState state;
  return state;
}

using SlotList = std::vector<std::shared_ptr<GradSlot>, CachedAllocator<std::shared_ptr<GradSlot>>>;

// An operator that was run: its name, the slots of its inputs (null where no gradient is wanted), and how
// the gradient of its output becomes theirs.
struct Node {
  explicit Node(const char* operator_name) : name(operator_name), sequence(++tape_state().sequence) {}
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  virtual ~Node() {
    // Long chains are taken apart here in a loop, not by recursion through the producers.
    thread_local SlotList* open = nullptr;
    if (open != nullptr) {
      for (auto& slot : inputs) open->push_back(std::move(slot));
      return;
    }
    SlotList chain = std::move(inputs);
    open = &chain;
    while (!chain.empty()) {
      std::shared_ptr<GradSlot> slot = std::move(chain.back());
      chain.pop_back();
    }
    open = nullptr;
  }

  virtual void backward(GradSlot& out) = 0;

  // From the cache: every operator that records makes one.
  static void* operator new(std::size_t bytes) { return BlockCache::take(bytes) + 1; }
  static void operator delete(void* node) noexcept { BlockCache::give(static_cast<Block*>(node) - 1); }

  const char* name;
  std::uint64_t sequence;
  SlotList inputs;
};

[[gnu::noinline]] inline std::shared_ptr<Node> own_node(Node* node) {
  return std::shared_ptr<Node>(node, std::default_delete<Node>(), CachedAllocator<Node>());
}

// A node that is being filled in, on its way to record(). Its owner does not know its type: what a shared_ptr brings along
// is compiled once, not once an operator.
template <class N>
class NewNode {
 public:
  explicit NewNode(N* node) : node_(node), owner_(own_node(node)) {}
  N* operator->() const { return node_; }
  operator std::shared_ptr<Node>() && { return std::move(owner_); }  // NOLINT: it is one to be filled in

 private:
  N* node_;
  std::shared_ptr<Node> owner_;
};
template <class N, class... Arguments>
NewNode<N> make_node(Arguments&&... arguments) {
  return NewNode<N>(new N(std::forward<Arguments>(arguments)...));
}

// Runs every node that the slot depends on, once, the latest first. A node's sequence number is larger than those of
// all nodes that it consumes, so the largest one waiting has received all its contributions.
inline void run_backward(const std::shared_ptr<GradSlot>& root) {
  const std::uint64_t run = ++tape_state().run;
  struct Work {
    std::uint64_t sequence;
    std::shared_ptr<GradSlot> slot;
    bool operator<(const Work& other) const { return sequence < other.sequence; }
  };
  std::vector<Work> waiting;
  const auto push = [&](const std::shared_ptr<GradSlot>& slot) {
    if (slot == nullptr || slot->producer == nullptr || slot->mark == run) return;
    slot->mark = run;
    waiting.push_back({slot->producer->sequence, slot});
    std::push_heap(waiting.begin(), waiting.end());
  };
  push(root);
  while (!waiting.empty()) {
    std::pop_heap(waiting.begin(), waiting.end());
    const std::shared_ptr<GradSlot> slot = std::move(waiting.back().slot);
    waiting.pop_back();
    // The node leaves the tape as it runs: what it saved is freed, and it cannot run twice.
    const std::shared_ptr<Node> node = std::move(slot->producer);
    slot->producer = nullptr;
    if (slot->has_grad()) node->backward(*slot);
    slot->clear();
    for (const auto& input : node->inputs) push(input);
  }
}

}  // namespace detail

/// While it lives, operators of this thread record nothing and results require no gradient.
/// PyTorch: `torch.no_grad()`.
class NoGrad {
 public:
  NoGrad() : before_(std::exchange(detail::tape_state().enabled, false)) {}
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;
  ~NoGrad() { detail::tape_state().enabled = before_; }

 private:
  bool before_;
};

/// Whether operators of this thread record. PyTorch: `torch.is_grad_enabled()`.
inline bool grad_enabled() { return detail::tape_state().enabled; }

}  // namespace shardwise

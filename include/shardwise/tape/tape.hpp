// The tape: named nodes recorded by operators, gradient slots, and backward(). Knows element types and byte
// buffers, nothing of tensors, shapes or meshes. One tape per thread. Layer: tape.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/lean.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>

namespace shardwise {

namespace detail {

struct Node;

// Reduces pending gradients over one axis of a mesh. Implemented where meshes are known.
struct PendingReducer {
  virtual void all_reduce(int axis, DType dtype, void* data, std::int64_t count) const = 0;
  virtual const void* identity() const = 0;  // equal for equal meshes of this rank
};

struct SgdStep;

// How gradients in memory that the host does not reach are made (elements not set), zeroed, copied and added up, and what lies there
// follows them: one step of gradient descent, whose momentum may have no buffer.
struct GradMemory {
  Buffer (*allocate)(std::size_t bytes);
  void (*zero)(const Buffer& x, std::size_t bytes);
  void (*copy)(const Buffer& to, const Buffer& from, std::size_t bytes);
  void (*add)(DType dtype, const Buffer& into, const Buffer& from, std::int64_t n);
  void (*descend)(DType dtype, const Buffer& x, const Buffer& gradient, const Buffer& momentum, std::int64_t n,
                  const SgdStep& step);
};

// Where the gradient of one value gathers.
//
// `pending` has a bit per mesh axis on which the ranks hold terms of a sum that is still to be reduced.
// `not_first` has a bit per axis on which this rank's coordinate is not 0: what is already complete joins a
// pending sum on the first rank only.
struct GradSlot {
  Ref<Node> producer;  // null for a leaf
  Ref<const PendingReducer> reducer;
  const GradMemory* memory = nullptr;  // null: the host's
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

template <class = void>
void add_in_place(DType dtype, void* into, const void* from, std::int64_t n) {
  visit_dtype_as_reals(dtype, n, [&]<class T>(T, std::int64_t count) {
    if constexpr (!std::is_integral_v<T>) {  // integers have no gradient
      T* __restrict a = static_cast<T*>(into);
      const T* __restrict b = static_cast<const T*>(from);
      for (std::int64_t i = 0; i < count; ++i) a[i] = static_cast<T>(a[i] + b[i]);
    }
  });
}

// Adds a contribution, which is pending on the axes of `pending`. The buffer may be shared: it is copied before
// it is ever written.
template <class = void>
void accumulate(GradSlot& slot, Buffer contribution, std::uint32_t pending) {
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
  const GradMemory* const elsewhere = slot.memory;
  const auto allocate = [&] { return elsewhere != nullptr ? elsewhere->allocate(bytes) : Buffer(bytes); };
  if (drop_new && drop_old) {
    slot.grad = allocate();
    if (elsewhere != nullptr)
      elsewhere->zero(slot.grad, bytes);
    else
      std::memset(slot.grad.data(), 0, bytes);
  } else if (drop_old) {
    slot.grad = std::move(contribution);
  } else if (!drop_new) {
    if (!slot.grad.exclusive()) {
      if (contribution.exclusive()) {
        swap_values(slot.grad, contribution);
      } else {
        Buffer own = allocate();
        if (elsewhere != nullptr)
          elsewhere->copy(own, slot.grad, bytes);
        else
          std::memcpy(own.data(), slot.grad.data(), bytes);
        slot.grad = std::move(own);
      }
    }
    if (elsewhere != nullptr)
      elsewhere->add(slot.dtype, slot.grad, contribution, slot.count);
    else
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

using SlotList = List<Ref<GradSlot>>;

// An operator that was run: its name, the slots of its inputs (null where no gradient is wanted), and how
// the gradient of its output becomes theirs.
struct Node {
  explicit Node(const char* operator_name) : name(operator_name), sequence(++tape_state().sequence) {}
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  // Not virtual: a node is made by make_node, which ends it as what it is.
  ~Node() {
    // Long chains are taken apart here in a loop, not by recursion through the producers.
    thread_local SlotList* open = nullptr;
    if (open != nullptr) {
      for (auto& slot : inputs) open->push_back(std::move(slot));
      return;
    }
    SlotList chain = std::move(inputs);
    open = &chain;
    while (!chain.empty()) {
      const Ref<GradSlot> slot = std::move(chain.back());
      chain.pop_back();
    }
    open = nullptr;
  }

  virtual void backward(GradSlot& out) = 0;

  const char* name;
  std::uint64_t sequence;
  SlotList inputs;
};

template <class N, class... Arguments>
Ref<N> make_node(Arguments&&... arguments) {
  return make_ref<N>(std::forward<Arguments>(arguments)...);
}

// What backward() has still to run: a heap, the latest node on top.
struct Waiting {
  struct Work {
    std::uint64_t sequence;
    Ref<GradSlot> slot;
  };
  List<Work> heap;

  Waiting() = default;
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() {  // after an exception: contributions of a run that was not finished
    for (const Work& work : heap) work.slot->clear();
  }

  template <class = void>
  void push(std::uint64_t sequence, const Ref<GradSlot>& slot) {
    heap.push_back({sequence, slot});
    for (std::size_t i = heap.size() - 1; i > 0 && heap[(i - 1) / 2].sequence < heap[i].sequence; i = (i - 1) / 2)
      swap_values(heap[(i - 1) / 2], heap[i]);
  }
  template <class = void>
  Ref<GradSlot> pop() {
    Ref<GradSlot> top = std::move(heap[0].slot);
    heap.remove(0);
    for (std::size_t i = 0, below = 1; below < heap.size(); i = below, below = 2 * i + 1) {
      if (below + 1 < heap.size() && heap[below].sequence < heap[below + 1].sequence) ++below;
      if (heap[below].sequence < heap[i].sequence) break;
      swap_values(heap[below], heap[i]);
    }
    return top;
  }
};

// Runs every node that the slot depends on, once, the latest first. A node's sequence number is larger than those of
// all nodes that it consumes, so the largest one waiting has received all its contributions. A value whose tape another run has
// used up already would swallow its gradient.
template <class = void>
void run_backward(const Ref<GradSlot>& root) {
  const std::uint64_t run = ++tape_state().run;
  Waiting waiting;
  const auto push = [&](const Ref<GradSlot>& slot) {
    if (slot == nullptr || slot->mark == run || (slot->leaf && slot->producer == nullptr)) return;
    SHARDWISE_REQUIRE(
        slot->producer != nullptr,
        "shardwise::backward: a value that this one was made of has had its tape run by another backward(), and "
        "each is run once; add the losses up and run backward() of their sum, or make the value again");
    slot->mark = run;
    waiting.push(slot->producer->sequence, slot);
  };
  push(root);
  while (!waiting.heap.empty()) {
    const Ref<GradSlot> slot = waiting.pop();
    // The node leaves the tape as it runs: what it saved is freed, and it cannot run twice.
    const Ref<Node> node = std::move(slot->producer);
    for (const Ref<GradSlot>& input : node->inputs) push(input);  // before it runs: what throws leaves nothing behind
    if (slot->has_grad()) node->backward(*slot);
    slot->clear();
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

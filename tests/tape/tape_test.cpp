// The tape alone: slots, accumulation, order, lifetime. Nodes are written by hand.
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/tape/tape.hpp>
#include <shardwise/tensor/factories.hpp>

#include "redistribute/values.hpp"

using namespace shardwise;
using namespace shardwise::detail;
using test::contains;
using test::thrown;

namespace {

Buffer buffer_of(const std::vector<double>& values) {
  Buffer b(values.size() * sizeof(double));
  std::memcpy(b.data(), values.data(), values.size() * sizeof(double));
  return b;
}
std::vector<double> values_of(const GradSlot& slot) {
  const double* p = slot.grad.as<double>();
  return std::vector<double>(p, p + slot.count);
}
Ref<GradSlot> make_slot(std::int64_t count, std::uint32_t not_first = 0) {
  auto slot = make_ref<GradSlot>();
  slot->dtype = DType::float64;
  slot->count = count;
  slot->not_first = not_first;
  return slot;
}

// out = sum of factor * input: the gradient of each input is factor * gradient.
struct ScaleNode final : Node {
  explicit ScaleNode(double f, std::vector<std::string>* where = nullptr, const char* label = "scale")
      : Node(label), factor(f), log(where) {}
  void backward(GradSlot& out) override {
    if (log != nullptr) log->push_back(name);
    for (auto& input : inputs) {
      std::vector<double> g = values_of(out);
      for (double& v : g) v *= factor;
      accumulate(*input, buffer_of(g), out.pending);
    }
  }
  double factor;
  std::vector<std::string>* log;
};

Ref<GradSlot> apply(double factor, const std::vector<Ref<GradSlot>>& inputs, std::vector<std::string>* log = nullptr,
                    const char* label = "scale") {
  auto slot = make_slot(inputs[0]->count, inputs[0]->not_first);
  slot->leaf = false;
  slot->producer = make_ref<ScaleNode>(factor, log, label);
  for (const auto& input : inputs) slot->producer->inputs.push_back(input);
  return slot;
}

Tensor<double, 1> tensor_of(const Ref<GradSlot>& slot) {
  auto x = zeros<double>(Shape<1>{slot->count});
  x.impl()->slot = slot;
  return x;
}

}  // namespace

TEST_CASE("contributions add up, and a shared buffer is copied before it is written") {
  auto slot = make_slot(2);
  const Buffer shared = buffer_of({1, 2});
  accumulate(*slot, shared, 0);
  CHECK(slot->grad.data() == shared.data());  // taken, not copied
  accumulate(*slot, shared, 0);
  CHECK(values_of(*slot) == std::vector<double>{2, 4});
  CHECK(shared.as<double>()[0] == 1);
  accumulate(*slot, buffer_of({10, 10}), 0);
  CHECK(values_of(*slot) == std::vector<double>{12, 14});
}

TEST_CASE("a view of the caller's memory is never written") {
  double memory[] = {1, 2};
  auto slot = make_slot(2);
  accumulate(*slot, Buffer::view(memory), 0);
  accumulate(*slot, buffer_of({5, 5}), 0);
  accumulate(*slot, buffer_of({5, 5}), 0);
  CHECK(values_of(*slot) == std::vector<double>{11, 12});
  CHECK(memory[0] == 1);
  CHECK(static_cast<bool>(Buffer::view(nullptr)));
}

// Ranks of a (2, 2) mesh by hand: the sum over the pending axes of what the ranks hold must be what one device has.
TEST_CASE("complete contributions join a pending sum once, in any order and on any axes") {
  // each contribution: its value (the same on all ranks, divided evenly where pending) and its pending axes
  const std::uint32_t pendings[] = {0, 1, 2, 3};
  for (const std::uint32_t a : pendings)
    for (const std::uint32_t b : pendings)
      for (const std::uint32_t c : pendings) {
        std::vector<Ref<GradSlot>> ranks;
        for (std::uint32_t r = 0; r < 4; ++r) ranks.push_back(make_slot(1, r));  // bit a of r: its coordinate on axis a
        double expected = 0;
        double value = 16;
        for (const std::uint32_t pending : {a, b, c}) {
          expected += value;
          const double terms = (pending & 1u ? 2.0 : 1.0) * (pending & 2u ? 2.0 : 1.0);
          for (auto& slot : ranks) accumulate(*slot, buffer_of({value / terms}), pending);
          value *= 2;
        }
        const std::uint32_t all = a | b | c;
        for (std::uint32_t r = 0; r < 4; ++r) {
          CHECK(ranks[r]->pending == all);
          double sum = 0;  // over the ranks that differ from r on pending axes only
          for (std::uint32_t s = 0; s < 4; ++s)
            if (((r ^ s) & ~all) == 0) sum += values_of(*ranks[s])[0];
          CHECK(sum == expected);
        }
      }
}

TEST_CASE("a diamond: each node runs once, after everything that it feeds") {
  std::vector<std::string> log;
  const auto leaf = make_slot(1);
  const auto a = apply(2, {leaf}, &log, "a");
  const auto b = apply(3, {a}, &log, "b");
  const auto c = apply(5, {a}, &log, "c");
  const auto d = apply(1, {b, c, a}, &log, "d");
  accumulate(*d, buffer_of({1}), 0);
  run_backward(d);
  CHECK(log == std::vector<std::string>{"d", "c", "b", "a"});
  CHECK(values_of(*leaf)[0] == 2 * (3 + 5 + 1));
  CHECK(!a->has_grad());  // gradients are kept for leaves only
}

TEST_CASE("a value used twice by one node gets both contributions") {
  const auto leaf = make_slot(1);
  const auto square = apply(3, {leaf, leaf});
  accumulate(*square, buffer_of({1}), 0);
  run_backward(square);
  CHECK(values_of(*leaf)[0] == 6);
}

TEST_CASE("leaves accumulate over several runs, a tape runs once") {
  const auto leaf = make_slot(1);
  for (int i = 0; i < 3; ++i) {
    const auto y = apply(2, {leaf});
    accumulate(*y, buffer_of({1}), 0);
    run_backward(y);
    CHECK(values_of(*leaf)[0] == 2 * (i + 1));
  }
  auto y = tensor_of(apply(2, {leaf}));
  backward(y);
  CHECK(contains(thrown<Error>([&] { backward(y); }), "the tape behind this value has been run"));
  CHECK(values_of(*leaf)[0] == 8);
}

TEST_CASE("what a node saved is freed as it runs") {
  const auto leaf = make_slot(1);
  const auto y = apply(2, {leaf});
  const WeakRef<Node> node = y->producer;
  accumulate(*y, buffer_of({1}), 0);
  run_backward(y);
  CHECK(node.expired());
}

TEST_CASE("a chain of 100000 nodes runs, and is taken apart, without a deep stack") {
  auto leaf = make_slot(1);
  for (const bool run : {true, false}) {
    auto y = leaf;
    for (int i = 0; i < 100000; ++i) y = apply(1, {y});
    if (run) {
      accumulate(*y, buffer_of({3}), 0);
      run_backward(y);
      CHECK(values_of(*leaf)[0] == 3);
    }
    y = nullptr;  // not run: the destructors alone
  }
  // Two chains that meet again and again.
  auto y = leaf;
  for (int i = 0; i < 50000; ++i) y = apply(0.5, {apply(1, {y}), y});
  y = nullptr;
  const WeakRef<GradSlot> watch = leaf;
  leaf = nullptr;
  CHECK(watch.expired());
}

TEST_CASE("NoGrad nests, ends with its scope, and is per thread") {
  CHECK(grad_enabled());
  {
    const NoGrad outer;
    CHECK(!grad_enabled());
    {
      const NoGrad inner;
    }
    CHECK(!grad_enabled());
    bool other = false;
    std::thread([&] { other = grad_enabled(); }).join();
    CHECK(other);
  }
  CHECK(grad_enabled());
}

TEST_CASE("errors of tensors: each says what to do") {
  auto x = zeros<double>({3});
  CHECK(contains(thrown<Error>([&] { (void)x.grad(); }), "call requires_grad(true) before its use"));
  CHECK(contains(thrown<Error>([&] { backward(x, ones<double>({3})); }), "no input of this value requires a gradient"));
  x.requires_grad(true);
  CHECK(!x.has_grad());
  CHECK(contains(thrown<Error>([&] { (void)x.grad(); }), "run backward() first"));
  auto y = tensor_of(apply(2, {x.impl()->slot}));
  CHECK(!y.is_leaf());
  CHECK(y.requires_grad());
  CHECK(contains(thrown<Error>([&] { y.requires_grad(true); }), "detach(x) gives a leaf"));
  CHECK(contains(thrown<Error>([&] { y.requires_grad(false); }), "detach(x) gives a leaf"));
  CHECK(contains(thrown<Error>([&] { (void)y.grad(); }), "for leaves only"));
  CHECK(contains(thrown<ShapeError>([&] { backward(y); }), "backward(y, grad)"));
  CHECK(contains(thrown<ShapeError>([&] { backward(y, ones<double>({4})); }), "[4]"));
  backward(y, ones<double>({3}));
  CHECK(equal(x.grad(), full<double>({3}, 2.0)));
  CHECK(x.has_grad());
  CHECK(!detach(y).requires_grad());
  CHECK(detach(y).is_leaf());
  CHECK(detach(y).data() == y.data());
  x.requires_grad(false);
  CHECK(!x.has_grad());
}

// The backward pass records nothing: a gradient is a value. PyTorch records it where create_graph is asked for.
TEST_CASE("RD-23 gradients of gradients are not offered: to ask for one is an error") {
  auto x = full<double>({2}, 3.0);
  x.requires_grad(true);
  backward(tensor_of(apply(2, {x.impl()->slot})), ones<double>({2}));
  const auto g = x.grad();
  CHECK(!g.requires_grad());
  CHECK(g.is_leaf());
  CHECK(contains(thrown<Error>([&] { backward(g, ones<double>({2})); }), "no input of this value requires a gradient"));
  CHECK(equal(x.grad(), full<double>({2}, 2.0)));
}

TEST_CASE("backward of a leaf is its own gradient") {
  auto x = scalar<double>(5);
  x.requires_grad(true);
  backward(x);
  CHECK(x.grad().item() == 1);
  backward(x);
  CHECK(x.grad().item() == 2);
}

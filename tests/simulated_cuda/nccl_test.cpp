// NcclCommunicator against a simulated NCCL between threads: the conformance suite, by way of copies to the device and back, and what
// happens when a rank fails, stays away, gives up.
#include <doctest/doctest.h>

#include <barrier>
#include <chrono>
#include <complex>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/cuda/copy.hpp>

#include "comm/conformance.hpp"
#include "cuda/host_facing.hpp"
#include "simulated_cuda/control.hpp"
#include "simulated_cuda/ranks.hpp"

namespace {

using namespace shardwise;
using namespace std::chrono_literals;
using detail::Buffer;
using test::check_none;
using test::HostFacing;
using test::on_ranks;

TEST_CASE("GPUs do what every communicator does, on 1 to 4 of them") {
  for (const int ranks : {1, 2, 3, 4})
    check_none(on_ranks(ranks, [](const NcclCommunicator& c) { test::conforms(HostFacing(c)); }));
}

TEST_CASE("reductions in rank order give the bits of the other backends") {
  check_none(on_ranks(4, [](const NcclCommunicator& world) {
    const HostFacing c(world.with_rank_order(true));
    const HostFacing native(world);
    // 1e8 + 1 - 1e8 - 1: the order of the terms decides.
    const float brought[] = {1e8f, 1, -1e8f, -1};
    for (const std::size_t n : {std::size_t{1}, std::size_t{3}, std::size_t{1000}}) {
      std::vector<float> in(n, brought[c.rank()]), out(n);
      const float right = ((1e8f + 1) + -1e8f) + -1;
      c.all_reduce<float>(in, out, ReduceOp::sum);
      for (const float x : out) test::conform(x == right, "an all_reduce in rank order");
      const std::vector<float> parts(4 * n, brought[c.rank()]);
      c.reduce_scatter<float>(parts, out, ReduceOp::sum);
      for (const float x : out) test::conform(x == right, "a reduce_scatter in rank order");
      native.all_reduce<float>(in, out, ReduceOp::sum);
      test::conform(out[0] != right, "NCCL's own order is another one in the simulation");
    }
  }));
}

TEST_CASE("what NCCL would reduce otherwise is reduced as elsewhere: complex products, averages of integers") {
  check_none(on_ranks(3, [](const NcclCommunicator& world) {
    const HostFacing c(world);
    using Z = std::complex<float>;
    const std::vector<Z> z(5, Z(0, 1));
    std::vector<Z> product(5);
    c.all_reduce<Z>(z, product, ReduceOp::product);
    for (const Z& x : product) test::conform(x == Z(0, -1), "i i i = -i");
    const std::vector<std::uint8_t> bytes(7, 200);
    std::vector<std::uint8_t> mean(7);
    c.all_reduce<std::uint8_t>(bytes, mean, ReduceOp::avg);
    for (const auto x : mean) test::conform(x == 200, "an average of bytes");
    std::vector<Z> sum(5);
    c.all_reduce<Z>(z, sum, ReduceOp::sum);
    for (const Z& x : sum) test::conform(x == Z(0, 3), "a sum of complex numbers");
  }));
}

TEST_CASE("a chain of collectives on one stream needs no waiting in between") {
  check_none(on_ranks(4, [](const NcclCommunicator& c) {
    constexpr std::size_t n = 500;
    const cuda::StreamView stream = cuda::current_stream();
    const Buffer x = detail::device_buffer(n * sizeof(std::int64_t), stream);
    const std::span<std::int64_t> values(x.as<std::int64_t>(), n);
    const std::int64_t one = 1;
    detail::device::fill(DType::int64, x.data(), &one, n, stream);
    for (int round = 0; round < 10; ++round) c.all_reduce<std::int64_t>(values, values, ReduceOp::sum);  // times 4 each
    std::vector<std::int64_t> home(n);
    detail::copy_to_host(Buffer::view(home.data()), x, n * sizeof(std::int64_t), stream);
    c.synchronize();
    for (const auto v : home) test::conform(v == 1 << 20, "4^10");
  }));
}

TEST_CASE("wrong sizes are an error before anything happens") {
  check_none(on_ranks(2, [](const NcclCommunicator& c) {
    const Buffer x = detail::device_buffer(64, cuda::current_stream());
    const std::span<float> four(x.as<float>(), 4), three(x.as<float>(), 3);
    const auto refused = [](const auto& call, const std::string& words) {
      try {
        call();
      } catch (const Error& e) {
        test::conform(std::string(e.what()).find(words) != std::string::npos, std::string("the message: ") + e.what());
        return;
      }
      test::conform(false, "an error: " + words);
    };
    refused([&] { c.all_gather<float>(four, three); },
            "shardwise::all_gather: the output has 3 elements, needed are 8 (2 ranks)");
    refused([&] { c.reduce_scatter<float>(three, three, ReduceOp::sum); }, "the input has 3 elements, needed are 6");
    refused([&] { c.broadcast<float>(four, 2); }, "no rank 2 among 2");
    refused([&] { c.send<float>(four, c.rank()); }, "is its own peer");
    c.barrier();
  }));
}

TEST_CASE("what is no memory of the rank's device, or overlaps, is refused") {
  check_none(on_ranks(2, [](const NcclCommunicator& c) {
    const cuda::StreamView stream = cuda::current_stream();
    const Buffer x = detail::device_buffer(64, stream), pinned = detail::pinned_buffer(64);
    float here[8] = {};
    const auto refused = [&](const float* in, float* out, const char* what) {
      try {
        c.all_gather<float>({in, 4}, {out, 8});
      } catch (const CommError&) {
        return;
      }
      test::conform(false, what);
    };
    refused(here, x.as<float>(), "a pointer of the host");
    refused(pinned.as<float>(), x.as<float>(), "pinned memory");
    refused(x.as<float>() + 62, x.as<float>(), "memory that ends before");
    refused(x.as<float>() + 2, x.as<float>(), "an input within the output that is not this rank's part");
    c.all_gather<float>({x.as<float>() + 4 * c.rank(), 4}, {x.as<float>(), 8});
    c.barrier();
  }));
}

TEST_CASE("a rank that stays away is a TimeoutError after the deadline, and so is every later call") {
  const auto thrown = on_ranks(
      3,
      [](const NcclCommunicator& c) {
        c.barrier();
        if (c.rank() == 2) {
          std::this_thread::sleep_for(600ms);
          return;
        }
        try {
          c.with_axis("tp").barrier();
        } catch (const TimeoutError&) {
          c.barrier();
        }
      },
      200ms);
  for (std::size_t r = 0; r < 2; ++r) {
    INFO(thrown[r]);
    const bool late = thrown[r].find("deadline of 200 ms passed on rank " + std::to_string(r)) != std::string::npos;
    const bool told = thrown[r].find("remote process exited") != std::string::npos;  // the other one was first
    CHECK((late || told));
  }
}

TEST_CASE("a world that not all ranks join says what was made") {
  const ncclUniqueId unique = nccl_unique_id();
  cuda::set_device(0);
  try {
    const NcclCommunicator alone(unique, 2, 0, 100ms);
    FAIL("nothing was thrown");
  } catch (const TimeoutError& e) {
    CHECK(
        std::string(e.what()) ==
        "shardwise::NcclCommunicator: deadline of 100 ms passed on rank 0; missing: one or more of the others (NCCL does "
        "not say which)");
  }
}

TEST_CASE("what NCCL finds in the background is a PeerFailedError on all ranks") {
  simulated_cuda::fail_next_collective(1, ncclSystemError);
  const auto thrown = on_ranks(3, [](const NcclCommunicator& c) {
    c.barrier();
    c.barrier();
  });
  CHECK(thrown[1].find("unhandled system error") != std::string::npos);
  for (const std::size_t r : {0u, 2u}) {
    INFO(thrown[r]);
    CHECK(thrown[r].find("remote process exited") != std::string::npos);  // some while they still meet
  }
}

TEST_CASE("a rank that gives up says why, and the others stop") {
  const auto thrown = on_ranks(2, [](const NcclCommunicator& c) {
    c.barrier();
    if (c.rank() == 0) c.abort("out of cheese");
    c.barrier();
  });
  CHECK(thrown[0] == "shardwise::barrier: rank 0 aborted: out of cheese");
  CHECK(thrown[1].find("shardwise::barrier: ") != std::string::npos);
}

TEST_CASE("a part fails with its world") {
  std::barrier both(2);  // else one may give up while the other is still in its split
  const auto thrown = on_ranks(2, [&](const NcclCommunicator& c) {
    const auto part = c.split(c.rank(), 0);
    part->barrier();
    both.arrive_and_wait();
    c.abort("enough");
    part->barrier();
  });
  for (const auto& text : thrown) CHECK(text.find("aborted: enough") != std::string::npos);
}

}  // namespace

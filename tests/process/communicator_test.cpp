// ProcessCommunicator between processes of one host: what every communicator does, and redistribution over it.
#include <doctest/doctest.h>

#include <shardwise/backends/any.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/local.hpp>
#include <shardwise/redistribute/redistribute.hpp>
#include <shardwise/tensor/factories.hpp>

#include "comm/conformance.hpp"
#include "process/host.hpp"

using namespace shardwise;
using namespace test;

namespace {

std::string run_processes(int n, void (*body)(ProcessCommunicator)) {
  return run_on_host(n, [body](const HostRank& mine) { body(ProcessCommunicator(mine.group, mine.rank, mine.host)); });
}

}  // namespace

TEST_CASE("processes of one host do what every communicator does") {
  for (const int n : {1, 2, 3, 4, 5, 7}) {
    CAPTURE(n);
    CHECK(run_processes(n, [](ProcessCommunicator c) { conforms(c); }) == "");
  }
}

TEST_CASE("a communicator of any kind does what every communicator does") {
  CHECK(run_processes(3, [](ProcessCommunicator c) { conforms(AnyCommunicator(c)); }) == "");
  run_ranks(3, [](ThreadCommunicator c) { conforms(AnyCommunicator(c)); });
}

TEST_CASE("threads do what every communicator does") {
  for (const int n : {1, 2, 3, 4, 5, 7}) run_ranks(n, [](ThreadCommunicator c) { conforms(c); });
}

TEST_CASE(
    "tensors move between processes: small and large, one by one and together, in and out of the caller's memory") {
  CHECK(run_processes(4, [](ProcessCommunicator world) {
          for (const std::int64_t n : {6, 301}) {
            const auto mesh = init_device_mesh<"a", "b">(world, {2, 2});
            const Tensor<float, 2> whole = arange<float>({n, n + 1});
            const auto x = distribute_tensor<Shard<0>, Shard<1>>(whole, mesh);
            const auto y = redistribute<Shard<1>, Shard<0>>(x);
            conform(equal(y.full_tensor(), whole), "a swap on two axes");
            const auto term = from_local<Partial<>, Partial<>>(Tensor<float, 2>(whole), mesh);
            const auto sum = redistribute<Replicate, Replicate>(term);
            for (std::int64_t i = 0; i < whole.size(); ++i)
              conform(sum.to_local().data()[i] == 4 * whole.data()[i], "a sum of four terms");
            const auto part = redistribute<Shard<1>, Replicate>(term);
            conform(allclose(part.full_tensor(), sum.to_local()), "a sum, cut");
            auto [p, q] = redistribute_all(to<Replicate, Shard<0>>(x), to<Shard<1>, Shard<1>>(y));
            conform(equal(p.full_tensor(), whole) && equal(q.full_tensor(), whole), "two in one exchange");
          }
        }) == "");
}

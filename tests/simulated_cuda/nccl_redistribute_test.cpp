// Distributed tensors whose parts lie on devices: every move against the oracle that the host's is held against, and the public
// functions against the same on the host. Over the simulated runtime and NCCL, whose streams overtake each other.
#include <doctest/doctest.h>

#include <complex>
#include <vector>

#include <shardwise/backends/thread.hpp>
#include <shardwise/core.hpp>
#include <shardwise/device/redistribute.hpp>

#include "redistribute/oracle.hpp"
#include "simulated_cuda/ranks.hpp"
#include "support/tuples.hpp"

namespace {

using namespace shardwise;
using namespace test;
using detail::Buffer;

const PlacementValue R = detail::replicate_value();
const PlacementValue S0 = detail::shard_value(0);
const PlacementValue S1 = detail::shard_value(1);
PlacementValue P(ReduceOp op = ReduceOp::sum) { return detail::partial_value(op); }

template <class T>
Buffer sent(const std::vector<T>& values) {
  const std::size_t bytes = values.size() * sizeof(T);
  const Buffer there = detail::device_buffer(bytes, cuda::current_stream());
  detail::copy_to_device(there, Buffer::view(const_cast<T*>(values.data())), bytes, cuda::current_stream());
  return there;
}
template <class T>
std::vector<T> fetched(const Buffer& there, std::size_t size, const NcclCommunicator& world) {
  std::vector<T> values(size);
  detail::copy_to_host(Buffer::view(values.data()), there, size * sizeof(T), cuda::current_stream());
  world.synchronize();
  return values;
}

// As check() of the oracle, by way of the device.
template <class T, bool Any = false, class Mesh>
void check_there(const NcclCommunicator& world, const Mesh& mesh, const Case& c, Failures& failures) {
  const Index me = coordinate_of(mesh);
  const std::vector<T> in = elements<T>(source(c, me)), right = elements<T>(expected(c, me));
  const auto from = list_of<Mesh::ndim>(c.from), to = list_of<Mesh::ndim>(c.to);
  const detail::Extents global = extents_of(c.global);
  const Counter counter;
  const Buffer a = sent(in), b = detail::device_buffer(right.size() * sizeof(T), cuda::current_stream());
  detail::execute_placed<Any>(mesh, from, to, global, dtype_of<T>, a.data(), b.data());
  const std::string where = text(c) + " as " + to_string(dtype_of<T>) + " at " + text(me);
  if (counter.total > 1) failures.add("more than one collective: " + where);
  const bool returns = !has_partial(c.from) && !has_partial(c.to);
  const Buffer home = detail::device_buffer(in.size() * sizeof(T), cuda::current_stream());
  if (returns) detail::execute_placed<Any>(mesh, to, from, global, dtype_of<T>, b.data(), home.data());
  if (fetched<T>(b, right.size(), world) != right) failures.add(where);
  if (fetched<T>(a, in.size(), world) != in) failures.add("the input was written: " + where);
  if (returns && fetched<T>(home, in.size(), world) != in) failures.add("there and back: " + where);
}

const PlacementValue sources[] = {
    R, S0, S1, P(), P(ReduceOp::avg), P(ReduceOp::product), P(ReduceOp::max), P(ReduceOp::min)};
const PlacementValue targets[] = {R, S0, S1, P()};

TEST_CASE("on devices every move on one axis gives what the oracle says, even, uneven and empty shards") {
  const std::vector<Index> globals{{0, 3}, {1, 1}, {5, 7}, {8, 12}, {2, 64}, {13, 2}};
  for (const int n : {1, 2, 3, 4}) {
    Failures failures;
    check_none(on_ranks(n, [&](const NcclCommunicator& world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      std::int64_t salt = 0;
      for (const Index& global : globals)
        for (const PlacementValue& from : sources)
          for (const PlacementValue& target : targets) {
            const Case c{
                {n}, global, {from}, {target.is_partial() && from.is_partial() ? from : target}, ++salt % 1000};
            check_there<float>(world, mesh, c, failures);
            if (salt % 4 != 0) continue;
            check_there<double>(world, mesh, c, failures);
            check_there<bfloat16>(world, mesh, c, failures);
            check_there<std::int64_t>(world, mesh, c, failures);
            if (!from.is_partial() || from.op == ReduceOp::sum || from.op == ReduceOp::avg)
              check_there<std::complex<float>>(world, mesh, c, failures);
          }
    }));
    INFO(failures.all());
    CHECK(failures.count() == 0);
  }
}

TEST_CASE("on devices every move on a 2 x 2 mesh is one exchange, and what the oracle says") {
  Failures failures;
  check_none(on_ranks(4, [&](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
    std::int64_t salt = 0;
    for (const Index& global : {Index{8, 4}, Index{5, 3}, Index{1, 7}})
      for (const PlacementValue& from0 : {R, S0, S1, P(), P(ReduceOp::avg)})
        for (const PlacementValue& from1 : {R, S0, S1, P()})
          for (const PlacementValue& to0 : {R, S0, S1, P()})
            for (const PlacementValue& to1 : {R, S0, S1, P()}) {
              const auto target = [](const PlacementValue& from, const PlacementValue& to) {
                return to.is_partial() && from.is_partial() ? from : to;
              };
              const Case c{{2, 2}, global, {from0, from1}, {target(from0, to0), target(from1, to1)}, ++salt % 1000};
              if (global[0] != 8 && salt % 3 != 0) continue;
              check_there<float>(world, mesh, c, failures);
            }
  }));
  INFO(failures.all());
  CHECK(failures.count() == 0);
}

TEST_CASE("on devices higher ranks and larger tensors are moved in runs as on the host") {
  Failures failures;
  check_none(on_ranks(4, [&](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"tp">(world, {4});
    const PlacementValue S2 = detail::shard_value(2), S3 = detail::shard_value(3);
    for (const PlacementValue& from : {S0, S1, S2, S3, P()})
      for (const PlacementValue& to : {R, S0, S1, S2, S3}) {
        check_there<float>(world, mesh, {{4}, {3, 8, 5, 6}, {from}, {to}, 1}, failures);
        check_there<std::uint8_t>(world, mesh, {{4}, {4, 4, 3, 16}, {from}, {to}, 125}, failures);
      }
    for (const PlacementValue& from : {S0, S1, P()})
      for (const PlacementValue& to : {R, S0, S1})
        check_there<float>(world, mesh, {{4}, {130, 96}, {from}, {to}, 2}, failures);
  }));
  INFO(failures.all());
  CHECK(failures.count() == 0);
}

TEST_CASE("on devices block-cyclic and strided tensors are moved as the oracle says") {
  for (const int n : {1, 3, 4}) {
    Failures failures;
    check_none(on_ranks(n, [&](const NcclCommunicator& world) {
      const auto mesh = init_device_mesh<"tp">(world, {n});
      const PlacementValue B0 = placement_value<BlockCyclic<0, 2>>, B1 = placement_value<BlockCyclic<1, 3>>,
                           T0 = placement_value<StridedShard<0, 2>>;
      std::int64_t salt = 0;
      for (const Index& global : {Index{9, 8}, Index{1, 5}, Index{16, 3}})
        for (const PlacementValue& from : {B0, B1, T0, R, S1, P(), P(ReduceOp::avg), P(ReduceOp::max)})
          for (const PlacementValue& target : {B0, B1, T0, R, S0, P()}) {
            const Case c{{n}, global, {from}, {target.is_partial() && from.is_partial() ? from : target}, ++salt};
            check_there<float, true>(world, mesh, c, failures);
            if (salt % 3 == 0)
              check_there<std::uint8_t, true>(world, mesh, {c.mesh, c.global, {B0}, c.to, 125}, failures);
            if (salt % 5 == 0)
              check_there<std::complex<double>, true>(world, mesh, {c.mesh, c.global, {B1}, c.to, 7}, failures);
          }
    }));
    INFO(failures.all());
    CHECK(failures.count() == 0);
  }
  Failures failures;
  check_none(on_ranks(4, [&](const NcclCommunicator& world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
    const PlacementValue B0 = placement_value<BlockCyclic<0, 2>>, B1 = placement_value<BlockCyclic<1, 3>>;
    for (const PlacementValue& from0 : {B0, S0, R, P()})
      for (const PlacementValue& from1 : {B0, B1, S1, P()})
        for (const PlacementValue& to0 : {B0, B1, R, S0})
          for (const PlacementValue& to1 : {B1, R})
            check_there<float, true>(world, mesh, {{2, 2}, {9, 7}, {from0, from1}, {to0, to1}, 3}, failures);
  }));
  INFO(failures.all());
  CHECK(failures.count() == 0);
}

}  // namespace

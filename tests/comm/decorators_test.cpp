// Checked and Traced around a communicator that neither compares nor tells, and around one that does both; capability.
#include <complex>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <shardwise/comm/capability.hpp>
#include <shardwise/comm/decorators.hpp>
#include <shardwise/comm/dry_run.hpp>
#include <shardwise/comm/over_collectives.hpp>
#include <shardwise/core.hpp>
#include <shardwise/debug/comm_debug_mode.hpp>
#include <shardwise/testing/doctest.hpp>

#include "redistribute/values.hpp"

using namespace shardwise;
using test::contains;
using test::thrown;

namespace {

// A user's communicator: what the concept asks for and no more. Nobody hears what it does.
class Plain {
  using Counts = std::span<const std::int64_t>;
  struct Quiet {
    detail::CommListener* before = std::exchange(detail::trace_state().listeners, nullptr);
    ~Quiet() { detail::trace_state().listeners = before; }
  };

 public:
  static constexpr MemorySpace memory_space = MemorySpace::host;
  explicit Plain(ThreadCommunicator ranks) : ranks_(std::move(ranks)) {}

  int rank() const { return ranks_.rank(); }
  int size() const { return ranks_.size(); }
  std::uint64_t id() const { return ranks_.id(); }
  Name axis() const { return ranks_.axis(); }
  Plain with_axis(Name axis) const { return Plain(ranks_.with_axis(axis)); }
  std::chrono::milliseconds deadline() const { return ranks_.deadline(); }
  Plain with_deadline(std::chrono::milliseconds deadline) const { return Plain(ranks_.with_deadline(deadline)); }
  std::optional<Plain> split(int color, int key) const {
    auto part = ranks_.split(color, key);
    return part ? std::optional<Plain>(*part) : std::nullopt;
  }
  void abort(std::string reason) const { ranks_.abort(std::move(reason)); }
  void barrier() const { ranks_.barrier(); }

  template <class T>
  void all_gather(std::span<const T> in, std::span<T> out) const {
    const Quiet quiet;
    ranks_.all_gather(in, out);
  }
  template <class T>
  void all_gather_v(std::span<const T> in, std::span<T> out, Counts counts) const {
    const Quiet quiet;
    ranks_.all_gather_v(in, out, counts);
  }
  template <class T>
  void reduce_scatter(std::span<const T> in, std::span<T> out, ReduceOp op) const {
    const Quiet quiet;
    ranks_.reduce_scatter(in, out, op);
  }
  template <class T>
  void reduce_scatter_v(std::span<const T> in, std::span<T> out, Counts counts, ReduceOp op) const {
    const Quiet quiet;
    ranks_.reduce_scatter_v(in, out, counts, op);
  }
  template <class T>
  void all_reduce(std::span<const T> in, std::span<T> out, ReduceOp op) const {
    const Quiet quiet;
    ranks_.all_reduce(in, out, op);
  }
  template <class T>
  void all_to_all_v(std::span<const T> in, Counts sent, std::span<T> out, Counts received) const {
    const Quiet quiet;
    ranks_.all_to_all_v(in, sent, out, received);
  }
  template <class T>
  void broadcast(std::span<T> data, int root) const {
    const Quiet quiet;
    ranks_.broadcast(data, root);
  }
  template <class T>
  void scatter(std::span<const T> in, std::span<T> out, int root) const {
    const Quiet quiet;
    ranks_.scatter(in, out, root);
  }
  template <class T>
  void scatter_v(std::span<const T> in, Counts counts, std::span<T> out, int root) const {
    const Quiet quiet;
    ranks_.scatter_v(in, counts, out, root);
  }
  template <class T>
  void send(std::span<const T> data, int dest) const {
    const Quiet quiet;
    ranks_.send(data, dest);
  }
  template <class T>
  void recv(std::span<T> data, int source) const {
    const Quiet quiet;
    ranks_.recv(data, source);
  }

 private:
  ThreadCommunicator ranks_;
};
static_assert(Communicator<Plain> && !ComparesCalls<Plain> && !TracesCalls<Plain>);
static_assert(Communicator<Checked<Plain>> && Communicator<Traced<Plain>> && Communicator<Traced<Checked<Plain>>>);
static_assert(ComparesCalls<Checked<Plain>> && ComparesCalls<Traced<Checked<Plain>>> && !TracesCalls<Checked<Plain>>);
static_assert(DirectAccessCommunicator<Checked<ThreadCommunicator>> &&
              DirectAccessCommunicator<Traced<ThreadCommunicator>>);
static_assert(Communicator<Checked<DryRunCommunicator>>);
static_assert(sizeof(Checked<ThreadCommunicator>) <= sizeof(ThreadCommunicator) + sizeof(std::shared_ptr<int>));

static_assert(DirectAccessCommunicator<Traced<Checked<OverCollectives<Plain>>>>);
static_assert(ExchangesPacked<Traced<Checked<OverCollectives<Plain>>>>);

static_assert(capability<ThreadCommunicator, Collective::all_reduce, bfloat16>);
static_assert(capability<ThreadCommunicator, ReduceOp::product, std::complex<double>>);
static_assert(!capability<ThreadCommunicator, ReduceOp::max, std::complex<double>>);
static_assert(capability<Plain, Collective::send, std::uint8_t>);
struct Deaf : Plain {
  using Plain::Plain;

 private:
  using Plain::recv;
};
static_assert(!capability<Deaf, Collective::send, float> && capability<Deaf, Collective::broadcast, float>);

// One value of each collective, the same on any communicator.
template <class C>
std::vector<float> all_collectives(const C& c) {
  const auto n = static_cast<std::size_t>(c.size());
  const auto rank = static_cast<float>(c.rank());
  std::vector<float> all;
  const auto keep = [&](std::span<const float> values) { all.insert(all.end(), values.begin(), values.end()); };
  const std::vector<float> own{rank, rank + 10}, whole(2 * n, rank + 1);
  const std::vector<std::int64_t> twos(n, 2), ones(n, 1);
  const std::span<const float> mine(own), every(whole);
  std::vector<float> out(2 * n), two(2), one(1);
  c.all_gather(mine, std::span(out)), keep(out);
  c.all_gather_v(mine, std::span(out), twos), keep(out);
  c.reduce_scatter(every, std::span(two), ReduceOp::sum), keep(two);
  c.reduce_scatter_v(every, std::span(two), twos, ReduceOp::max), keep(two);
  c.all_reduce(mine, std::span(two), ReduceOp::min), keep(two);
  c.all_to_all_v(every, twos, std::span(out), twos), keep(out);
  c.broadcast(std::span(two), 1), keep(two);
  c.scatter(every, std::span(two), 1), keep(two);
  c.scatter_v(every, twos, std::span(two), 0), keep(two);
  if (c.rank() == 0) c.send(mine, 1);
  if (c.rank() == 1) c.recv(std::span(two), 0), keep(two);
  c.barrier();
  return all;
}

}  // namespace

TEST_CASE("decorated, every collective gives what it gives bare") {
  run_ranks(3, [](ThreadCommunicator world) {
    const auto expected = all_collectives(Plain(world));
    CHECK(all_collectives(Checked(Plain(world))) == expected);
    CHECK(all_collectives(Traced(Plain(world))) == expected);
    CHECK(all_collectives(Traced(Checked(Plain(world)))) == expected);
    CHECK(all_collectives(Checked(world)) == expected);
  });
}

TEST_CASE("Checked: calls that differ are refused before the communicator sees them") {
  run_ranks(3, [](ThreadCommunicator world) {
    const bool first = world.rank() == 0;
    std::vector<float> in(6, 1.0f), out(6);
    std::vector<double> in64(2), out64(2);
    const std::span<const float> two(in.data(), 2);
    const auto refused = [&](const auto& checked, auto call) {
      const std::string what = thrown<MismatchError>([&] { call(); });
      CHECK(thrown<MismatchError>([&] { checked.barrier(); }) == what);                  // from now on
      CHECK(thrown<MismatchError>([&] { checked.with_axis("x").barrier(); }) == what);  // by any handle
      world.barrier();  // the ranks below are where they were
      return what;
    };
    const Checked operation(Plain(world).with_axis("tp"));
    CHECK(contains(refused(operation,
                           [&] {
                             if (first)
                               operation.all_reduce(two, std::span(out).first(2), ReduceOp::sum);
                             else
                               operation.all_gather(two, std::span(out));
                           }),
                   "on axis 'tp'"));
    const Checked reduction(Plain{world});
    CHECK(contains(
        refused(reduction,
                [&] { reduction.all_reduce(two, std::span(out).first(2), first ? ReduceOp::sum : ReduceOp::max); }),
        "all_reduce(sum) of float"));
    const Checked type(Plain{world});
    CHECK(contains(refused(type,
                           [&] {
                             if (first)
                               type.all_reduce(two, std::span(out).first(2), ReduceOp::sum);
                             else
                               type.all_reduce(std::span<const double>(in64), std::span(out64), ReduceOp::sum);
                           }),
                   "of double [2]"));
    const Checked count(Plain{world});
    CHECK(contains(refused(count, [&] { count.broadcast(std::span(out).first(first ? 2 : 3), 0); }),
                   "broadcast of float [3]"));
    const Checked root(Plain{world});
    CHECK(contains(refused(root, [&] { root.broadcast(std::span(out), first ? 0 : 1); }), "from rank 1"));
    const Checked pieces(Plain{world});
    const std::vector<std::int64_t> even{2, 2, 2}, skewed{1, 2, 2};
    CHECK(contains(refused(pieces,
                           [&] {
                             pieces.all_to_all_v(std::span<const float>(in), even, std::span(out).first(first ? 5 : 6),
                                                 first ? skewed : even);
                           }),
                   "rank 0 sends 2 elements to rank 0, which receives 1"));
  });
}

TEST_CASE("Checked: a message of another size is refused on both sides; parts are checked by themselves") {
  run_ranks(3, [](ThreadCommunicator world) {
    const Checked checked(Plain{world});
    std::vector<float> data(4);
    const auto part = checked.split(world.rank() == 2 ? 1 : 0, 0);
    static_assert(std::is_same_v<decltype(part), const std::optional<Checked<Plain>>>);
    REQUIRE(part.has_value());
    part->barrier();
    if (world.rank() == 2) part->barrier();  // one call more than the other part
    checked.barrier();
    if (world.rank() < 2) {
      const std::string what = thrown<MismatchError>([&] {
        if (world.rank() == 0)
          part->send(std::span<const float>(data).first(3), 1);
        else
          part->recv(std::span(data), 0);
      });
      CHECK(contains(what, "send of float [3]"));
      CHECK(contains(what, "recv of float [4]"));
    }
    checked.barrier();
  });
}

TEST_CASE("Traced: CommDebugMode hears each call once, with its axis and its bytes") {
  run_ranks(3, [](ThreadCommunicator world) {
    const Plain plain = Plain(world).with_axis("tp");
    std::vector<float> in(2), out(6);
    const auto heard = [&](const auto& c) {
      const CommDebugMode comm;
      c.all_gather(std::span<const float>(in), std::span(out));
      c.all_reduce(std::span<const float>(out), std::span(out), ReduceOp::sum);
      c.barrier();
      CHECK(comm.bytes(Collective::all_gather) == (comm.total_count() > 0 ? 16 : 0));
      CHECK(comm.axis_count("tp") == comm.total_count());
      return comm.total_count();
    };
    CHECK(heard(plain) == 0);
    CHECK(heard(Traced(plain)) == 2);
    CHECK(heard(Traced(Checked(plain))) == 2);
    CHECK(heard(Traced(world.with_axis("tp"))) == 2);  // which tells by itself
  });
}

TEST_CASE("a mesh of a decorated communicator moves tensors") {
  run_ranks(4, [](ThreadCommunicator world) {
    const auto mesh = init_device_mesh<"dp", "tp">(Traced(Checked(world)), {2, 2});
    const auto whole = arange<float>({5, 6});
    const auto x = distribute_tensor<Shard<0>, Shard<1>>(whole, mesh);
    const CommDebugMode comm;
    CHECK(equal(redistribute<Shard<1>, Shard<0>>(x).full_tensor(), whole));
    CHECK(comm.count(Collective::all_to_all) == 1);
    CHECK(comm.count(Collective::all_gather) == 1);
  });
  const DryRunCommunicator rank(3, 64);
  const auto mesh = init_device_mesh<"dp", "tp">(Checked(rank), {8, 8});
  (void)redistribute<Replicate, Replicate>(zeros<float, Shard<0>, Shard<1>>(mesh, {64, 64}));
  CHECK(rank.ledger().total().calls == 1);
}

TEST_CASE("OverCollectives: tensors move over a communicator that has the concept's collectives and no more") {
  run_ranks(4, [](ThreadCommunicator ranks) {
    const auto world = Traced(Checked(OverCollectives(Plain(ranks))));
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
    const auto whole = arange<double>({5, 7});
    for (const int source : {0, 1, no_source}) {
      const auto x = distribute_tensor<Shard<0>, Shard<1>>(whole, mesh, {.src_data_rank = source});
      CHECK(equal(x.full_tensor(), whole));
    }
    CHECK(equal(distribute_tensor<Replicate, Replicate>(whole, mesh, {.src_data_rank = 1}).to_local(), whole));
    auto x = distribute_tensor<Shard<0>, Shard<1>>(whole, mesh);
    x.requires_grad(true);
    const CommDebugMode comm;
    const auto y = redistribute<Shard<1>, Shard<0>>(x);
    CHECK(comm.count(Collective::all_to_all) == 1);
    CHECK(equal(redistribute<Shard<0>, Replicate>(y).full_tensor(), whole));
    CHECK(equal(redistribute<On<"tp", Replicate>>(y).full_tensor(), whole));
    backward(y, y);
    CHECK(equal(x.grad().full_tensor(), whole));
    const auto terms = from_local<Partial<>, Partial<>>(whole, mesh);
    const auto sum = redistribute<Replicate, Replicate>(terms).to_local();
    const auto part = redistribute<Shard<1>, Shard<0>>(terms).full_tensor();
    for (std::int64_t i = 0; i < 35; ++i) CHECK(sum.data()[i] == 4.0 * static_cast<double>(i));
    CHECK(equal(part, sum));
    const auto line = init_device_mesh<"tp">(world, {3}, {.ranks = {3, 1, 0}});
    if (line.is_member()) CHECK(equal(distribute_tensor<Shard<1>>(whole, line).full_tensor(), whole));
    // Ranks that disagree hear of it.
    const auto all = init_device_mesh<"tp">(world, {4});
    const auto uneven = from_local<Shard<0>>(ones<float>({ranks.rank() == 2 ? 3 : 2, 2}), all);
    CHECK(contains(thrown<MismatchError>([&] { (void)redistribute<Replicate>(uneven); }), "all_gather of float"));
  });
}

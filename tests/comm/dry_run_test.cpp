// DryRunCommunicator: every rank of a small world counts alone what it communicates among threads, and gets what it would get
// if the others held zeros; at 1,000,000 ranks the volumes are the closed forms.
#include <shardwise/testing/doctest.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <shardwise/comm/dry_run.hpp>
#include <shardwise/redistribute/all.hpp>
#include <shardwise/redistribute/as_partial.hpp>
#include <shardwise/redistribute/async.hpp>

#include "parallel/support.hpp"
#include "redistribute/oracle.hpp"
#include "support/tuples.hpp"
#include "support/models.hpp"

using namespace shardwise;
using namespace test;

static_assert(DirectAccessCommunicator<DryRunCommunicator>);
static_assert(detail::PricedCommunicator<DryRunCommunicator>);
static_assert(!detail::PeerlessCommunicator<ThreadCommunicator>);

namespace {

// collective, axis, module, backward, count, bytes
using Heard = std::vector<std::tuple<Collective, std::string, std::string, bool, std::int64_t, std::int64_t>>;

template <class Comm, class Program>
Heard listen(const Comm& world, const Program& program) {
  manual_seed(3);
  CommDebugMode comm;
  program(world);
  Heard heard;
  for (const auto& r : comm.rows()) heard.emplace_back(r.collective, r.axis, r.module, r.backward, r.count, r.bytes);
  return heard;
}

// Runs the program among threads, then once a rank alone, on a node and across nodes.
template <class Program>
void check_alone(int ranks, const Program& program) {
  std::vector<Heard> among_threads(static_cast<std::size_t>(ranks));
  run_ranks(ranks, [&](ThreadCommunicator world) {
    among_threads[static_cast<std::size_t>(world.rank())] = listen(world, program);
  });
  CHECK(!among_threads[0].empty());
  for (int rank = 0; rank < ranks; ++rank)
    for (const int per_node : {2, 64}) {
      // Nobody would split an exchange among threads.
      const DryRunCommunicator world(
          rank, ranks,
          {.ranks_per_node = per_node, .within_node = shared_memory_cost, .across_nodes = {0, 1e-9, 1e-5}});
      INFO("rank ", rank, " of ", ranks);
      const Heard alone = listen(world, program);
      CHECK(alone == among_threads[static_cast<std::size_t>(rank)]);
      std::int64_t bytes = 0;
      std::int64_t calls = 0;
      for (const auto& row : alone) {
        calls += std::get<4>(row);
        bytes += std::get<5>(row);
      }
      const DryRunRow barriers = world.ledger().collective(Collective::barrier);
      CHECK(world.ledger().total().bytes == bytes);
      CHECK(world.ledger().total().calls - barriers.calls == calls);
    }
}

constexpr auto plan =
    parallelize_plan("net1"_path = ColwiseParallel{}, "net2"_path = RowwiseParallel{.output_layouts = Replicate{}});
constexpr auto sequence_plan = parallelize_plan("net1"_path = ColwiseParallel{.input_layouts = Shard<0>{}},
                                                "net2"_path = RowwiseParallel{.output_layouts = Shard<0>{}});

// Data parallel by hand around tensor parallel: what a training loop does.
template <class Comm>
void training_step(const Comm& world, std::int64_t dp, std::int64_t tp, std::int64_t width) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {dp, tp});
  const auto rows = mesh.template get<"dp">();
  const auto model = parallelize_module<plan>(mlp(width, 2 * width, width), mesh.template get<"tp">());
  optim::SGD sgd(parameters(model), {.lr = 0.25, .momentum = 0.5});
  for (int step = 0; step < 2; ++step) {
    const auto y = model(rand<float>({4, width}));
    backward(mean(y * y));
    settle_gradients(parameters(model));
    for_each_parameter(model, [&](std::string_view, const auto& p) {
      auto gradient = p.grad();
      const std::span<float> values(gradient.data(), static_cast<std::size_t>(gradient.size()));
      rows.template communicator<"dp">().all_reduce(values, values, ReduceOp::avg);
    });
    sgd.step();
    sgd.zero_grad();
  }
}

const PlacementValue r = detail::replicate_value();
const PlacementValue s0 = detail::shard_value(0);
const PlacementValue s1 = detail::shard_value(1);
const PlacementValue p = detail::partial_value();
const PlacementValue avg = detail::partial_value(ReduceOp::avg);

// Every pair of placements on a mesh, over values; `others` fills the parts of all ranks but `self`. Returns the results.
template <class Mesh>
std::vector<float> all_moves(const Mesh& mesh, float filling) {
  constexpr std::size_t n = Mesh::ndim;
  std::vector<float> results;
  for (const Shape<2>& shape : {Shape<2>{12, 12}, Shape<2>{7, 5}, Shape<2>{3, 2}, Shape<2>{1, 9}, Shape<2>{0, 4}})
    for (const PlacementVector& from : lists({r, s0, s1, p, avg}, n))
      for (const PlacementVector& to : lists({r, s0, s1, p}, n)) {
        detail::PlacementList<n> source{}, target{};
        bool possible = true;
        for (std::size_t a = 0; a < n; ++a) {
          source[a] = from[a];
          target[a] = to[a];
          if (from[a] == avg && to[a] == p) possible = false;
        }
        if (!possible) continue;
        const detail::Extents global(shape);
        const auto part = [&](const detail::PlacementList<n>& list) {
          return static_cast<std::size_t>(
              detail::box_of(list, mesh.shape(), mesh.grid().coordinate, global).size.elements());
        };
        std::vector<float> in(part(source), filling), out(part(target), -1);
        detail::execute(mesh, source, target, global, DType::float32, in.data(), out.data());
        results.insert(results.end(), out.begin(), out.end());
      }
  return results;
}

}  // namespace

TEST_CASE(
    "every pair of placements is counted alone as among threads, on 1 and 2 axes, also where sizes do not divide") {
  check_alone(4, [](const auto& world) { (void)all_moves(init_device_mesh<"a">(world, {4}), 1); });
  check_alone(4, [](const auto& world) { (void)all_moves(init_device_mesh<"a", "b">(world, {2, 2}), 1); });
  check_alone(6, [](const auto& world) { (void)all_moves(init_device_mesh<"a", "b">(world, {2, 3}), 1); });
}

TEST_CASE("values are those of a run where the other ranks' parts are zero") {
  for (int self = 0; self < 6; ++self) {
    std::vector<float> among_threads;
    run_ranks(6, [&](ThreadCommunicator world) {
      auto results = all_moves(init_device_mesh<"a", "b">(world, {2, 3}), world.rank() == self ? 4.0f : 0.0f);
      if (world.rank() == self) among_threads = std::move(results);
    });
    const auto alone = all_moves(init_device_mesh<"a", "b">(DryRunCommunicator(self, 6), {2, 3}), 4.0f);
    INFO("rank ", self);
    CHECK(alone == among_threads);
  }
}

TEST_CASE("a training step is counted alone as among threads: forward, backward, gradients, optimizer") {
  check_alone(4, [](const auto& world) { training_step(world, 1, 4, 6); });
  check_alone(4, [](const auto& world) { training_step(world, 2, 2, 6); });
  check_alone(6, [](const auto& world) { training_step(world, 2, 3, 5); });
  check_alone(4, [](const auto& world) {
    const auto mesh = init_device_mesh<"tp">(world, {4});
    const auto model = parallelize_module<sequence_plan>(mlp(5, 7, 6), mesh);
    const auto x = rand<float, Shard<0>>(mesh, {9, 5});
    backward(sum(model(x.to_local())));
    optim::SGD(parameters(model), {.lr = 0.5}).step();
  });
}

TEST_CASE("several tensors, moves in the background, other meshes, flattened and permuted ones, other placements") {
  check_alone(6, [](const auto& world) {
    const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 3});
    const auto x = rand<float, Shard<0>, Shard<1>>(mesh, {7, 5});
    const auto t = from_local<Partial<>, Replicate>(ones<double>({300, 50}), mesh);
    (void)redistribute_all(to<Shard<1>, Shard<0>>(x), to<Shard<0>, Shard<0>>(t));
    (void)redistribute_all(to<Replicate, Replicate>(x), to<Replicate, Replicate>(t), to<Shard<0>, Shard<0>>(x));
    const auto handle = redistribute_async<Replicate, Shard<0>>(x);
    (void)handle.wait();
    (void)redistribute<BlockCyclic<0, 2>, Replicate>(x);
    (void)redistribute<Shard<1>, Shard<0>>(redistribute<BlockCyclic<0, 1>, BlockCyclic<1, 2>>(x));
    (void)redistribute<Replicate, Replicate>(as_partial<Max>(redistribute<Replicate, Replicate>(x)));
    (void)x.full_tensor();
    const auto flat = mesh.template flatten<"dp", "tp">();
    (void)redistribute<Shard<1>>(zeros<float, Shard<0>>(flat, {13, 8}));
    const auto turned = init_device_mesh<"x">(world, {6}, {.ranks = {5, 3, 1, 0, 2, 4}});
    (void)redistribute<Replicate>(ones<float, Shard<0>>(turned, {12, 2}));
    const auto some = init_device_mesh<"y">(world, {2}, {.ranks = {4, 1}});
    const auto few = redistribute<Shard<1>>(x, some);
    (void)redistribute<Replicate>(few);
    (void)redistribute<Replicate, Shard<0>>(few, mesh);
    (void)distribute_tensor<Shard<0>, Replicate>(ones<float>({9, 2}), mesh, {.src_data_rank = 1});
    (void)distribute_tensor<Replicate, Replicate>(ones<float>({9, 2}), mesh);
    (void)distribute_tensor<BlockCyclic<0, 2>, Replicate>(ones<float>({9, 2}), mesh);
  });
}

TEST_CASE("the collectives of a communicator are counted alone as among threads, and give shapes and own parts") {
  check_alone(3, [](const auto& world) {
    const auto rank = static_cast<std::size_t>(world.rank());
    const std::vector<std::int64_t> counts{2, 0, 5};
    std::vector<float> one(2, 1.0f), three(6, 7.0f), seven(7, 7.0f), own(static_cast<std::size_t>(counts[rank]), 1.0f);
    const std::span<const std::int64_t> c(counts);
    world.all_gather(std::span<const float>(one), std::span<float>(three));
    CHECK(three[2 * rank] == 1.0f);
    world.all_gather_v(std::span<const float>(own), std::span<float>(seven), c);
    world.reduce_scatter(std::span<const float>(three), std::span<float>(one), ReduceOp::sum);
    world.reduce_scatter_v(std::span<const float>(seven), std::span<float>(own), c, ReduceOp::max);
    world.all_reduce(std::span<const float>(seven), std::span<float>(seven), ReduceOp::sum);
    world.broadcast(std::span<float>(seven), 1);
    world.scatter(std::span<const float>(three), std::span<float>(one), 2);
    world.scatter_v(std::span<const float>(seven), c, std::span<float>(own), 0);
    const std::vector<std::int64_t> even{2, 2, 2};
    std::vector<float> back(6);
    world.all_to_all_v(std::span<const float>(three), std::span<const std::int64_t>(even), std::span<float>(back),
                       std::span<const std::int64_t>(even));
    CHECK(back[2 * rank] == three[2 * rank]);
    if (rank == 0) world.send(std::span<const float>(one), 2);
    if (rank == 2) world.recv(std::span<float>(one), 0);
    world.barrier();
  });
  const DryRunCommunicator world(1, 3);
  std::vector<float> one(2), three(6);
  CHECK_THROWS_AS(world.all_gather(std::span<const float>(three), std::span<float>(one)), ShapeError);
  CHECK_THROWS_AS(world.broadcast(std::span<float>(one), 3), Error);
  CHECK_THROWS_AS(world.recv(std::span<float>(one), 1), Error);
  world.abort("out of data");
  CHECK_THROWS_WITH_AS(world.barrier(), "rank 1 aborted: out of data", PeerFailedError);
}

TEST_CASE("a million ranks: volumes and messages are the closed forms") {
  constexpr std::int64_t ranks = 1000000;
  constexpr std::int64_t bytes = 4 * ranks;  // of the tensor, M
  for (const int self : {0, 123456, 999999}) {
    const DryRunCommunicator world(self, ranks);
    DryRunLedger& ledger = world.ledger();
    const auto line = init_device_mesh<"all">(world, {ranks});
    const auto expect = [&](Collective kind, std::int64_t volume, std::int64_t messages) {
      INFO("rank ", self, " ", ledger.table());
      CHECK(ledger.total().calls == 1);
      CHECK(ledger.collective(kind).bytes == volume);
      CHECK(ledger.collective(kind).messages == messages);
      ledger.reset();
    };
    const auto x = zeros<float, Shard<0>>(line, {1000, 1000});  // 999000 ranks hold nothing
    const auto rows = zeros<float, Shard<0>>(line, {ranks, 1});
    const auto terms = from_local<Partial<>>(zeros<float>({1000, 1000}), line);
    (void)redistribute<Replicate>(rows);
    expect(Collective::all_gather, bytes - 4, 20);  // M (P - 1) / P
    (void)redistribute<Replicate>(terms);
    expect(Collective::all_reduce, 2 * (bytes - 4), 40);  // 2 M (P - 1) / P
    (void)redistribute<Shard<0>>(from_local<Partial<>>(zeros<float>({ranks, 1}), line));
    expect(Collective::reduce_scatter, 4 * (ranks - 1), 20);  // M (P - 1) / P
    (void)redistribute<Shard<1>>(zeros<float, Shard<0>>(line, {ranks, 1}));
    ledger.reset();
    const auto wide = zeros<float, Shard<0>>(line, {ranks, ranks});  // 4 MB a rank
    (void)redistribute<Shard<1>>(wide);
    expect(Collective::all_to_all, 4 * (ranks - 1), ranks - 1);  // (M / P) (P - 1) / P

    const auto grid = init_device_mesh<"dp", "tp">(world, {1000, 1000});
    (void)redistribute<Replicate, Replicate>(zeros<float, Shard<0>, Shard<1>>(grid, {1000, 1000}));
    expect(Collective::all_gather, bytes - 4, 20);
    (void)redistribute<On<"tp", Replicate>>(zeros<float, Shard<0>, Shard<1>>(grid, {1000, 1000}));
    CHECK(ledger.axis("tp").calls == 1);
    expect(Collective::all_gather, 4 * 999, 10);
    (void)x;
  }
}

TEST_CASE("a million ranks: an exchange among all is done axis by axis, where messages would cost more than bytes") {
  constexpr std::int64_t side = 1000;
  const auto count = [&](const DryRunOptions& options) {
    const DryRunCommunicator world(side - 1, side * side, options);  // one of the busiest: off the diagonal
    const auto mesh = init_device_mesh<"a", "b">(world, {side, side});
    (void)redistribute<Shard<1>, Shard<1>>(zeros<float, Shard<0>, Shard<0>>(mesh, {side * side, side * side}));
    return world.ledger();
  };
  const DryRunLedger steps = count({});
  INFO(steps.table());
  CHECK(steps.rows().size() == 2);
  CHECK(steps.total().messages < 3 * side);
  CHECK(steps.total().bytes <= 2 * 4 * side * side);
  CHECK(steps.total().seconds < 0.02);
  const DryRunLedger once = count({.across_nodes = {.seconds_per_message = 0}});
  INFO(once.table());
  CHECK(once.rows().size() == 1);
  CHECK(once.total().messages == side * side - 1);
  CHECK(once.total().bytes == 4 * (side * side - 1));
  // The planner foresees what is counted.
  const auto foreseen = plan_redistribute<Placements<Shard<0>, Shard<0>>, Placements<Shard<1>, Shard<1>>>(
      {side, side}, {side * side, side * side});
  CHECK(foreseen.messages() == steps.total().messages);
  CHECK(foreseen.elements() * 4 == steps.total().bytes);
}

TEST_CASE("a training step of a million ranks: tensor parallel within a node, data parallel across") {
  const DryRunCommunicator world(77, 1000000);
  training_step(world, 125000, 8, 16);
  const DryRunLedger& ledger = world.ledger();
  INFO(ledger.table());
  for (const DryRunRow& row : ledger.rows()) CHECK(row.across_nodes == (row.axis == "dp"));
  // Of both steps: 16 x 32 / 8 weights and 32 / 8 + 0 biases in net1, as many weights and 16 biases in net2.
  const std::int64_t part = 16 * 32 / 8;
  std::int64_t expected = 0;
  for (const std::int64_t n : {part, std::int64_t{4}, part, std::int64_t{16}})
    expected += 2 * 4 * (2 * n * 124999 / 125000);
  CHECK(ledger.axis("dp").bytes == expected);
  CHECK(ledger.axis("dp").calls == 8);
  CHECK(ledger.axis("dp").messages == 8 * 2 * 17);  // 2^17 > 125000
  CHECK(ledger.axis("tp").collective == Collective::none);
}

TEST_CASE("groups: nodes, splits with the choice of every rank, and prices") {
  const CostModel within{1, 0.5, 10};
  const CostModel across{100, 50, 1000};
  const DryRunCommunicator world(5, 12, {.ranks_per_node = 4, .within_node = within, .across_nodes = across});
  CHECK(world.cost_model() == across);
  const auto node = world.split([](int rank) { return std::pair(rank / 4, -rank); });
  REQUIRE(node.has_value());
  CHECK(node->size() == 4);
  CHECK(node->rank() == 2);  // 7, 6, 5, 4
  CHECK(node->cost_model() == within);
  const auto leaders = world.split([](int rank) { return std::pair(rank % 4, rank); });
  CHECK(leaders->size() == 3);
  CHECK(leaders->rank() == 1);
  CHECK(leaders->cost_model() == across);
  CHECK(leaders->id() != node->id());
  CHECK(!world.split([](int) { return std::pair(-1, 0); }).has_value());
  CHECK_THROWS_AS((void)world.split(0, 0), Error);
  // A group of a group: ranks 7 and 4 of the world, in one node.
  CHECK(node->subgroup({0, 2}).cost_model() == within);
  CHECK_THROWS_AS((void)node->subgroup({0, 1}), Error);

  std::vector<double> two(2), eight(8);
  node->with_axis("n").all_gather(std::span<const double>(two), std::span<double>(eight));
  const DryRunRow row = world.ledger().axis("n");
  CHECK(row.messages == 2);
  CHECK(row.bytes == 48);
  CHECK(row.seconds == 10 + 2 * 1 + 48 * 0.5);
  CHECK(world.ledger().table() ==
        "| axis | collective | ranks | link | calls | messages | bytes | ms |\n|---|---|---|---|---|---|---|---|\n"
        "| n | all_gather | 4 | within a node | 1 | 2 | 48 | 36000.000 |\n"
        "| total |  |  | | 1 | 2 | 48 | 36000.000 |\n");
  world.ledger().reset();
  CHECK(world.ledger().rows().empty());
}

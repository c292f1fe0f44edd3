// The transitions between ranks that are GPUs, under a launcher: times of the device and, for the call alone, of the host.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "ranks.hpp"

#if defined(SHARDWISE_HAS_NCCL)

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include <cuda_runtime_api.h>

#include <shardwise/backends/nccl.hpp>
#include <shardwise/device/redistribute.hpp>

#include "nccl_bounds.hpp"
#include "transitions.hpp"

namespace bench {

namespace {

template <class T>
std::vector<T> gathered_from_devices(const NcclCommunicator& world, T mine) {
  const auto stream = cuda::current_stream();
  const auto n = static_cast<std::size_t>(world.size());
  std::vector<T> all(n);
  const detail::Buffer there = detail::device_buffer((n + 1) * sizeof(T), stream);
  T* const at = there.as<T>();
  SHARDWISE_CUDA(cudaMemcpyAsync(at + n, &mine, sizeof(T), cudaMemcpyHostToDevice, stream.handle));
  world.all_gather<T>({at + n, 1}, {at, n});
  SHARDWISE_CUDA(cudaMemcpyAsync(all.data(), at, n * sizeof(T), cudaMemcpyDeviceToHost, stream.handle));
  world.synchronize();
  return all;
}
template <class T>
T largest(const NcclCommunicator& world, T mine) {
  const auto all = gathered_from_devices(world, mine);
  return *std::max_element(all.begin(), all.end());
}

class Stopwatch {
 public:
  Stopwatch() {
    SHARDWISE_CUDA(cudaEventCreateWithFlags(&begin_, cudaEventDefault));
    SHARDWISE_CUDA(cudaEventCreateWithFlags(&end_, cudaEventDefault));
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() { cudaEventDestroy(begin_), cudaEventDestroy(end_); }

  struct Times {
    double device, host;  // seconds for one
  };
  template <class F>
  Times time(const NcclCommunicator& world, std::int64_t batch, F&& f) {
    const auto stream = cuda::current_stream();
    world.barrier();
    SHARDWISE_CUDA(cudaEventRecord(begin_, stream.handle));
    const double host = seconds([&] {
      for (std::int64_t k = 0; k < batch; ++k) f();
    });
    SHARDWISE_CUDA(cudaEventRecord(end_, stream.handle));
    world.synchronize();
    float milliseconds = 0;
    SHARDWISE_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
    const auto n = static_cast<double>(batch);
    return {static_cast<double>(milliseconds) * 1e-3 / n, host / n};
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// `run.wall`: the device's time on the rank that took longest; `run.processor`: the host's on rank 0, of calls that wait for nothing.
template <class Move>
void take_turns_on_devices(Run& run, const NcclCommunicator& world, const Bound& bound, Move&& move) {
  Stopwatch watch;
  double slowest = 1e-6;
  for (int i = 0; i < 3; ++i) {
    watch.time(world, 1, move);
    slowest = watch.time(world, 1, bound.run).device;
  }
  const double all_slowest = std::max(largest(world, slowest), 1e-6);
  // No more than a device queues: a host that waits for room would be timed.
  const std::int64_t batch = std::clamp<std::int64_t>(static_cast<std::int64_t>(2e-2 / all_slowest), 8, 100);
  double spent = 0;
  for (int i = 0; i < run.repeat && (i < 5 || spent < run.at_most); ++i) {
    const auto moved = watch.time(world, batch, move), raw = watch.time(world, batch, bound.run);
    const double by_move = largest(world, moved.device), by_raw = std::max(largest(world, raw.device), 1e-9);
    spent += (by_move + by_raw) * static_cast<double>(batch);  // the same on all ranks
    run.wall.add(by_move, by_raw);
    run.processor.add(moved.host, raw.host);
  }
}

void report(Run& run, const NcclCommunicator& world, const Bound& bound, std::int64_t received, std::int64_t bytes,
            std::int64_t wrong) {
  const auto all = gathered_from_devices(world, wrong);
  run.wrong = std::accumulate(all.begin(), all.end(), std::int64_t{0});
  run.received_bytes = largest(world, received);
  run.bound_bytes = largest(world, bytes);
  run.bound = bound.name;
}

// A call of the communicator and NCCL's own.
template <class T>
void run_all_reduce(Run& run, const NcclCommunicator& world, const char* name) {
  const auto n = static_cast<std::size_t>(run.shape[0] * run.shape[1]);
  const auto x = to_device(full<T>({run.shape[0], run.shape[1]}, T(3)));
  auto y = to_device(zeros<T>({run.shape[0], run.shape[1]}));
  run.mesh = std::to_string(world.size());
  const Bound bound = run.make_bound(run.against, {name, 0, run.shape, static_cast<std::int64_t>(sizeof(T))});
  take_turns_on_devices(run, world, bound,
                        [&] { world.all_reduce<T>({x.device_data(), n}, {y.device_data(), n}, ReduceOp::sum); });
  const auto back = to_host(y);
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < n; ++i) wrong += back.data()[i] != static_cast<T>(3 * world.size());
  const std::int64_t bytes = back.size() * static_cast<std::int64_t>(sizeof(T));
  report(run, world, bound, 2 * bytes * (world.size() - 1) / world.size(), bytes, wrong);
}

}  // namespace

// As its namesake for ranks of the host; OnMesh calls it.
template <class T, class Mesh, class... From, class... To>
void run_on(Run& run, const NcclCommunicator& world, const Mesh& mesh, const char* name, const std::vector<int>& sizes,
            Places<From...>, Places<To...>) {
  const Held before({place_of<From>...}, sizes, world.rank(), run.shape);
  const Held after({place_of<To>...}, sizes, world.rank(), run.shape);
  const auto sizes_of_part = [](const Held& held) {
    return Shape<2>{static_cast<std::int64_t>(held.index[0].size()), static_cast<std::int64_t>(held.index[1].size())};
  };
  const Shape<2> global{run.shape[0], run.shape[1]};
  Tensor<T, 2> in(sizes_of_part(before)), nothing(sizes_of_part(after));
  const std::vector<T> terms = Values<T>::table(before.term, 0);
  before.for_each([&](std::int64_t at, std::int64_t row, std::int64_t column) {
    in.data()[at] = terms[static_cast<std::size_t>(Values<T>::base(row, column))];
  });
  std::memset(static_cast<void*>(nothing.data()), 0x5a, nothing.bytes());
  const auto x = from_local<From...>(to_device(in), mesh, {.global_shape = global});
  auto y = from_local<To...>(to_device(nothing), mesh, {.global_shape = global});

  std::int64_t received = 0;
  {
    const Listener listener;
    redistribute_into(x, y);
    received = listener.bytes;
  }
  run.mesh = run.mesh.empty() ? std::to_string(world.size()) : run.mesh;
  const Bound bound = run.make_bound(run.against, {name, received, run.shape, static_cast<std::int64_t>(sizeof(T))});
  take_turns_on_devices(run, world, bound, [&] { redistribute_into(x, y); });

  const auto out = to_host(y.to_local());
  const std::vector<T> results = Values<T>::table(0, before.terms);
  std::int64_t wrong = 0;
  after.for_each([&](std::int64_t at, std::int64_t row, std::int64_t column) {
    if (!(out.data()[at] == results[static_cast<std::size_t>(Values<T>::base(row, column))])) ++wrong;
  });
  report(run, world, bound, received, static_cast<std::int64_t>(std::max(in.bytes(), nothing.bytes())), wrong);
}

namespace {

const std::vector<Transition<NcclCommunicator>>& transitions_of_gpus(int ranks) {
  using W = NcclCommunicator;
  using R = Places<Replicate>;
  using P = Places<Partial<>>;
  using S0 = Places<Shard<0>>;
  using S1 = Places<Shard<1>>;
  static const Transition<W> call{{"all_reduce", 2}, {&run_all_reduce<float>, &run_all_reduce<double>}};
  static const std::vector<Transition<W>> one = {call};  // a rank alone moves nothing
  static const std::vector<Transition<W>> several = {
      transition_of<W, S0, S1>("S0->S1", 0), transition_of<W, S1, S0>("S1->S0", 0),
      transition_of<W, S0, R>("S0->R", 3),   transition_of<W, S1, R>("S1->R", 3),
      transition_of<W, P, R>("P->R", 3),     transition_of<W, P, S0>("P->S0", 2),
      transition_of<W, P, S1>("P->S1", 2),   call,
  };
  return ranks == 1 ? one : several;
}

}  // namespace

class Gpus final : public Ranks {
 public:
  explicit Gpus(NcclCommunicator world) : world_(std::move(world)), raw_(std::make_shared<RawNccl>(world_)) {}

  int size() const override { return world_.size(); }
  std::string kind() const override { return "nccl"; }
  bool prints() const override { return world_.rank() == 0; }
  std::int64_t agreed(std::int64_t of_rank_0) const override {
    tell_all(world_, &of_rank_0, sizeof of_rank_0);
    return of_rank_0;
  }
  std::vector<TransitionName> transitions() const override {
    const auto& all = transitions_of_gpus(size());
    return {all.begin(), all.end()};
  }

  Run run(std::size_t transition, std::size_t dtype, Run run) const override {
    const auto& chosen = transitions_of_gpus(size())[transition];
    if (chosen.run[dtype] == nullptr) refuse("--dtype is float or double between GPUs");
    run.ranks = size();
    run.make_bound = [this](Against, const Work& work) { return nccl_bound(raw_, size(), work); };
    chosen.run[dtype](run, world_, chosen.name);
    return run;
  }

 private:
  NcclCommunicator world_;
  std::shared_ptr<const RawNccl> raw_;
};

}  // namespace bench

#endif

namespace bench {

std::unique_ptr<Ranks> gpus() {
  constexpr const char* needs = "bench_redistribute --backend nccl needs an NVIDIA GPU for each rank: "
                                "scripts/launch.sh -n GPUS --backend nccl bench_redistribute --backend nccl";
#if defined(SHARDWISE_HAS_NCCL)
  if (cuda::is_available()) return std::make_unique<Gpus>(NcclCommunicator());
  std::printf("skipped: no CUDA device: %s\n", needs);
#else
  std::printf("skipped: no CUDA device: %s, and a build that has NCCL (-D SHARDWISE_CUDA=ON): this one has none\n",
              needs);
#endif
  std::exit(77);
}

}  // namespace bench

// What Gloo itself does with the bytes of a move: its collectives as they come, and the fastest of several ways to exchange as many
// bytes over it. Each has connections of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sched.h>

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoallv.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <shardwise/backends/any.hpp>

#include "../support.hpp"
#include "run.hpp"

namespace bench {

// Gloo's way to find the other ranks: all set the same number of values in the same order, so that each is gathered from all.
class GatheredStore final : public gloo::rendezvous::Store {
 public:
  explicit GatheredStore(const shardwise::AnyCommunicator& world) : world_(world) {}
  void set(const std::string& key, const std::vector<char>& data) override {
    const std::string mine = key + '\0' + std::string(data.begin(), data.end());
    std::vector<std::int64_t> sizes(static_cast<std::size_t>(world_.size()));
    const auto size = static_cast<std::int64_t>(mine.size());
    world_.all_gather<std::int64_t>({&size, 1}, sizes);
    std::int64_t total = 0;
    for (const std::int64_t n : sizes) total += n;
    std::vector<std::uint8_t> all(static_cast<std::size_t>(total));
    world_.all_gather_v<std::uint8_t>({reinterpret_cast<const std::uint8_t*>(mine.data()), mine.size()}, all, sizes);
    const std::uint8_t* at = all.data();
    for (const std::int64_t n : sizes) {
      const std::uint8_t* const end_of_key = std::find(at, at + n, std::uint8_t{0});
      values_[std::string(at, end_of_key)] = {end_of_key + 1, at + n};
      at += n;
    }
  }
  std::vector<char> get(const std::string& key) override { return values_.at(key); }
  void wait(const std::vector<std::string>&) override {}

 private:
  const shardwise::AnyCommunicator& world_;
  std::map<std::string, std::vector<char>> values_;
};

// Gloo's threads run on any core, whatever its caller is pinned to; `batch`: with SCHED_BATCH, which is kinder to its event loop where
// cores are few.
class GlooContext {
 public:
  GlooContext(const shardwise::AnyCommunicator& world, bool batch) {
    cpu_set_t pinned, every;
    sched_getaffinity(0, sizeof pinned, &pinned);
    CPU_ZERO(&every);
    for (unsigned c = 0; c < std::thread::hardware_concurrency(); ++c) CPU_SET(c, &every);
    sched_setaffinity(0, sizeof every, &every);
    const sched_param none{};
    if (batch) sched_setscheduler(0, SCHED_BATCH, &none);
    gloo::transport::tcp::attr attributes;
    attributes.hostname = "127.0.0.1";
    device_ = gloo::transport::tcp::CreateDevice(attributes);
    if (batch) sched_setscheduler(0, SCHED_OTHER, &none);
    sched_setaffinity(0, sizeof pinned, &pinned);
    GatheredStore store(world);
    context_ = std::make_shared<gloo::rendezvous::Context>(world.rank(), world.size());
    context_->connectFullMesh(store, device_);
  }
  const std::shared_ptr<gloo::rendezvous::Context>& get() const { return context_; }
  int rank() const { return context_->rank; }
  int size() const { return context_->size; }

 private:
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::rendezvous::Context> context_;
};

// Bytes from every rank to every other, over Gloo's bound buffers.
class BoundExchange {
 public:
  BoundExchange(const shardwise::AnyCommunicator& world, std::size_t bytes, std::size_t chunk, bool synchronous,
                bool batch)
      : context_(world, batch), bytes_(bytes), chunk_(chunk), out_(touched_memory(bytes * count())),
        in_(touched_memory(bytes * count())) {
    for (int k = 1; k < context_.size(); ++k) {
      const int peer = (context_.rank() + k) % context_.size();
      const std::size_t place = static_cast<std::size_t>(k - 1) * bytes;
      const auto& pair = context_.get()->getPair(peer);
      const bool lower = context_.rank() < peer;
      if (synchronous) pair->setSync(true, false);
      send_.push_back(pair->createSendBuffer(lower ? 0 : 1, out_.get() + place, bytes));
      receive_.push_back(pair->createRecvBuffer(lower ? 1 : 0, in_.get() + place, bytes));
    }
    world.barrier();
  }

  // A rank sends a chunk to each other, then reads one of each: as long as a chunk fits into the sockets' buffers nobody waits for a
  // reader that waits for it. Without chunks Gloo's event loop moves the bytes.
  void run() {
    for (std::size_t at = 0; at < bytes_; at += chunk_) {
      const std::size_t n = std::min(chunk_, bytes_ - at);
      for (const auto& b : send_) b->send(at, n, at);
      for (const auto& b : receive_) b->waitRecv();
      for (const auto& b : send_) b->waitSend();
    }
  }

 private:
  std::size_t count() const { return static_cast<std::size_t>(context_.size() - 1); }

  GlooContext context_;
  std::size_t bytes_, chunk_;
  Memory out_, in_;
  std::vector<std::unique_ptr<gloo::transport::Buffer>> send_, receive_;
};

// Gloo's own all-to-all of so many bytes between each two ranks.
class AlltoallvExchange {
 public:
  AlltoallvExchange(const shardwise::AnyCommunicator& world, std::size_t bytes, bool batch)
      : context_(world, batch), out_(touched_memory(bytes * static_cast<std::size_t>(context_.size()))),
        in_(touched_memory(bytes * static_cast<std::size_t>(context_.size()))), options_(context_.get()) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(context_.size()), static_cast<std::int64_t>(bytes));
    counts[static_cast<std::size_t>(context_.rank())] = 0;  // what a rank keeps is no exchange
    options_.setInput(reinterpret_cast<std::uint8_t*>(out_.get()), counts);
    options_.setOutput(reinterpret_cast<std::uint8_t*>(in_.get()), counts);
    world.barrier();
  }
  void run() { gloo::alltoallv(options_); }

 private:
  GlooContext context_;
  Memory out_, in_;
  gloo::AlltoallvOptions options_;
};

// The fastest of all ways here: each gets three short tries, rank 0 says which it was.
inline Bound best_gloo_exchange(const shardwise::AnyCommunicator& world, std::size_t bytes) {
  const auto made = [&](const char* name, auto exchange) { return Bound{name, {}, [exchange] { exchange->run(); }}; };
  const std::vector<Bound> ways = {
      made("bound buffers, synchronous, 64 KiB", std::make_shared<BoundExchange>(world, bytes, 64 << 10, true, true)),
      made("bound buffers, synchronous, 128 KiB", std::make_shared<BoundExchange>(world, bytes, 128 << 10, true, true)),
      made("bound buffers, event loop", std::make_shared<BoundExchange>(world, bytes, bytes, false, false)),
      made("bound buffers, event loop, batch", std::make_shared<BoundExchange>(world, bytes, bytes, false, true)),
      made("alltoallv", std::make_shared<AlltoallvExchange>(world, bytes, false)),
      made("alltoallv, batch", std::make_shared<AlltoallvExchange>(world, bytes, true)),
  };
  const int repeat = bytes < (64 << 10) ? 50 : 5;
  std::vector<double> times(ways.size(), 1e9);
  for (int round = 0; round < 3; ++round)
    for (std::size_t i = 0; i < ways.size(); ++i) {
      world.barrier();
      const double once = seconds([&] {
        for (int k = 0; k < repeat; ++k) ways[i].run();
        world.barrier();
      });
      times[i] = std::min(times[i], once / repeat);
    }
  std::int64_t best = std::min_element(times.begin(), times.end()) - times.begin();
  world.broadcast<std::int64_t>({&best, 1}, 0);
  Bound chosen = ways[static_cast<std::size_t>(best)];
  for (std::size_t i = 0; i < ways.size(); ++i) {
    char one[96];
    std::snprintf(one, sizeof one, "%s%s %.0f us", i == 0 ? "" : "; ", ways[i].name.c_str(), times[i] * 1e6);
    chosen.note += one;
  }
  return chosen;
}

inline Bound gloo_bound(const shardwise::AnyCommunicator& world, Against against, const Work& work) {
  const auto ranks = static_cast<std::size_t>(world.size());
  if (against == Against::exchange)
    return best_gloo_exchange(world, static_cast<std::size_t>(work.received_bytes) / (ranks - 1));

  struct Collective {
    GlooContext context;
    Memory in, out;
  };
  const auto bytes = static_cast<std::size_t>(work.shape[0] * work.shape[1] * work.element_bytes);
  const auto make = [&](std::size_t in, std::size_t out) {
    auto c = std::make_shared<Collective>(Collective{{world, false}, touched_memory(in), touched_memory(out)});
    world.barrier();
    return c;
  };
  const auto floats = [](const Memory& m) { return reinterpret_cast<float*>(m.get()); };
  if (work.transition == "P->R" && work.element_bytes == sizeof(float)) {
    const auto c = make(bytes, bytes);
    std::memset(c->in.get(), 0, bytes);
    auto options = std::make_shared<gloo::AllreduceOptions>(c->context.get());
    options->setInput(floats(c->in), bytes / sizeof(float));
    options->setOutput(floats(c->out), bytes / sizeof(float));
    options->setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
    options->setReduceFunction(
        [](void* to, const void* a, const void* b, std::size_t n) { gloo::sum<float>(to, a, b, n); });
    return {"gloo::allreduce, ring", {}, [c, options] { gloo::allreduce(*options); }};
  }
  if (work.transition == "S0->R") {
    const auto c = make(bytes / ranks, bytes);
    auto options = std::make_shared<gloo::AllgatherOptions>(c->context.get());
    options->setInput(c->in.get(), bytes / ranks);
    options->setOutput(c->out.get(), bytes);
    return {"gloo::allgather", {}, [c, options] { gloo::allgather(*options); }};
  }
  if (work.transition == "S0->S1" || work.transition == "S1->S0") {
    const auto exchange = std::make_shared<AlltoallvExchange>(world, bytes / ranks / ranks, false);
    return {"gloo::alltoallv, no packing", {}, [exchange] { exchange->run(); }};
  }
  std::fprintf(stderr, "bench_redistribute: Gloo has no collective for %s of this type; --against exchange works\n",
               work.transition.c_str());
  std::exit(2);
}

}  // namespace bench

// Whole worlds of forked processes for tests of what happens when one fails: within a host, where they share memory, and with
// messages over Gloo.
#pragma once

#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <sys/resource.h>

#include <shardwise/backends/any/from_env.hpp>
#include <shardwise/backends/process/world.hpp>

#include "process/host.hpp"
#include "support/slow_build.hpp"

namespace test {

using shardwise::ProcessCommunicator;
using shardwise::detail::ProcessWorld;

// What all ranks of one world agree on.
struct Job {
  bool shares = true;
  int size = 4;
  std::string run = next_run();
  shardwise::detail::Endpoint endpoint;  // where it is empty, a local name
  std::string token;
  std::chrono::milliseconds deadline = hang;

  shardwise::detail::WorldPlace place(int rank) const {
    shardwise::detail::WorldPlace place;
    place.rank = rank;
    place.size = size;
    place.endpoint = endpoint;
    if (place.endpoint.empty()) place.endpoint.local = "shardwise-test-" + run;
    place.store.run_id = run;
    place.store.token = token;
    place.store.handshake = 500ms;
    place.host_id = "here";
    place.deadline = deadline;
    place.shares_memory = shares;
    place.connect = &shardwise::detail::connect_over_gloo;
    return place;
  }
  std::shared_ptr<ProcessWorld> join(int rank) const { return ProcessWorld::join(place(rank)); }

  static std::string next_run() {
    static int runs = 0;
    return std::to_string(getpid()) + "-" + std::to_string(++runs);
  }
};

// Names that outlive their makers: of memory, and of sockets of this run.
inline std::string left_behind(const std::string& run) {
  std::string names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", none))
    if (entry.path().filename().string().find("shardwise") != std::string::npos) names += entry.path().string() + '\n';
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);)
    if (line.find("shardwise-test-" + run) != std::string::npos) names += line + '\n';
  return names;
}

inline std::string way(bool shares) { return shares ? "sharing memory" : "with messages"; }

inline bool add_up(const ProcessCommunicator& c, int n = 12) {
  std::vector<float> x(static_cast<std::size_t>(n), static_cast<float>(c.rank() + 1)), y(x.size());
  c.all_reduce<float>(x, y, shardwise::ReduceOp::sum);
  return y.back() == static_cast<float>(c.size() * (c.size() + 1) / 2);
}

// What `call` throws has `parts`; from then on the communicator, and its half that was split off before, say the same of whatever is
// called.
template <class Call>
void hears(const ProcessCommunicator& c, const ProcessCommunicator& half, Call call,
           const std::vector<std::string>& parts) {
  const std::string said = thrown_by(call);
  for (const std::string& part : parts) expect_text(said, part);
  const std::string kind = said.substr(0, said.find(':')), cause = parts.back();
  for (const ProcessCommunicator& refuses : {c, half, c}) {
    const std::string again = thrown_by([&] { refuses.barrier(); });
    expect(again.starts_with(kind), "once more a " + kind + ", not " + again);
    expect_text(again, cause);
  }
}

// f(job, rank) on four processes twice: sharing memory, and sending messages. Rank `victim`, if any, ends with `its_end`, the others in peace,
// and nothing of them stays.
template <class F>
void within_a_host_and_across(int victim, const std::string& its_end, F f) {
  for (const bool shares : {true, false}) {
    INFO(way(shares));
    Job job;
    const std::string right = its_end.empty() ? "" : "rank " + std::to_string(victim) + ": " + its_end + "\n";
    CHECK(patiently([&] {
            job = Job();
            job.shares = shares;
            return said_by(ForkedRanks(job.size, [&](int rank) { f(job, rank); }).last_words());
          }) == right);
    CHECK(left_behind(job.run) == "");
  }
}

// The same, with what most rows do: all meet, and rank `victim` does harm(communicator, world) while the others make `call`, and
// are told `parts`.
template <class Harm, class Call>
void survivors_hear(int victim, const std::string& its_end, const std::vector<std::string>& parts, Harm harm,
                    Call call) {
  within_a_host_and_across(victim, its_end, [&](const Job& job, int rank) {
    const auto world = job.join(rank);
    const ProcessCommunicator c = world->communicator().with_axis("tp");
    const ProcessCommunicator half = *c.split(rank % 2, rank);
    expect(add_up(c) && add_up(half), "sums");
    meet_all();  // all have what they need of that
    if (rank == victim) return harm(c, world);
    hears(c, half, [&] { call(c); }, parts);
  });
}

// Ends this process the hard way, without a word.
inline void die() { kill(getpid(), SIGKILL); }

}  // namespace test

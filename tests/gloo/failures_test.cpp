// What the ranks of a world over Gloo are told when one of them does something else, dies, stops, leaves, or never comes.
#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include "gloo/message_ranks.hpp"
#include "process/host.hpp"

using namespace shardwise;
using namespace test;
using Clock = std::chrono::steady_clock;

namespace {

void fill(const MessageCommunicator& c, int n = 12) {
  std::vector<float> x(static_cast<std::size_t>(n), 1.0f), y(x.size());
  c.all_reduce<float>(x, y, ReduceOp::sum);
}

// A failure stops a rank also in an earlier call, whose data has come already: all are through with that.
void settle() { meet_all(); }

// Ranks 0 to 2 call all_reduce, rank 3 does `other`: all are told of a mismatch, in words that name `parts`; again afterwards.
template <class F>
void all_are_told(F other, const std::vector<std::string>& parts) {
  const std::string wrong = run_gloo(4, [&](const MessageCommunicator& world) {
    const MessageCommunicator c = world.with_axis("tp");
    fill(c);
    settle();
    const auto start = Clock::now();
    const std::string said = thrown_by([&] {
      if (c.rank() == 3) other(c);
      for (int i = 0; i < 3; ++i) fill(c);
    });
    expect_within(1s, start, "the mismatch is told");
    for (const std::string& part : parts) expect_text(said, part);
    expect(thrown_by([&] { c.barrier(); }) == said || said.starts_with("PeerFailedError"),
           "the same again, not: " + said);
  });
  CHECK(wrong == "");
}

// What survivors of rank `victim` say.
template <class Before, class Call>
std::string survivors(int n, int victim, Before before, Call call, const std::vector<std::string>& parts) {
  return run_gloo(n, [&](const MessageCommunicator& c) {
    fill(c);
    settle();
    if (c.rank() == victim) {
      before(c);
      kill(getpid(), SIGKILL);
    }
    const std::string said = thrown_by([&] { call(c); });
    for (const std::string& part : parts) expect_text(said, part);
    expect_text(thrown_by([&] { c.barrier(); }), "PeerFailedError");
  });
}

}  // namespace

TEST_CASE("another operation, count, element type, reduction or root is a mismatch that names both sides") {
  all_are_told([](const MessageCommunicator& c) { c.barrier(); },
               {"MismatchError", "on axis 'tp'", "all_reduce(sum) of float [12]", "rank 3 calls barrier"});
  all_are_told([](const MessageCommunicator& c) { fill(c, 13); },
               {"MismatchError", "[12]", "rank 3 calls all_reduce(sum) of float [13]"});
  all_are_told([](const MessageCommunicator& c) { fill(c, 1 << 20); }, {"MismatchError", "[12]", "[1048576]"});
  all_are_told(
      [](const MessageCommunicator& c) {
        std::array<std::int32_t, 12> x{};
        c.all_reduce<std::int32_t>(x, x, ReduceOp::sum);
      },
      {"MismatchError", "of float [12]", "of int32 [12]"});
  all_are_told(
      [](const MessageCommunicator& c) {
        std::array<float, 12> x{};
        c.all_reduce<float>(x, x, ReduceOp::max);
      },
      {"MismatchError", "all_reduce(sum)", "all_reduce(max)"});
  all_are_told(
      [](const MessageCommunicator& c) {
        std::array<float, 12> x{};
        c.broadcast<float>(x, 3);
      },
      {"MismatchError", "rank 3 calls"});  // seen in the broadcast, or in what rank 3 does next
}

TEST_CASE("ranks that disagree about the root, about what is sent, or skip a call") {
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          std::array<float, 5> x{};
          const std::string said = thrown_by([&] {
            c.broadcast<float>(x, c.rank() == 2 ? 2 : 0);
            c.barrier();
          });
          expect_text(said, "MismatchError");
          expect_text(said, "broadcast of float [5] from rank");  // the other: what a rank that has sent does next
          expect_text(said, "rank 2 calls");
        }) == "");
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          // rank 2 expects one element less of rank 1
          std::array<std::int64_t, 3> sends{4, 4, 4}, receives{4, c.rank() == 2 ? 3 : 4, 4};
          std::vector<float> in(12), out(c.rank() == 2 ? 11 : 12);
          const std::string said = thrown_by([&] {
            c.all_to_all_v<float>(in, sends, out, receives);
            c.barrier();
          });
          expect_text(said, "MismatchError");
          expect_text(said, "rank 1 sends 4 elements to rank 2, which expects 3");
        }) == "");
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          for (int i = 0; i < 3; ++i) fill(c);
          settle();
          const std::string said = thrown_by([&] {
            if (c.rank() != 1) fill(c);
            c.barrier();
          });
          expect_text(said, "MismatchError");
          expect_text(said, "calls all_reduce(sum) of float [12]");
          expect_text(said, "rank 1 calls barrier");
        }) == "");
  CHECK(run_gloo(2, [](const MessageCommunicator& c) {
          std::array<float, 4> x{};
          const std::string said = thrown_by([&] {
            if (c.rank() == 0)
              c.send<float>(x, 1);
            else
              c.recv<float>(std::span<float>(x).first(3), 0);
          });
          expect_text(said, "MismatchError");
          expect_text(said, "rank 0 calls send of float [4], rank 1 calls recv of float [3] from rank 0");
        }) == "");
}

TEST_CASE("roots that disagree so that nobody sends are found while all wait") {
  const auto both_are_named = [](const std::string& said, const std::string& call) {
    expect_text(said, "MismatchError");
    expect_text(said, "rank 0 calls " + call + " from rank 1");
    expect_text(said, " calls " + call + " from rank 0");
  };
  CHECK(run_gloo(4, [&](const MessageCommunicator& c) {
          std::vector<float> x(5);
          both_are_named(thrown_by([&] { c.broadcast<float>(x, c.rank() == 0 ? 1 : 0); }), "broadcast of float [5]");
        }) == "");
  // Rank 1 comes when the others wait already.
  CHECK(run_gloo(4, [&](const MessageCommunicator& c) {
          if (c.rank() == 1) std::this_thread::sleep_for(600ms);
          std::vector<float> x(20), part(5);
          both_are_named(thrown_by([&] { c.scatter<float>(x, part, c.rank() == 0 ? 1 : 0); }), "scatter of float [20]");
        }) == "");
}

TEST_CASE("who waits long in different calls that fit goes on") {
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          std::array<float, 4> x{};
          for (int i = 0; i < 2; ++i) {
            // Rank 2 waits for rank 1 in a message, rank 1 for rank 0 in another, before they come to the broadcast.
            if (c.rank() == 0) std::this_thread::sleep_for(700ms);
            if (c.rank() == 0) c.send<float>(x, 1);
            if (c.rank() == 1) c.recv<float>(x, 0), c.send<float>(x, 2);
            if (c.rank() == 2) c.recv<float>(x, 1);
            c.broadcast<float>(x, i);
          }
        }) == "");
}

TEST_CASE("groups that are called in another order are a mismatch, and so is what a rank says that nobody waits for") {
  CHECK(run_gloo(2, [](const MessageCommunicator& c) {
          const MessageCommunicator a = *c.split(0, c.rank()), b = *c.split(0, c.rank());
          const std::string said = thrown_by([&] {
            fill(c.rank() == 0 ? a : b);
            fill(c.rank() == 0 ? b : a);
          });
          expect_text(said, "MismatchError");
          expect_text(said, "operations in different groups");
        }) == "");
  // Rank 0 waits for rank 1, which computes, and sees what rank 2 sent it meanwhile.
  SharedBetween<std::atomic<int>> told;
  CHECK(run_gloo(3, [&](const MessageCommunicator& c) {
          std::array<float, 4> x{};
          const int before = *told;
          meet_all();
          if (c.rank() == 1)
            wait_until([&] { return *told == before + 2 && c.world().failed(); }, "the others' mismatch");
          const auto start = Clock::now();
          const std::string said = thrown_by([&] { c.rank() == 2 ? c.barrier() : c.broadcast<float>(x, 1); });
          ++*told;
          expect_within(1s, start, "the mismatch is told");
          expect_text(said, "MismatchError");
          expect_text(said, "rank 0 calls broadcast of float [4] from rank 1, rank 2 calls barrier");
        }) == "");
}

TEST_CASE("a transport that is closed tells the other end, though its rank computes and nobody else says anything") {
  SharedBetween<std::atomic<int>> told;
  CHECK(run_gloo(2, [&](const MessageCommunicator& c) {
          fill(c);
          const int before = *told;
          settle();
          if (c.rank() == 0) {
            c.world().transport().close();
            return wait_until([&] { return *told > before; }, "the other end to be told");
          }
          std::array<float, 4> x{};
          const auto start = Clock::now();
          const std::string said = thrown_by([&] { c.recv<float>(x, 0); });
          ++*told;
          expect_within(missed(500ms) + 1s, start, "the lost connection is told");
          expect_text(said, "PeerFailedError");
          expect_text(said, "the connection to rank 0 was lost");
        }) == "");
}

TEST_CASE("a rank that is killed is named with the operation and the axis") {
  const std::vector<std::string> words{"PeerFailedError", "barrier on axis 'dp'", "rank 2 died"};
  CHECK(survivors(
            4, 2, [](const MessageCommunicator&) { std::this_thread::sleep_for(100ms); },
            [](const MessageCommunicator& c) { c.with_axis("dp").barrier(); },
            words) == "rank 2: killed by signal 9\n");
}

TEST_CASE("a rank that is killed in the middle of a large payload") {
  CHECK(survivors(
            4, 1,
            [](const MessageCommunicator& c) {
              // dies while it sends and receives
              std::thread([] {
                std::this_thread::sleep_for(60ms);
                kill(getpid(), SIGKILL);
              }).detach();
              std::vector<float> x(std::size_t{1} << 26);
              for (;;) c.broadcast<float>(x, 0);
            },
            [](const MessageCommunicator& c) {
              std::vector<float> x(std::size_t{1} << 26);
              for (int i = 0; i < 200; ++i) c.broadcast<float>(x, 0);
            },
            {"PeerFailedError", "broadcast of float [67108864] from rank 0", "rank 1 died"}) ==
        "rank 1: killed by signal 9\n");
}

TEST_CASE("A waits for B, which computes, while C is killed: A is told at once") {
  SharedBetween<std::atomic<int>> told;
  CHECK(run_gloo(3, [&](const MessageCommunicator& c) {
          fill(c);
          std::array<float, 4> x{};
          const int before = *told;
          settle();
          const auto start = Clock::now();
          if (c.rank() == 2) {
            std::this_thread::sleep_for(200ms);
            kill(getpid(), SIGKILL);
          }
          // It computes, and has heard when it calls again.
          if (c.rank() == 1) wait_until([&] { return *told > before && c.world().failed(); }, "A to be told");
          const std::string said = thrown_by([&] {
            if (c.rank() == 0) c.with_axis("tp").recv<float>(x, 1);
            if (c.rank() == 1) c.barrier();
          });
          if (c.rank() == 0) {
            ++*told;
            expect_within(1200ms, start, "the death, while rank 1 computes, is told");
          }
          expect_text(said, "PeerFailedError");
          expect_text(said, "rank 2 died");
        }) == "rank 2: killed by signal 9\n");
}

TEST_CASE("a rank that stops is missing when the deadline has passed, also in the middle of a payload") {
  for (const bool large : {false, true})
    CHECK(patiently([&] {
            const std::string run = new_run();
            SharedBetween<std::atomic<int>> told;
            ForkedRanks ranks(3, [&](int rank) {
              const std::chrono::milliseconds deadline = missed(1500ms);
              const MessageCommunicator c = join_over_gloo(rank, 3, run).with_deadline(deadline).with_axis("tp");
              std::vector<float> x(large ? std::size_t{1} << 24 : 4);
              fill(c.with_deadline(hang));
              settle();
              if (rank == 1 && !large) raise(SIGSTOP);
              if (rank == 1)
                std::thread([] {
                  std::this_thread::sleep_for(100ms);
                  raise(SIGSTOP);
                }).detach();
              auto start = Clock::now();
              const std::string said = thrown_by([&] {
                for (;;) {
                  start = Clock::now();
                  c.all_reduce<float>(x, x, ReduceOp::sum);
                }
              });
              ++*told;
              expect_within(deadline + 1s, start, "the deadline is told");
              expect_text(said, "TimeoutError");
              expect_text(said, "on axis 'tp': deadline of " + std::to_string(deadline.count()) + " ms passed on");
              expect_missing(said, "rank 1");
            });
            ranks.until([&] { return *told == 2 || ranks.ended(0) || ranks.ended(2); }, "the others' deadline");
            wait_until([&] { return ranks.send(1, SIGKILL), ranks.ended(1); }, "the end of the stopped rank");
            return said_by(ranks.last_words());
          }) == "rank 1: killed by signal 9\n");
}

TEST_CASE("a rank that ends while the others go on has left early; one that aborts says why") {
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          fill(c);
          settle();
          if (c.rank() == 1) return;
          const std::string said = thrown_by([&] { fill(c); });
          expect_text(said, "PeerFailedError");
          expect_text(said, "rank 1 left early");
        }) == "");
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          fill(c);
          settle();
          if (c.rank() == 1) return c.abort("out of cheese");
          const std::string said = thrown_by([&] { fill(c); });
          expect_text(said, "PeerFailedError");
          expect_text(said, "rank 1 aborted: out of cheese");
        }) == "");
}

TEST_CASE("a rank that never connects is named, and one that is killed meanwhile") {
  CHECK(patiently([] {
          const std::string run = new_run();
          return run_forked(3, [&](int rank) {
            const auto world = std::make_shared<MessageWorld>(rank, 3, run, "127.0.0.1", hang);
            meet_all();
            if (rank != 1) {
              const std::string said = thrown_by([&] { world->connect(missed(700ms)); });
              expect_text(said, "TimeoutError");
              if (said.find("addresses of rank 1") == std::string::npos)  // but the other's, which is late
                throw std::runtime_error(std::string(late) + said);
            }
            meet_all();
          });
        }) == "");
  CHECK(patiently([] {
          const std::string run = new_run();
          return run_forked(3, [&](int rank) {
            const auto world = std::make_shared<MessageWorld>(rank, 3, run, "127.0.0.1", hang);
            meet_all();
            if (rank == 1) {
              std::this_thread::sleep_for(200ms);
              kill(getpid(), SIGKILL);
            }
            const auto start = Clock::now();
            expect_text(thrown_by([&] { world->connect(hang); }), "PeerFailedError");
            expect_within(1200ms, start, "the death is told");
          });
        }) == "rank 1: killed by signal 9\n");
}

TEST_CASE("IPv6, an interface by its name, and addresses that are none") {
  CHECK(run_gloo(2, [](const MessageCommunicator& c) { fill(c); }, "lo") == "");
  if (detail::address_of_interface("lo").empty()) MESSAGE("no interface lo");
  const detail::Descriptor six(socket(AF_INET6, SOCK_STREAM, 0));
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  if (six && bind(six.get(), reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) == 0)
    CHECK(run_gloo(3, [](const MessageCommunicator& c) { fill(c, 100000); }, "::1") == "");
  else
    MESSAGE("skipped: this machine has no IPv6 loopback");
  expect_text(thrown_by([] { detail::gloo_address("no-such-host.invalid"); }), "neither an interface nor an address");
  expect_text(thrown_by([] { detail::gloo_address("192.0.2.1"); }), "no address of this host");
  setenv("SHARDWISE_GLOO_INTERFACE", "lo", 1);
  CHECK(detail::gloo_address("192.0.2.1") == "127.0.0.1");
  unsetenv("SHARDWISE_GLOO_INTERFACE");
}

TEST_CASE("a program that a rank has started does not keep its connections open") {
  CHECK(run_gloo(3, [](const MessageCommunicator& c) {
          fill(c);
          // 0 to 2, and nothing of Gloo's that carries messages
          for (int fd = 3; fd < 200; ++fd) {
            sockaddr_storage peer{};
            socklen_t bytes = sizeof peer;
            if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &bytes) != 0) continue;
            expect(peer.ss_family == AF_UNIX || (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0,
                   "closed by exec: " + std::to_string(fd));
          }
        }) == "");
}

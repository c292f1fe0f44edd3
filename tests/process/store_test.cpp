// The store of rank 0: joining, keys and values, who failed, left or died, and what strangers get.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shardwise/backends/process/store.hpp>

#include "process/forked.hpp"
#include "process/strangers.hpp"

using namespace shardwise;
using namespace shardwise::detail;
using namespace std::chrono_literals;
using test::CapturedErrors, test::is_closed, test::occurrences, test::stranger, test::writes_slowly;

namespace {

constexpr auto soon = test::hang;  // far more than anything here takes: a hang becomes a failure

// A case that hangs ends the program, and says so.
struct Watchdog {
  Watchdog() { alarm(900); }
  ~Watchdog() { alarm(0); }
};

class Notices {
 public:
  NoticeHandler handler() {
    return NoticeHandler([this](const Notice& n) {
      const std::lock_guard lock(mutex_);
      all_.push_back(n);
      changed_.notify_all();
    });
  }
  // The first of this kind.
  Notice wait(NoticeKind kind) {
    std::unique_lock lock(mutex_);
    const Notice* found = nullptr;
    changed_.wait_for(lock, soon, [&] {
      for (const Notice& n : all_)
        if (n.kind == kind) found = &n;
      return found != nullptr;
    });
    return found != nullptr ? *found : Notice{kind, -1, {FailureKind::none, "no notice came", -1}};
  }
  std::size_t count() {
    const std::lock_guard lock(mutex_);
    return all_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Notice> all_;
};

Endpoint loopback(const char* host = "127.0.0.1") {
  Endpoint e;
  e.host = host;
  return e;
}
Endpoint fresh_name() {
  Endpoint e;
  e.local = "test-" + random_letters();
  return e;
}

StoreOptions options(int size, std::string token = "", std::string run = "run") {
  StoreOptions o;
  o.size = size;
  o.run_id = std::move(run);
  o.token = std::move(token);
  return o;
}

// A server and, one by one, its ranks.
struct World {
  explicit World(const StoreOptions& o, const Endpoint& at = loopback())
      : World(o, listen_at_endpoint(at, !o.token.empty())) {}
  World(const StoreOptions& o, Listener listener)
      : settings(o), server(std::make_unique<StoreServer>(std::move(listener), o)),
        notices(static_cast<std::size_t>(o.size)) {
    for (auto& n : notices) n = std::make_unique<Notices>();
    ranks.resize(notices.size());
  }
  Endpoint at() const { return server->endpoint(); }
  StoreClient& join(std::size_t r) {
    ranks[r] = std::make_unique<StoreClient>(at(), static_cast<int>(r), settings, notices[r]->handler(), soon);
    return *ranks[r];
  }
  void join_all() {
    for (std::size_t r = 0; r < ranks.size(); ++r)
      if (ranks[r] == nullptr) join(r);
    for (auto& r : ranks) r->wait_for_all(soon);
  }

  StoreOptions settings;
  std::unique_ptr<StoreServer> server;
  std::vector<std::unique_ptr<Notices>> notices;
  std::vector<std::unique_ptr<StoreClient>> ranks;
};

template <class E, class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    return std::string("another exception: ") + e.what();
  }
  return "no exception";
}

// The error of ask(deadline), in which the other end says something; that takes longer where others keep the machine busy.
template <class F>
std::string asked(F ask) {
  std::string said;
  for (auto deadline = 300ms; deadline < 60s; deadline *= 4) {
    said = message_of<Error>([&] { ask(deadline); });
    if (said.find("did not find the store") == std::string::npos) break;
  }
  return said;
}

// What a forked rank does that joins and then does nothing until it is killed. It is forked before this process makes threads.
auto idle_rank(const Endpoint& at, int r, const StoreOptions& o, bool with_child = false) {
  return [at, r, o, with_child](int) {
    alarm(900);
    const StoreClient client(at, r, o, NoticeHandler([](const Notice&) {}), soon);
    if (with_child && fork() == 0) {
      execlp("sleep", "sleep", "60", static_cast<char*>(nullptr));
      _exit(1);
    }
    for (;;) pause();
  };
}

int threads() {
  int n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) ++n;
  return n;
}

std::string hex(const Digest& d) {
  std::string out;
  for (const unsigned char b : d) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", b);
    out += two;
  }
  return out;
}

}  // namespace

TEST_CASE("SHA-256 and HMAC give the standards' own examples") {
  // FIPS 180-4's examples, RFC 4231's cases 1, 2 and 6
  CHECK(hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex(sha256(std::string(1000000, 'a'))) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  CHECK(hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")) ==
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  CHECK(hex(hmac_sha256("Jefe", "what do ya want for nothing?")) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(hex(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  CHECK(equal_in_constant_time("abc", "abc"));
  CHECK_FALSE(equal_in_constant_time("abc", "abd"));
  CHECK_FALSE(equal_in_constant_time("abc", "ab"));
}

TEST_CASE("an endpoint is read and written; what is none is refused by name") {
  CHECK(to_string(parse_endpoint("node7:29500", "A")) == "node7:29500");
  CHECK(to_string(parse_endpoint("[::1]:80", "A")) == "[::1]:80");
  CHECK(parse_endpoint("[::1]:80", "A").host == "::1");
  CHECK(to_string(parse_endpoint("local:job", "A")) == "local:job");
  for (const char* bad :
       {"", ":1", "host", "host:", "host:0", "host:65536", "host:1x", "::1:80", "[::1]80", "[]:1", "local:"}) {
    const std::string said = message_of<Error>([&] { parse_endpoint(bad, "SHARDWISE_ADDRESS"); });
    INFO(bad, " -> ", said);
    CHECK(said.find("SHARDWISE_ADDRESS is '" + std::string(bad) + "'") != std::string::npos);
  }
}

TEST_CASE("ranks join over IPv4, IPv6 and a local socket, and share keys and values") {
  const Watchdog watchdog;
  for (const Endpoint& at : {loopback(), loopback("::1"), loopback("localhost"), fresh_name()}) {
    INFO(to_string(at));
    World world(options(3, "secret"), at);
    world.join_all();
    world.ranks[1]->set("color", "red");
    for (auto& r : world.ranks) CHECK(r->get("color", soon) == "red");
    const std::string large(KeyValueStore::largest_value, 'x');
    world.ranks[2]->set("large", large);
    CHECK(world.ranks[0]->get("large", soon) == large);
    world.ranks[2]->set("color", "");  // the last counts, the empty one too
    CHECK(world.ranks[2]->get("color", soon) == "");
    CHECK_THROWS_AS(world.ranks[0]->set("large", large + "x"), Error);
    CHECK_THROWS_AS(world.ranks[0]->set("", "x"), Error);
    CHECK_THROWS_AS(world.ranks[0]->get(std::string(2000, 'k'), 1ms), Error);
  }
}

TEST_CASE("get waits for a key that comes later, and names one that never does") {
  const Watchdog watchdog;
  World world(options(2));
  world.join_all();
  std::thread later([&] {
    std::this_thread::sleep_for(30ms);
    world.ranks[1]->set("late", "here");
  });
  CHECK(world.ranks[0]->get("late", soon) == "here");
  later.join();
  world.ranks[1]->depart();
  CHECK(world.notices[0]->wait(NoticeKind::departed).rank == 1);
  const std::string said = message_of<TimeoutError>([&] { world.ranks[0]->get("never", 50ms); });
  CHECK(said ==
        "shardwise::rendezvous: rank 0 waited 50 ms for key 'never', which no rank has set; ended before: rank 1");
  CHECK(world.ranks[0]->get("late", soon) == "here");  // a timeout of one key breaks nothing
}

TEST_CASE("many threads of a rank ask at once") {
  const Watchdog watchdog;
  World world(options(2));
  world.join_all();
  std::atomic<int> right{0};
  std::vector<std::thread> askers;
  for (int t = 0; t < 8; ++t)
    askers.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const std::string mine = std::to_string(t) + "/" + std::to_string(i);
        world.ranks[static_cast<std::size_t>(t) % 2]->set(mine, "v" + mine);
        right += world.ranks[static_cast<std::size_t>(t + 1) % 2]->get(mine, soon) == "v" + mine;
      }
    });
  for (std::thread& t : askers) t.join();
  CHECK(right == 400);
}

TEST_CASE("rank 0 may come last, and who is missing is named") {
  const Watchdog watchdog;
  const Endpoint at = fresh_name();
  std::unique_ptr<StoreClient> early;
  std::thread first(
      [&] { early = std::make_unique<StoreClient>(at, 1, options(4), NoticeHandler([](const Notice&) {}), soon); });
  std::this_thread::sleep_for(100ms);
  World world(options(4), at);
  first.join();
  world.join(0);
  CHECK(message_of<TimeoutError>([&] { world.ranks[0]->wait_for_all(50ms); }) ==
        "shardwise::rendezvous: not all 4 ranks joined at " + to_string(at) + " within 50 ms; missing: ranks 2, 3");
  world.join(3);
  CHECK(message_of<TimeoutError>([&] { early->wait_for_all(50ms); }).find("missing: rank 2") != std::string::npos);

  const Endpoint nowhere = fresh_name();
  const std::string said = message_of<TimeoutError>(
      [&] { StoreClient(nowhere, 3, options(4), NoticeHandler([](const Notice&) {}), 500ms); });
  CHECK(said.find("rank 3 did not find the store of rank 0 at " + to_string(nowhere) +
                  " within 500 ms; missing: rank 0 (Connection refused)") != std::string::npos);
}

TEST_CASE("a rank that announces a failure, and one that leaves, are known to all the others, latecomers too") {
  const Watchdog watchdog;
  World world(options(4));
  for (const std::size_t r : {0u, 1u, 2u}) world.join(r);
  world.ranks[2]->announce({FailureKind::mismatch, "ranks call different operations", 2});
  for (const std::size_t r : {0u, 1u}) {
    const Notice n = world.notices[r]->wait(NoticeKind::failed);
    CHECK(n.rank == 2);
    CHECK(n.failure.kind == FailureKind::mismatch);
    CHECK(n.failure.message == "ranks call different operations");
    CHECK(n.failure.found_by == 2);
  }
  world.ranks[1]->depart();
  CHECK(world.notices[0]->wait(NoticeKind::departed).rank == 1);
  world.join(3);
  CHECK(world.notices[3]->wait(NoticeKind::failed).rank == 2);
  CHECK(world.notices[3]->wait(NoticeKind::departed).rank == 1);
  // who asks now, or asks already, is told
  CHECK(message_of<MismatchError>([&] { world.ranks[3]->get("key", soon); }) == "ranks call different operations");
  CHECK(message_of<MismatchError>([&] { world.ranks[0]->set("key", "value"); }) == "ranks call different operations");
}

TEST_CASE("a killed rank is named to all, also to one that waits for a key of a living one") {
  const Watchdog watchdog;
  for (const Endpoint& at : {loopback(), fresh_name()}) {
    for (const bool with_child : {false, true}) {  // a child made by exec holds no connection of its parent's
      Listener listener = listen_at_endpoint(at.is_local() ? fresh_name() : at, false);
      const test::ForkedRanks child(1, idle_rank(listener.endpoint, 2, options(3), with_child));
      World world(options(3), std::move(listener));
      world.join(0);
      world.join(1);
      for (const std::size_t r : {0u, 1u}) world.ranks[r]->wait_for_all(soon);
      std::string said;
      std::thread waits([&] { said = message_of<PeerFailedError>([&] { world.ranks[1]->get("of rank 0", soon); }); });
      child.send(0, SIGKILL);
      const Notice n = world.notices[0]->wait(NoticeKind::died);
      CHECK(n.rank == 2);
      CHECK(n.failure.kind == FailureKind::peer);
      CHECK(n.failure.message == "rank 2 died: its process ended without a goodbye");
      waits.join();
      CHECK(said == "shardwise::rendezvous: rank 2 died: its process ended without a goodbye");
    }
  }
}

TEST_CASE("a rank that dies before all have joined ends the wait of the others") {
  const Watchdog watchdog;
  const Endpoint at = fresh_name();
  auto child = std::make_unique<test::ForkedRanks>(1, idle_rank(at, 2, options(3)));
  World world(options(3), at);
  world.join(0);
  const auto missing = [&] { return message_of<TimeoutError>([&] { world.ranks[0]->wait_for_all(10ms); }); };
  test::wait_until([&] { return missing().find("missing: rank 1") != std::string::npos; }, "rank 2 joins");
  std::string said;
  std::thread waits([&] { said = message_of<PeerFailedError>([&] { world.ranks[0]->wait_for_all(soon); }); });
  child.reset();
  waits.join();
  CHECK(said == "shardwise::rendezvous: rank 2 died: its process ended without a goodbye");
}

TEST_CASE("a stopped rank is no dead one, and does not hold up the others") {
  const Watchdog watchdog;
  const Endpoint at = fresh_name();
  const test::ForkedRanks child(1, idle_rank(at, 2, options(3)));
  World world(options(3), at);
  world.join(0);
  world.join(1).wait_for_all(soon);
  child.send(0, SIGSTOP);
  world.ranks[0]->set("key", "value");
  CHECK(world.ranks[1]->get("key", soon) == "value");
  const std::string said = message_of<TimeoutError>([&] { world.ranks[1]->get("of rank 2", 100ms); });
  CHECK(said.find("key 'of rank 2'") != std::string::npos);
  CHECK(world.notices[0]->count() == 0);
  child.send(0, SIGCONT);
}

TEST_CASE("the death of the store's process is known to every rank") {
  const Watchdog watchdog;
  const Endpoint at = fresh_name();
  const test::ForkedRanks holder(1, [&](int) {
    alarm(900);
    World world(options(3), at);
    world.join(0).set("ready", "yes");
    for (;;) pause();
  });
  Notices notices[2];
  StoreClient one(at, 1, options(3), notices[0].handler(), soon), two(at, 2, options(3), notices[1].handler(), soon);
  one.wait_for_all(soon);
  CHECK(one.get("ready", soon) == "yes");
  holder.send(0, SIGKILL);
  for (Notices& n : notices) {
    const Notice died = n.wait(NoticeKind::died);
    CHECK(died.rank == 0);
    CHECK(died.failure.message == "rank 0 died: its process ended, and the store with it");
  }
  const std::string said = message_of<PeerFailedError>([&] { two.get("key", soon); });
  CHECK(said == "shardwise::rendezvous: rank 0 died: its process ended, and the store with it");
  CHECK(message_of<PeerFailedError>([&] { one.set("key", "v"); }) == said);
  one.announce({FailureKind::peer, "late", 1});  // into a closed connection: no signal
  one.depart();
}

TEST_CASE("ranks that do not belong are refused with the reason, and the run goes on") {
  const Watchdog watchdog;
  CapturedErrors errors;
  World world(options(2, "secret"));
  world.join(1);
  const auto refused = [&](int rank, const StoreOptions& o) {
    return asked([&](std::chrono::milliseconds deadline) {
      StoreClient(world.at(), rank, o, NoticeHandler([](const Notice&) {}), deadline);
    });
  };
  const std::string at = to_string(world.at());
  CHECK(refused(1, options(2, "secret")).find("a rank 1 has joined before") != std::string::npos);
  CHECK(refused(0, options(3, "secret")) ==
        "shardwise: the store at " + at + " refused rank 0: it was started with 3 ranks, rank 0 with 2");
  CHECK(refused(0, options(5, "secret")).find("it was started with 5 ranks") != std::string::npos);
  CHECK(refused(0, options(2)).find("refused rank 0: its token is another one") != std::string::npos);
  CHECK(refused(0, options(2, "Secret")).find("its token is another one") != std::string::npos);
  CHECK(refused(0, options(2, "secret", "another")).find("another job's run holds this address") != std::string::npos);
  CHECK(refused(7, options(2, "secret")).find("refused rank 7") != std::string::npos);
  world.join_all();
  const std::string log = errors.restore();
  CHECK(log.find("secret") == std::string::npos);
  CHECK(log.find("Secret") == std::string::npos);
  CHECK(occurrences(log, "with no token or a wrong one") == 1);
  CHECK(occurrences(log, "of a rank with a world of") == 1);  // another text, but no other kind
}

TEST_CASE("strangers are refused and reported once a kind, and the run goes on") {
  const Watchdog watchdog;
  CapturedErrors errors;
  StoreOptions o = options(2, "secret");
  o.handshake = 300ms;
  const int descriptors = test::open_descriptors();
  World world(o);
  world.join(0);
  const auto says = [&](const std::string& bytes) {
    for (;;) {
      const Descriptor s = stranger(world.at());
      if (!send_all(s, bytes, test::stranger_end())) continue;  // its time was over before it came to that
      CHECK(is_closed(s));
      return;
    }
  };
  for (int i = 0; i < 3; ++i) {
    says(random_nonce() + std::string(4000, '\xff'));  // bytes that may be a long frame
    says(std::string(4, '\0'));  // and that are a short wrong one
    says(FrameWriter(Frame::get).number(1).words("key").done());  // asks before it has joined
    const Descriptor silent = stranger(world.at());
    CHECK(is_closed(silent));
    const Descriptor slow = stranger(world.at());
    CHECK_FALSE(writes_slowly(slow, hello_frame("secret", random_nonce(), {1, 2, random_nonce(), "run"}), 20ms));
  }
  // more at once than it keeps; 10,000 come in the test of whole worlds
  std::vector<Descriptor> crowd(300);
  const auto enough = [&] { return occurrences(errors.so_far(), "said nothing while many others came") > 0; };
  for (std::size_t i = 0; i < 2000 || (!enough() && i < 100000); ++i) crowd[i % crowd.size()] = stranger(world.at());
  world.join_all();
  world.ranks[1]->set("key", "value");
  CHECK(world.ranks[0]->get("key", soon) == "value");
  CHECK(test::open_descriptors() < descriptors + 300 + 300);  // ours, and 128 strangers of the server's at most
  crowd.clear();
  const std::string log = errors.restore();
  INFO(log);
  CHECK(occurrences(log, "something else than a rank does") == 1);
  CHECK(occurrences(log, "did not say in time") == 1);
  CHECK(occurrences(log, "said nothing while many others came") == 1);
  CHECK(occurrences(log, "\n") <= 4);
  CHECK(log.find("secret") == std::string::npos);
  CHECK(world.notices[0]->count() == 0);
}

TEST_CASE("a joined rank that sends nonsense is dead to the others, and they go on") {
  const Watchdog watchdog;
  World world(options(2));
  world.join(0);
  const Descriptor odd = stranger(world.at());
  std::string greeting;
  while (greeting.size() < greeting_size && wait_for(odd, POLLIN, test::stranger_end())) receive_some(odd, greeting);
  const std::string nonce = greeting.substr(store_magic.size());
  REQUIRE(send_all(odd, hello_frame("", nonce, {1, 2, random_nonce(), "run"}), test::stranger_end()));
  world.ranks[0]->wait_for_all(soon);
  REQUIRE(send_all(odd, "\xff\xff\xff\x7f", test::stranger_end()));
  const Notice n = world.notices[0]->wait(NoticeKind::died);
  CHECK(n.rank == 1);
  CHECK(n.failure.message == "rank 1 died: it sent what no rank sends");
}

TEST_CASE("what holds rank 0's place without knowing the token is no store to a rank") {
  const Watchdog watchdog;
  const Hello nobody;
  const std::string magic(store_magic);
  const std::string welcome = FrameWriter(Frame::welcome).words(view(join_code("guess", "store", "", nobody))).done();
  // columns: what the impostor sends, what the rank says of it
  const std::pair<std::string, const char*> impostors[] = {
      {magic + random_nonce() + welcome, "does not know the token"},
      {magic + random_nonce() + FrameWriter(Frame::welcome).words("").done(), "does not know the token"},
      {"HTTP/1.1 400 Bad Request: this is some server of another kind", "is no store of shardwise"},
      {magic + random_nonce() + "\xff\xff\xff\xff", "does not take it for a rank"}};
  for (const auto& [bytes, words] : impostors) {
    const Listener listener = listen_at_endpoint(fresh_name(), false);
    std::atomic<bool> over{false};
    std::thread impostor([&] {
      std::vector<Descriptor> held;
      while (!over) {
        if (!wait_for(listener.sockets[0], POLLIN, Clock::now() + 5ms)) continue;
        held.emplace_back(accept4(listener.sockets[0].get(), nullptr, nullptr, SOCK_CLOEXEC));
        send_all(held.back(), bytes, Clock::now() + soon);
      }
    });
    const std::string said = asked([&](std::chrono::milliseconds deadline) {
      StoreClient(listener.endpoint, 1, options(2, "secret"), NoticeHandler([](const Notice&) {}), deadline);
    });
    over = true;
    impostor.join();
    INFO(said);
    CHECK(said.find(words) != std::string::npos);
    CHECK(said.find(to_string(listener.endpoint)) != std::string::npos);
  }
}

TEST_CASE("the store's memory is bounded") {
  const Watchdog watchdog;
  StoreOptions o = options(2);
  o.most_bytes = 5u << 20;
  World world(o);
  world.join_all();
  const std::string large(KeyValueStore::largest_value, 'x');
  for (int i = 0; i < 50; ++i) world.ranks[0]->set("same", large);  // replaced, not kept
  CHECK(world.ranks[1]->get("same", soon) == large);
  const std::string said = message_of<PeerFailedError>([&] {
    for (int i = 0; i < 50; ++i) world.ranks[1]->set(std::to_string(i), large);
    world.ranks[1]->get("end", soon);
  });
  CHECK(said.find("rank 0 died") != std::string::npos);  // as seen by the one that is shut out
  CHECK(world.notices[0]->wait(NoticeKind::died).failure.message == "rank 1 died: it filled the store's memory");
}

TEST_CASE("a store that listens beyond the loopback wants a token") {
  Endpoint everywhere = loopback();
  everywhere.listen = "0.0.0.0";
  const std::string said = message_of<Error>([&] { listen_at_endpoint(everywhere, false); });
  CHECK(said.find("SHARDWISE_TOKEN") != std::string::npos);
  CHECK(listen_at_endpoint(everywhere, true).open_to_others);
  CHECK_FALSE(listen_at_endpoint(loopback(), false).open_to_others);
}

TEST_CASE("two stores at one address: the second says so, the first goes on") {
  const Watchdog watchdog;
  for (const Endpoint& at : {loopback(), fresh_name()}) {
    World world(options(2), at);
    const std::string said = message_of<Error>([&] { listen_at_endpoint(world.at(), false, 100ms); });
    INFO(said);
    CHECK(said.find("rank 0 cannot listen at " + to_string(world.at()) + ": Address already in use. Has another job") !=
          std::string::npos);
    world.join_all();
  }
}

TEST_CASE("a scan finds the store of its own run among others") {
  const Watchdog watchdog;
  // Behind each other: a stranger that says nothing, another run's store, one of another token, and ours.
  Endpoint range = loopback();
  std::optional<Listener> silent;
  std::unique_ptr<World> other, guarded, ours;
  for (int base = 21000 + getpid() % 5000; ours == nullptr; base += 16) {
    range.port = base;
    range.ports = 16;
    silent = listen_at_endpoint(range, false);
    other = std::make_unique<World>(options(2, "", "other run"), range);
    guarded = std::make_unique<World>(options(2, "token"), range);
    ours = std::make_unique<World>(options(2), range);
  }
  CHECK(silent->endpoint.port < other->at().port);
  CHECK(other->at().port < guarded->at().port);
  CHECK(guarded->at().port < ours->at().port);
  const StoreClient zero(range, 0, options(2), NoticeHandler([](const Notice&) {}), soon);
  CHECK(zero.endpoint().port == ours->at().port);
  const StoreClient third(range, 1, options(2, "token"), NoticeHandler([](const Notice&) {}), soon);
  CHECK(third.endpoint().port == guarded->at().port);
  const std::string said = message_of<TimeoutError>(
      [&] { StoreClient(range, 1, options(2, "", "no such run"), NoticeHandler([](const Notice&) {}), 500ms); });
  CHECK(said.find("missing: rank 0 (") != std::string::npos);
}

TEST_CASE("the end of a store leaves nothing behind, and its port is free at once") {
  const Watchdog watchdog;
  const int descriptors = test::open_descriptors(), kept = test::inheritable_descriptors(), before = threads();
  Endpoint at = loopback();
  for (int i = 0; i < 20; ++i) {
    World world(options(3), at);
    at = world.at();  // again and again the same
    world.join_all();
    CHECK_FALSE(world.server->wait_for_the_others(1ms));
    CHECK(test::inheritable_descriptors() == kept);
    world.ranks[0]->depart();
    CHECK_FALSE(world.server->wait_for_the_others(1ms));
    world.ranks[1]->depart();
    world.ranks[2].reset();  // without a goodbye: it counts as gone all the same
    CHECK(world.server->wait_for_the_others(soon));
    CHECK(world.notices[1]->count() >= 1);
  }
  CHECK(test::open_descriptors() == descriptors);
  test::wait_until([&] { return threads() == before; }, "the end of all threads");
}

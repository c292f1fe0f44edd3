// StoreClient: a rank's half of the store: one connection, and a thread that reads replies and notices from it. Its end without a
// goodbye is how the others learn of this rank's death, and this rank of rank 0's. Layer: backends/process.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/socket.hpp>
#include <shardwise/backends/process/store_options.hpp>
#include <shardwise/backends/process/store_protocol.hpp>

namespace shardwise::detail {

class StoreClient final : public KeyValueStore {
 public:
  // Comes again until rank 0 is there and lets this rank in. Throws: TimeoutError where it does not within `deadline`; Error where
  // the store refuses this rank: another token, run or size, or a rank that has joined already.
  StoreClient(const Endpoint& endpoint, int rank, StoreOptions options, NoticeHandler on_notice,
              std::chrono::milliseconds deadline)
      : rank_(rank), options_(std::move(options)), on_notice_(std::move(on_notice)), deadline_(deadline) {
    connect_with_patience(endpoint);
    const SignalsBlocked blocked;
    monitor_ = std::thread([this] { listen(); });
  }
  // Without depart() the others take this rank for dead.
  ~StoreClient() override {
    shutdown(socket_.get(), SHUT_RDWR);
    monitor_.join();
  }
  StoreClient(const StoreClient&) = delete;
  StoreClient& operator=(const StoreClient&) = delete;

  // Where the store was found.
  const Endpoint& endpoint() const { return endpoint_; }

  // Returns once all ranks have joined. Throws: TimeoutError that names those who have not.
  void wait_for_all(std::chrono::milliseconds deadline) { wait_for_all(Clock::now() + deadline, deadline); }
  // `deadline` is what the message calls it: joining took some of it already.
  void wait_for_all(TimePoint end, std::chrono::milliseconds deadline) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, end, [&] { return complete_ || failed(); });
      if (complete_) return;  // what failed after that is for the calls that follow
      throw_if_failed();
    }
    const std::string missing = ask(Frame::missing, "", std::chrono::seconds(1)).value_or("unknown");
    if (missing.empty()) return;  // the last has just come
    fail<TimeoutError>(text("shardwise::rendezvous: not all ", options_.size, " ranks joined at ", to_string(endpoint_),
                            " within ", deadline.count(), " ms; missing: ", missing));
  }

  void set(std::string_view key, std::string value) override {
    require_key(key);
    SHARDWISE_REQUIRE(value.size() <= largest_value, text("shardwise: the value of key '", key, "' has ", value.size(),
                                                          " bytes, the store takes ", largest_value));
    throw_if_failed_now();
    SHARDWISE_REQUIRE(send_frame(FrameWriter(Frame::set).words(key).words(value).done(), deadline_),
                      cannot_send(text("set '", key, "'")), TimeoutError);
  }

  std::string get(std::string_view key, std::chrono::milliseconds deadline) override {
    require_key(key);
    std::optional<std::string> value = ask(Frame::get, key, deadline);
    if (!value)
      fail<TimeoutError>(text("shardwise::rendezvous: rank ", rank_, " waited ", deadline.count(), " ms for key '", key,
                              "', which no rank has set", departed_text()));
    return *std::move(value);
  }

  // Tells every other rank. Never throws: who announces has trouble enough.
  void announce(const Failure& failure) noexcept {
    try {
      Failure sent = failure;
      if (sent.message.size() > largest_value) sent.message.resize(largest_value);
      send_frame(FrameWriter(Frame::failed).failure(sent).done(), std::chrono::seconds(2));
    } catch (...) {  // no memory, no lock: the connection's end tells them
    }
  }

  // What the others' notice of this rank's departure says. Beyond 64 KiB nothing is taken.
  void say_on_leaving(std::string_view words) {
    const std::lock_guard lock(mutex_);
    if (parting_words_.size() + words.size() <= std::size_t{1} << 16) parting_words_ += words;
  }
  // The normal end: the store's last use. Returns once the store knows, or is gone.
  void depart() noexcept {
    try {
      std::string words;
      {
        const std::lock_guard lock(mutex_);
        if (std::exchange(leaving_, true)) return;
        words = std::move(parting_words_);
      }
      send_frame(FrameWriter(Frame::depart).words(words).done(), std::chrono::seconds(2));
      shutdown(socket_.get(), SHUT_WR);
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, Clock::now() + std::chrono::seconds(2), [&] { return ended_; });
    } catch (...) {
    }
  }

 private:
  using Milliseconds = std::chrono::milliseconds;

  // ---- joining --------------------------------------------------------------------------------------------------
  enum class Attempt : std::uint8_t { joined, unreachable, refused };

  void connect_with_patience(const Endpoint& endpoint) {
    const TimePoint begin = Clock::now(), end = begin + deadline_;
    Milliseconds pause(2);
    // Among many ports a stranger that says nothing must not hold up the search for long; a busy store is asked again.
    Milliseconds patience = endpoint.ports == 1 ? options_.handshake : Milliseconds(200);
    for (;;) {
      for (int i = 0; i < endpoint.ports; ++i) {
        Endpoint at = endpoint;
        at.port += i;
        at.ports = 1;
        if (try_endpoint(at, end, patience) == Attempt::joined) {
          endpoint_ = at;
          return;
        }
      }
      // A refusal at the only place where the store can be is final, once a predecessor has had time to go.
      const TimePoint now = Clock::now();
      const bool only_place = endpoint.ports == 1 && !refusal_.empty();
      if (now >= end || (only_place && now >= begin + patience_with_predecessors)) give_up(endpoint);
      std::this_thread::sleep_for(std::min<Clock::duration>(pause, end - now));
      pause = std::min(pause * 2, Milliseconds(50));
      patience = std::min(patience * 2, options_.handshake);
    }
  }

  [[noreturn]] void give_up(const Endpoint& endpoint) const {
    if (!refusal_.empty() && endpoint.ports == 1) fail(refusal_);
    fail<TimeoutError>(text("shardwise::rendezvous: rank ", rank_, " did not find the store of rank 0 at ",
                            to_string(endpoint), " within ", deadline_.count(), " ms; missing: rank 0 (",
                            refusal_.empty() ? obstacle_ : refusal_, ")"));
  }

  Attempt try_endpoint(const Endpoint& at, TimePoint end, Milliseconds patience) {
    std::vector<SocketAddress> addresses;
    if (at.is_local()) {
      addresses.push_back(local_address(at));
    } else {
      Resolved found = resolve(at.host);
      if (found.addresses.empty()) obstacle_ = text("'", at.host, "': ", found.error);
      addresses = std::move(found.addresses);
    }
    Attempt last = Attempt::unreachable;
    for (SocketAddress& a : addresses) {
      a.set_port(at.port);
      Descriptor s = connect_to(a, std::min(end, Clock::now() + std::chrono::seconds(3)));
      if (!s) {
        obstacle_ = system_text();
        continue;
      }
      if (at.is_local() && !same_user(s)) {
        refusal_ = text("shardwise: ", to_string(at), " is held by another user");
        continue;
      }
      last = greet(s, at, std::min(end, Clock::now() + patience));
      if (last == Attempt::joined) {
        socket_ = std::move(s);
        return last;
      }
    }
    return last;
  }

  // Bytes until `enough` of them are there.
  template <class Enough>
  bool receive_until(const Descriptor& s, std::string& bytes, TimePoint end, Enough enough) {
    while (!enough()) {
      if (!wait_for(s, POLLIN, end)) {
        obstacle_ = "something listens there, but does not answer";
        return false;
      }
      if (receive_some(s, bytes) != SocketRead::more) {
        obstacle_ = "the connection was closed before rank 0's store let this rank in";
        return false;
      }
    }
    return true;
  }

  Attempt greet(const Descriptor& s, const Endpoint& at, TimePoint end) {
    std::string& bytes = in_.bytes();
    in_ = {};
    if (!receive_until(s, bytes, end, [&] { return bytes.size() >= greeting_size; })) return Attempt::unreachable;
    if (std::string_view(bytes).substr(0, store_magic.size()) != store_magic) {
      refusal_ = text("shardwise: what listens at ", to_string(at), " is no store of shardwise");
      return Attempt::refused;
    }
    const std::string nonce = bytes.substr(store_magic.size(), nonce_size);
    bytes.erase(0, greeting_size);
    const Hello hello{rank_, options_.size, random_nonce(), options_.run_id};
    std::optional<std::string_view> payload;
    const auto answered = [&] {
      payload = in_.next(largest_hello);
      return payload.has_value() || in_.too_large();
    };
    if (!send_all(s, hello_frame(options_.token, nonce, hello), end) || !receive_until(s, bytes, end, answered))
      return Attempt::unreachable;
    FrameReader answer(payload.value_or(""));
    if (answer.type() == Frame::welcome) {
      const std::string_view code = answer.words();
      if (answer.good() && equal_in_constant_time(code, view(join_code(options_.token, "store", nonce, hello))))
        return Attempt::joined;
      refusal_ = text("shardwise: what listens at ", to_string(at), " does not know the token");
      return Attempt::refused;
    }
    read_refusal(answer, at);
    return Attempt::refused;
  }

  void read_refusal(FrameReader& answer, const Endpoint& at) {
    const auto why = answer.type() == Frame::refused ? static_cast<Refusal>(answer.number()) : Refusal::not_a_rank;
    const std::uint64_t size = answer.number();
    const std::string who = text("shardwise: the store at ", to_string(at), " refused rank ", rank_, ": ");
    if (why == Refusal::token)
      refusal_ =
          who +
          "its token is another one. Set SHARDWISE_TOKEN, or SHARDWISE_TOKEN_FILE, alike on all ranks; or another "
          "job holds this address";
    else if (why == Refusal::other_run)
      refusal_ = who + "another job's run holds this address";
    else if (why == Refusal::size)
      fail(text(who, "it was started with ", options_.size, " ranks, rank 0 with ", size));
    else if (why == Refusal::duplicate)
      fail(
          text(who, "a rank ", rank_, " has joined before. Have two processes got one rank, or two jobs one address?"));
    else
      refusal_ = who + "it does not take it for a rank. Do all ranks run the same program?";
  }

  // ---- asking ---------------------------------------------------------------------------------------------------
  static void require_key(std::string_view key) {
    SHARDWISE_REQUIRE(!key.empty() && key.size() <= longest_key,
                      text("shardwise: a key of the store has 1 to ", longest_key, " bytes, not ", key.size()));
  }

  bool send_frame(const std::string& frame, Milliseconds limit) {
    const std::lock_guard lock(sending_);
    return send_all(socket_, frame, Clock::now() + limit);
  }

  // Where the store is gone, its monitor is about to say so: better than "broken pipe".
  std::string cannot_send(const std::string& what) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, Clock::now() + std::chrono::seconds(1), [&] { return failed(); });
    }
    throw_if_failed_now();
    return text("shardwise::rendezvous: rank ", rank_, " could not ", what, ": rank 0's store takes nothing");
  }

  // Nothing when the deadline passes.
  std::optional<std::string> ask(Frame type, std::string_view key, Milliseconds deadline) {
    const TimePoint end = Clock::now() + deadline;
    std::uint64_t request = 0;
    {
      const std::lock_guard lock(mutex_);
      throw_if_failed();
      replies_.emplace(request = ++requests_, std::nullopt);
    }
    FrameWriter frame(type);
    frame.number(request);
    if (type == Frame::get) frame.words(key);
    SHARDWISE_REQUIRE(send_frame(frame.done(), deadline), cannot_send(text("ask for '", key, "'")), TimeoutError);
    std::unique_lock lock(mutex_);
    std::optional<std::string>& reply = replies_.at(request);
    changed_.wait_until(lock, end, [&] { return reply.has_value() || failed(); });
    const std::optional<std::string> got = std::move(reply);
    replies_.erase(request);
    throw_if_failed();
    lock.unlock();
    if (!got) send_frame(FrameWriter(Frame::forget).number(request).done(), std::chrono::seconds(1));
    return got;
  }

  // With mutex_ held.
  bool failed() const { return failure_.kind != FailureKind::none; }
  void throw_if_failed() const {
    if (failed()) throw_failure(failure_, "rendezvous");
  }
  void throw_if_failed_now() {
    const std::lock_guard lock(mutex_);
    throw_if_failed();
  }

  std::string departed_text() {
    const std::lock_guard lock(mutex_);
    return departed_.empty() ? ""
                             : std::string(text("; ended before: ", departed_.size() == 1 ? "rank " : "ranks ",
                                                list_ranks(departed_)));
  }

  // ---- the monitor ----------------------------------------------------------------------------------------------
  void listen() {
    for (;;) {
      while (const auto payload = in_.next(largest_frame)) {
        FrameReader frame(*payload);
        take(frame);
      }
      if (in_.too_large()) return end("it sent what no store sends");
      wait_for(socket_, POLLIN, TimePoint::max());
      const SocketRead got = receive_some(socket_, in_.bytes());
      if (got == SocketRead::closed) return end("its process ended, and the store with it");
      if (got == SocketRead::failed)
        return end(errno == ECONNRESET ? "its process ended, and the store with it"
                                       : std::string(text("it cannot be reached any more: ", system_text())));
    }
  }

  void take(FrameReader& frame) {
    if (frame.type() == Frame::notice) {
      Notice notice{static_cast<NoticeKind>(frame.number()), static_cast<int>(frame.number()), frame.failure()};
      if (frame.good()) tell(notice);
      return;
    }
    const std::lock_guard lock(mutex_);
    if (frame.type() == Frame::complete) complete_ = true;
    if (frame.type() == Frame::value) {
      const auto waits = replies_.find(frame.number());
      if (waits != replies_.end()) waits->second = frame.words();
    }
    changed_.notify_all();
  }

  void tell(const Notice& notice) {
    {
      const std::lock_guard lock(mutex_);
      if (notice.kind == NoticeKind::departed) departed_.push_back(notice.rank);
      if (notice.kind != NoticeKind::departed && !failed()) failure_ = notice.failure;
      changed_.notify_all();
    }
    on_notice_(notice);
  }

  void end(const std::string& how) {
    bool expected = false;
    {
      const std::lock_guard lock(mutex_);
      expected = leaving_;
      ended_ = true;
      changed_.notify_all();
    }
    if (!expected) tell({NoticeKind::died, 0, {FailureKind::peer, text("rank 0 died: ", how), rank_}});
  }

  const int rank_;
  const StoreOptions options_;
  const NoticeHandler on_notice_;
  const Milliseconds deadline_;
  Endpoint endpoint_;
  Descriptor socket_;
  FrameBuffer in_;  // the constructor's, then the monitor's
  std::string refusal_;  // while joining: why a store said no
  std::string obstacle_;  // while joining: why there was none

  std::mutex sending_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::optional<std::string>> replies_;
  std::uint64_t requests_ = 0;
  std::vector<int> departed_;
  std::string parting_words_;
  Failure failure_;
  bool complete_ = false;
  bool leaving_ = false;
  bool ended_ = false;
  std::thread monitor_;
};

}  // namespace shardwise::detail

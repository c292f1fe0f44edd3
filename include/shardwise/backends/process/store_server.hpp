// StoreServer: rank 0's half of the store: lets the ranks of the run in, keeps their keys and values, and tells all of them when
// one fails, leaves or dies. Layer: backends/process.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/eventfd.h>

#include <shardwise/backends/process/socket.hpp>
#include <shardwise/backends/process/store_options.hpp>
#include <shardwise/backends/process/store_protocol.hpp>
#include <shardwise/backends/process/store_values.hpp>
#include <shardwise/base/warning.hpp>

namespace shardwise::detail {

class StoreServer {
 public:
  // Throws: Error where no thread can be had.
  StoreServer(Listener listener, StoreOptions options)
      : listener_(std::move(listener)), options_(std::move(options)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        ranks_(static_cast<std::size_t>(options_.size)), values_(options_.most_bytes) {
    SHARDWISE_REQUIRE(bool(wake_), text("shardwise: eventfd: ", system_text()));
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { run(); });
  }
  // All who are still connected see the store close.
  ~StoreServer() {
    eventfd_write(wake_.get(), 1);
    thread_.join();
  }
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;

  const Endpoint& endpoint() const { return listener_.endpoint; }

  // True once no rank but 0 is connected: all have departed or died.
  bool wait_for_the_others(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, Clock::now() + limit, [&] { return others_ == 0; });
  }

 private:
  enum class State : std::uint8_t { unborn, joined, departed, died };

  struct Rank {
    State state = State::unborn;
    Failure failure;  // of a rank that failed or died
    std::string parting_words;  // of one that departed
    bool failed = false;
  };

  struct Connection {
    Descriptor socket;
    TimePoint end{};  // of the handshake
    std::string nonce;
    int rank = -1;  // once it has joined
    FrameBuffer in;
    std::string out;
    bool closed = false;
  };

  using Waiter = StoreValues<Connection>::Waiter;

  // ---- the loop -------------------------------------------------------------------------------------------------
  void run() {
    for (;;) {
      polled_.clear();
      polled_.push_back({wake_.get(), POLLIN, 0});
      const bool accepts = Clock::now() >= accept_again_;
      for (const Descriptor& s : listener_.sockets)
        polled_.push_back({s.get(), static_cast<short>(accepts ? POLLIN : 0), 0});
      const std::size_t first = polled_.size(), count = connections_.size();
      for (const auto& c : connections_)
        polled_.push_back({c->socket.get(), static_cast<short>(c->out.empty() ? POLLIN : POLLIN | POLLOUT), 0});
      poll(polled_.data(), static_cast<nfds_t>(polled_.size()), timeout(accepts));
      if (polled_[0].revents != 0) return;
      for (std::size_t i = 0; i < count; ++i) {
        Connection& c = *connections_[i];
        if ((polled_[first + i].revents & POLLOUT) != 0) flush(c);
        if ((polled_[first + i].revents & ~POLLOUT) != 0 && !c.closed) read(c);
      }
      drop_the_slow();
      for (std::size_t i = 1; i < first; ++i)
        if (polled_[i].revents != 0) accept_all(listener_.sockets[i - 1]);
      forget_the_closed();
    }
  }

  int timeout(bool accepts) const {
    TimePoint end = TimePoint::max();
    for (const auto& c : connections_)
      if (c->rank < 0) end = std::min(end, c->end);
    if (!accepts) end = std::min(end, accept_again_);
    return end == TimePoint::max() ? -1 : milliseconds_until(end);
  }

  void accept_all(const Descriptor& listening) {
    for (int i = 0; i < 64; ++i) {  // then the ranks get their turn
      Descriptor s(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!s) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          drop_strangers(0);  // they hold what is missing; else a moment's patience instead of a spinning thread
          accept_again_ = Clock::now() + std::chrono::milliseconds(20);
        }
        return;
      }
      if (listener_.endpoint.is_local() && !same_user(s)) {
        log(Refusal::not_a_rank, "of another user");
        continue;
      }
      set_stream_options(s, listener_.endpoint.is_local() ? AF_UNIX : AF_INET);
      auto made = std::make_unique<Connection>();
      made->socket = std::move(s);
      made->end = Clock::now() + options_.handshake;
      made->nonce = random_nonce();
      send(*made, std::string(store_magic) + made->nonce);
      connections_.push_back(std::move(made));
      drop_strangers(std::max(options_.most_strangers, ranks_.size()));
    }
  }

  // The oldest go first: a rank needs a millisecond to join, and comes again where it was not let in.
  void drop_strangers(std::size_t most) {
    std::size_t strangers = 0;
    for (const auto& c : connections_) strangers += c->rank < 0 && !c->closed;
    for (const auto& c : connections_) {
      if (strangers <= most) return;
      if (c->rank >= 0 || c->closed) continue;
      log(Refusal::crowded, "that said nothing while many others came");
      close(*c);
      --strangers;
    }
  }

  void drop_the_slow() {
    const TimePoint now = Clock::now();
    for (const auto& c : connections_)
      if (c->rank < 0 && !c->closed && c->end <= now) {
        log(Refusal::slow, "that did not say in time who it is");
        close(*c);
      }
  }

  void forget_the_closed() {
    for (const auto& c : connections_)
      if (c->closed) values_.forget([&](const Waiter& w) { return w.connection == c.get(); });
    std::erase_if(connections_, [](const auto& c) { return c->closed; });
  }

  void close(Connection& c) {
    c.closed = true;
    c.socket.close();
  }

  // ---- bytes ----------------------------------------------------------------------------------------------------
  void send(Connection& c, std::string frame) {
    if (c.closed) return;
    c.out += frame;
    flush(c);
    if (!c.closed && c.out.size() > options_.most_bytes) lost(c, "it takes nothing from the store any more");
  }

  void flush(Connection& c) {
    while (!c.out.empty()) {
      const ssize_t n = ::send(c.socket.get(), c.out.data(), c.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) return;  // full, or broken: then reading says so
      c.out.erase(0, static_cast<std::size_t>(n));
    }
  }

  void read(Connection& c) {
    const SocketRead got = receive_some(c.socket, c.in.bytes());
    const int error = errno;
    for (;;) {
      const auto payload = c.in.next(c.rank < 0 ? largest_hello : largest_frame);
      if (!payload) break;
      FrameReader frame(*payload);
      if (!(c.rank < 0 ? greet(c, frame) : serve(c, frame))) return;
    }
    if (c.in.too_large())
      broken(c);
    else if (got == SocketRead::closed)
      lost(c, "its process ended without a goodbye");
    else if (got == SocketRead::failed)
      lost(c, error == ECONNRESET ? "its process ended without a goodbye"
                                  : std::string(text("it cannot be reached any more: ", std::strerror(error))));
  }

  // ---- who comes in ---------------------------------------------------------------------------------------------
  // False: the connection is closed.
  bool greet(Connection& c, FrameReader& frame) {
    Hello h;
    h.rank = static_cast<int>(frame.number());
    h.size = static_cast<int>(frame.number());
    h.nonce = frame.words();
    h.run_id = frame.words();
    const std::string_view code = frame.words();
    if (frame.type() != Frame::hello || !frame.good())
      return refuse(c, Refusal::not_a_rank, "that sent something else than a rank does");
    if (!equal_in_constant_time(code, view(join_code(options_.token, "rank", c.nonce, h))))
      return refuse(c, Refusal::token, "with no token or a wrong one");
    if (h.run_id != options_.run_id) return refuse(c, Refusal::other_run, "of another run");
    if (h.size != options_.size) {
      misfit_ = text("rank ", h.rank, " came with a world of ", h.size, " and was refused");
      return refuse(c, Refusal::size, text("of a rank with a world of ", h.size));
    }
    if (h.rank < 0 || h.rank >= options_.size) return refuse(c, Refusal::rank, text("of rank ", h.rank));
    if (rank(h.rank).state != State::unborn) return refuse(c, Refusal::duplicate, text("of a second rank ", h.rank));
    admit(c, h);
    return !c.closed;
  }

  bool refuse(Connection& c, Refusal why, const std::string& who) {
    log(why, who);
    send(c, FrameWriter(Frame::refused).number(static_cast<std::uint64_t>(why)).number(ranks_.size()).done());
    shutdown(c.socket.get(), SHUT_WR);
    close(c);
    return false;
  }

  void admit(Connection& c, const Hello& h) {
    c.rank = h.rank;
    rank(h.rank).state = State::joined;
    ++joined_;
    count_others();
    send(c, FrameWriter(Frame::welcome).words(view(join_code(options_.token, "store", c.nonce, h))).done());
    for (std::size_t r = 0; r < ranks_.size(); ++r) {  // what it has missed
      if (ranks_[r].failed || ranks_[r].state == State::died) send(c, notice(static_cast<int>(r), true));
      if (ranks_[r].state == State::departed) send(c, notice(static_cast<int>(r), false));
    }
    if (joined_ == options_.size) send_to_all(FrameWriter(Frame::complete).done(), -1);
  }

  // Each kind once: a flood of strangers is no flood of lines.
  void log(Refusal why, std::string_view who) {
    const unsigned bit = 1u << static_cast<unsigned>(why);
    if ((logged_ & bit) != 0) return;
    logged_ |= bit;
    warn(std::string(text("the store at ", to_string(listener_.endpoint), " refused a connection ", who,
                          "; further ones are not reported")));
  }

  // ---- what ranks ask -------------------------------------------------------------------------------------------
  bool serve(Connection& c, FrameReader& frame) {
    switch (frame.type()) {
      case Frame::set: {
        const std::string_view key = frame.words(), value = frame.words();
        return frame.good() ? set(c, key, value) : broken(c);
      }
      case Frame::get: {
        const std::uint64_t request = frame.number();
        const std::string_view key = frame.words();
        return frame.good() ? get(c, request, key) : broken(c);
      }
      case Frame::forget: {
        const std::uint64_t request = frame.number();
        values_.forget([&](const Waiter& w) { return w.connection == &c && w.request == request; });
        return frame.good() || broken(c);
      }
      case Frame::missing: {
        const std::uint64_t request = frame.number();
        send(c, FrameWriter(Frame::value).number(request).words(missing()).done());
        return !c.closed && (frame.good() || broken(c));
      }
      case Frame::failed: {
        Failure failure = frame.failure();
        if (!frame.good()) return broken(c);
        Rank& r = rank(c.rank);
        if (r.failed) return true;
        r.failed = true;
        r.failure = std::move(failure);
        tell(c.rank, true);
        return true;
      }
      case Frame::depart: {
        const std::string_view words = frame.words();
        return frame.good() ? depart(c, words) : broken(c);
      }
      default: return broken(c);
    }
  }

  bool set(Connection& c, std::string_view key, std::string_view value) {
    if (!values_.set(key, value)) return lost(c, "it filled the store's memory");
    for (const Waiter& w : values_.take_waiters(key))
      send(*w.connection, FrameWriter(Frame::value).number(w.request).words(value).done());
    return !c.closed;
  }

  bool get(Connection& c, std::uint64_t request, std::string_view key) {
    if (const std::string* const value = values_.find(key))
      send(c, FrameWriter(Frame::value).number(request).words(*value).done());
    else
      values_.wait(key, {&c, request});
    return !c.closed;
  }

  std::string missing() const {
    std::vector<int> ranks;
    for (std::size_t r = 0; r < ranks_.size(); ++r)
      if (ranks_[r].state == State::unborn) ranks.push_back(static_cast<int>(r));
    if (ranks.empty()) return "";
    return text(ranks.size() == 1 ? "rank " : "ranks ", list_ranks(ranks), misfit_.empty() ? "" : "; ", misfit_);
  }

  // ---- who goes -------------------------------------------------------------------------------------------------
  bool depart(Connection& c, std::string_view words) {
    rank(c.rank).state = State::departed;
    rank(c.rank).parting_words = words;
    close(c);
    count_others();
    tell(c.rank, false);
    return false;
  }

  bool broken(Connection& c) {
    if (c.rank >= 0) return lost(c, "it sent what no rank sends");
    return refuse(c, Refusal::not_a_rank, "that sent something else than a rank does");
  }

  bool lost(Connection& c, const std::string& how) {
    close(c);
    if (c.rank < 0) {
      log(Refusal::not_a_rank, "that ended before it said who it is");
      return false;
    }
    Rank& r = rank(c.rank);
    r.state = State::died;
    if (!r.failed) r.failure = {FailureKind::peer, text("rank ", c.rank, " died: ", how), 0};
    count_others();
    tell(c.rank, true);
    return false;
  }

  void count_others() {
    int others = 0;
    for (std::size_t r = 1; r < ranks_.size(); ++r) others += ranks_[r].state == State::joined;
    const std::lock_guard lock(mutex_);
    others_ = others;
    changed_.notify_all();
  }

  std::string notice(int about, bool with_failure) {
    const Rank& r = rank(about);
    const NoticeKind kind = !with_failure            ? NoticeKind::departed
                            : r.state == State::died ? NoticeKind::died
                                                     : NoticeKind::failed;
    return FrameWriter(Frame::notice)
        .number(static_cast<std::uint64_t>(kind))
        .number(static_cast<std::uint64_t>(about))
        .failure(with_failure ? r.failure : Failure{FailureKind::none, r.parting_words})
        .done();
  }

  void tell(int about, bool with_failure) { send_to_all(notice(about, with_failure), about); }

  void send_to_all(const std::string& frame, int but) {
    for (std::size_t i = 0; i < connections_.size(); ++i)  // by index: one that is lost on the way tells others itself
      if (connections_[i]->rank >= 0 && connections_[i]->rank != but) send(*connections_[i], frame);
  }

  Rank& rank(int r) { return ranks_[static_cast<std::size_t>(r)]; }

  const Listener listener_;
  const StoreOptions options_;
  const Descriptor wake_;

  // The thread's own.
  std::vector<pollfd> polled_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<Rank> ranks_;
  int joined_ = 0;
  std::string misfit_;
  StoreValues<Connection> values_;
  unsigned logged_ = 0;
  TimePoint accept_again_{};

  std::mutex mutex_;
  std::condition_variable changed_;
  int others_ = 0;  // ranks but 0 that are connected
  std::thread thread_;
};

}  // namespace shardwise::detail

// Rendezvous: how the processes of one run find each other, and the store that they then share. Layer: backends/process.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <shardwise/backends/process/environment.hpp>
#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/store.hpp>

namespace shardwise::detail {

// One a process. Rank 0's holds the store's server too.
class Rendezvous final : public KeyValueStore {
 public:
  // Of options.size ranks. Returns once all have joined, within `deadline`. `on_notice` may be called before that, on another
  // thread. Throws: TimeoutError that names who is missing, which the others get too; PeerFailedError where a rank dies meanwhile;
  // Error where this rank does not belong here, the address is taken, or nothing says where to meet: `no_endpoint` is what to do.
  Rendezvous(int rank, Endpoint at, const StoreOptions& options, NoticeHandler on_notice,
             std::chrono::milliseconds deadline, const std::string& no_endpoint = "nothing says where the ranks meet")
      : rank_(rank), size_(options.size), deadline_(deadline) {
    const TimePoint end = Clock::now() + deadline;
    if (at.empty() && size_ == 1) at.local = text("alone-", random_letters());
    SHARDWISE_REQUIRE(!at.empty(), text("shardwise: ", no_endpoint));
    if (rank_ == 0) {
      Listener listener = listen_at_endpoint(at, !options.token.empty());
      at = listener.endpoint;
      server_ = std::make_unique<StoreServer>(std::move(listener), options);
      if (!at.listen.empty()) at.host = at.listen;  // the others' name for it may mean nothing here
    }
    client_ = std::make_unique<StoreClient>(at, rank_, options, std::move(on_notice), deadline);
    join(end);
  }
  Rendezvous(const LaunchEnvironment& environment, NoticeHandler on_notice, std::chrono::milliseconds deadline)
      : Rendezvous(environment.rank, environment.endpoint, options_of(environment), std::move(on_notice), deadline,
                   environment.no_endpoint) {}
  // Without close() this rank has died in the eyes of the others.
  ~Rendezvous() override = default;

  int rank() const { return rank_; }
  int size() const { return size_; }

  void set(std::string_view key, std::string value) override { client_->set(key, std::move(value)); }
  std::string get(std::string_view key, std::chrono::milliseconds deadline) override {
    return client_->get(key, deadline);
  }
  // Tells every other rank.
  void announce(const Failure& failure) noexcept { client_->announce(failure); }

  // For the others, when this rank closes.
  void say_on_leaving(std::string_view words) { client_->say_on_leaving(words); }

  // The normal end of this rank. Rank 0's keeps the store until all others have departed or died, at most for `limit`.
  void close(std::chrono::milliseconds limit) noexcept {
    client_->depart();
    if (server_ != nullptr) server_->wait_for_the_others(limit);
    server_.reset();
  }
  void close() noexcept { close(deadline_); }

 private:
  static StoreOptions options_of(const LaunchEnvironment& environment) {
    StoreOptions options;
    options.size = environment.size;
    options.run_id = environment.run_id;
    options.token = environment.token;
    return options;
  }

  void join(TimePoint end) {
    try {
      client_->wait_for_all(end, deadline_);
    } catch (const TimeoutError& e) {
      client_->announce({FailureKind::timeout, e.what(), rank_});
      close(std::chrono::seconds(1));
      throw;
    }
  }

  const int rank_;
  const int size_;
  const std::chrono::milliseconds deadline_;
  std::unique_ptr<StoreServer> server_;  // outlives the client
  std::unique_ptr<StoreClient> client_;
};

}  // namespace shardwise::detail

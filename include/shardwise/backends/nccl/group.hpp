// NcclGroup: the part of a NCCL communicator that knows no element types. Calls are put on a stream and wait for nothing; what fails
// is found by polling, ends the communicator on this rank and is thrown by every later call. Layer: backends/nccl.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <nccl.h>

#include <shardwise/backends/nccl/meetings.hpp>
#include <shardwise/backends/process/departure.hpp>
#include <shardwise/backends/process/failure_board.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/error.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>
#include <shardwise/comm/failure.hpp>
#include <shardwise/comm/stream_communicator.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/memory.hpp>

namespace shardwise::detail {

// An element type as NCCL has it: complex numbers are twice as many real ones.
struct NcclType {
  ncclDataType_t type;
  std::size_t each;
};
inline NcclType nccl_type(DType dtype) {
  switch (dtype) {
    case DType::float32: return {ncclFloat32, 1};
    case DType::float64: return {ncclFloat64, 1};
    case DType::complex64: return {ncclFloat32, 2};
    case DType::complex128: return {ncclFloat64, 2};
    case DType::bfloat16: return {ncclBfloat16, 1};
    case DType::float16: return {ncclFloat16, 1};
    case DType::int32: return {ncclInt32, 1};
    case DType::int64: return {ncclInt64, 1};
    case DType::uint8: break;
  }
  return {ncclUint8, 1};
}

// What NCCL reduces as the other backends do. It would multiply the parts of complex numbers, and an average of bytes would wrap.
inline std::optional<ncclRedOp_t> nccl_op(DType dtype, ReduceOp op) {
  const bool complex = dtype == DType::complex64 || dtype == DType::complex128;
  const bool whole = dtype == DType::int32 || dtype == DType::int64 || dtype == DType::uint8;
  switch (op) {
    case ReduceOp::sum: return ncclSum;
    case ReduceOp::max: return ncclMax;
    case ReduceOp::min: return ncclMin;
    case ReduceOp::avg: return whole ? std::nullopt : std::optional(ncclAvg);
    case ReduceOp::product: break;
  }
  return complex ? std::nullopt : std::optional(ncclProd);
}

// A part of a buffer for one rank, or from one.
struct NcclPieces {
  std::byte* data;
  std::span<const std::int64_t> counts;  // elements for each rank
  bool same = false;  // one piece for everybody; else one behind the other
};

class NcclGroup;

// The communicators of a world: one failure ends them all.
struct NcclWorld final : FailureListener, DepartureListener {
  std::mutex mutex;
  Failure failure;
  std::mutex groups_mutex;  // held while one is ended by another thread than its own
  std::vector<NcclGroup*> groups;
  // Of the ranks' processes, if any. Not kept here: a thread of theirs may be the last to let go of this.
  FailureBoard* failures = nullptr;
  DepartureBoard* departures = nullptr;
  int rank = -1;  // of this process

  void found(const Failure& first) noexcept override;
  void departed(int leaver, std::string_view words) noexcept override;
  void left_early(int leaver) {
    const Failure early{FailureKind::peer, text("rank ", leaver, " left early: its program has ended"), rank};
    failures != nullptr ? failures->fail(early) : found(early);
  }
};

class NcclGroup {
 public:
  // Ranks: all, each with its own device current. `launched`: where the failures of the ranks' processes are known, if anywhere.
  static std::shared_ptr<NcclGroup> make(const ncclUniqueId& unique, int size, int rank,
                                         std::chrono::milliseconds deadline,
                                         std::shared_ptr<NcclWorld> world = std::make_shared<NcclWorld>(),
                                         std::shared_ptr<FailureBoard> launched = nullptr) {
    SHARDWISE_REQUIRE(
        cuda::is_available(),
        "shardwise::NcclCommunicator: there is no CUDA device here (or its driver is older than the toolkit)");
    require_rank("NcclCommunicator", rank, size);
    auto group =
        std::shared_ptr<NcclGroup>(new NcclGroup(std::move(world), std::move(launched), rank, cuda::current_device()));
    group->rank_ = rank;
    group->size_ = size;
    group->id_ = 0xcbf29ce484222325u;
    for (const char c : unique.internal) group->id_ = (group->id_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    open_device_pools(group->device_);
    const Caller caller{rank, Name(), deadline, "NcclCommunicator"};
    const CallInfo call;
    ncclConfig_t config = non_blocking();
    const ncclResult_t begun =
        group->locked([&] { return ncclCommInitRankConfig(&group->comm_, size, unique, rank, &config); });
    group->settle(caller, call, begun, "ncclCommInitRankConfig");
    group->meetings_.begin(size);
    return group;
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  // What is under way is given up after a failure; else NCCL waits for it.
  ~NcclGroup() {
    {
      const std::lock_guard lock(world_->groups_mutex);
      std::erase(world_->groups, this);
    }
    if (comm_ == nullptr) return;
    if (has_failed()) {
      static_cast<void>(ncclCommAbort(comm_));
      return;
    }
    ncclResult_t state = ncclCommFinalize(comm_);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (state == ncclInProgress && !has_failed() && std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
      if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) break;
    }
    static_cast<void>(state == ncclSuccess ? ncclCommDestroy(comm_) : ncclCommAbort(comm_));
    if (state == ncclSuccess && world_->departures != nullptr)
      world_->departures->say_on_leaving(meetings_.words(id_, rank_));
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  int device() const { return device_; }
  std::uint64_t id() const { return id_; }
  cuda::StreamView stream() const { return cuda::current_stream(device_); }

  // ---- collectives, in the order of the current stream ----------------------------------------------------------------------------

  void all_gather(const Caller& caller, const CallInfo& call, const void* in, void* out, std::int64_t n) {
    run(
        caller, call, [&] { return ncclAllGather(in, out, items(call, n), type(call), comm_, stream().handle); },
        "ncclAllGather");
  }
  void all_reduce(const Caller& caller, const CallInfo& call, const void* in, void* out, std::int64_t n,
                  ncclRedOp_t op) {
    run(
        caller, call, [&] { return ncclAllReduce(in, out, items(call, n), type(call), op, comm_, stream().handle); },
        "ncclAllReduce");
  }
  void reduce_scatter(const Caller& caller, const CallInfo& call, const void* in, void* out, std::int64_t n,
                      ncclRedOp_t op) {
    run(
        caller, call,
        [&] { return ncclReduceScatter(in, out, items(call, n), type(call), op, comm_, stream().handle); },
        "ncclReduceScatter");
  }
  void broadcast(const Caller& caller, const CallInfo& call, void* data, std::int64_t n, int root) {
    run(
        caller, call,
        [&] { return ncclBroadcast(data, data, items(call, n), type(call), root, comm_, stream().handle); },
        "ncclBroadcast");
  }
  void send(const Caller& caller, const CallInfo& call, const void* data, std::int64_t n, int peer) {
    run(
        caller, call,
        [&] {
          meetings_.with(peer);
          return ncclSend(data, items(call, n), type(call), peer, comm_, stream().handle);
        },
        "ncclSend", false);
  }
  void recv(const Caller& caller, const CallInfo& call, void* data, std::int64_t n, int peer) {
    run(
        caller, call,
        [&] {
          meetings_.with(peer);
          return ncclRecv(data, items(call, n), type(call), peer, comm_, stream().handle);
        },
        "ncclRecv", false);
  }

  // One group of messages; those of one rank to another one arrive in order.
  void exchange(const Caller& caller, const CallInfo& call, std::span<const StreamMessage> sends,
                std::span<const StreamMessage> receives) {
    run(
        caller, call,
        [&] {
          ncclResult_t first = ncclGroupStart();
          const auto keep = [&](ncclResult_t result) {
            if (first == ncclSuccess && result != ncclInProgress) first = result;
          };
          const cudaStream_t on = stream().handle;
          for (const StreamMessage& m : sends) {
            meetings_.with(m.rank);
            keep(ncclSend(m.data, items(call, m.elements), type(call), m.rank, comm_, on));
          }
          for (const StreamMessage& m : receives) {
            meetings_.with(m.rank);
            keep(ncclRecv(m.data, items(call, m.elements), type(call), m.rank, comm_, on));
          }
          const ncclResult_t end = ncclGroupEnd();
          return first != ncclSuccess ? first : end;
        },
        "ncclSend and ncclRecv", false);
  }
  // Sends the pieces of `from` and fills those of `to`, as one group of messages; empty ones are not sent, this rank's own is copied.
  // `from.counts` empty: nothing is sent.
  void exchange(const Caller& caller, const CallInfo& call, const NcclPieces& from, const NcclPieces& to) {
    const auto width = static_cast<std::int64_t>(size_of(call.dtype));
    StreamMessage own[2] = {};
    const auto messages = [&](const NcclPieces& pieces, StreamMessage& mine) {
      List<StreamMessage> list;
      list.reserve(pieces.counts.size());
      std::byte* at = pieces.data;
      for (int r = 0; r < static_cast<int>(pieces.counts.size()); ++r) {
        const std::int64_t n = pieces.counts[static_cast<std::size_t>(r)];
        if (r == rank_)
          mine = {r, at, n};
        else if (n > 0)
          list.push_back({r, at, n});
        if (!pieces.same) at += n * width;
      }
      return list;
    };
    const List<StreamMessage> sends = messages(from, own[0]), receives = messages(to, own[1]);
    exchange(caller, call, {sends.data(), sends.size()}, {receives.data(), receives.size()});
    if (own[0].elements > 0 && own[0].data != own[1].data)
      SHARDWISE_CUDA(cudaMemcpyAsync(own[1].data, own[0].data, static_cast<std::size_t>(own[0].elements * width),
                                     cudaMemcpyDeviceToDevice, stream().handle));
  }

  // Every rank's part of the reduction, in rank order: each rank gets the terms of its part and adds them up.
  void reduce_in_order(const Caller& caller, const CallInfo& call, const void* in, std::span<const std::int64_t> counts,
                       void* out) {
    const std::int64_t mine = counts[static_cast<std::size_t>(rank_)];
    const std::size_t bytes = static_cast<std::size_t>(mine) * size_of(call.dtype);
    const std::vector<std::int64_t> alike(static_cast<std::size_t>(size_), mine);
    const Buffer terms = device_buffer(bytes * static_cast<std::size_t>(size_), stream());
    exchange(caller, call, {static_cast<std::byte*>(const_cast<void*>(in)), counts}, {terms.data(), alike});
    std::vector<const void*> each(static_cast<std::size_t>(size_));
    for (int r = 0; r < size_; ++r)
      each[static_cast<std::size_t>(r)] = terms.data() + bytes * static_cast<std::size_t>(r);
    if (mine > 0) device::reduce_terms(call.dtype, out, each.data(), size_, mine, call.op, stream());
  }

  // ---- waiting, splitting, failing ------------------------------------------------------------------------------------------------

  // Returns when everything on the current stream is done. Throws what was found meanwhile, TimeoutError after the deadline.
  void synchronize(const Caller& caller, const CallInfo& call) {
    const auto end = std::chrono::steady_clock::now() + caller.deadline;
    while (!stream().query()) {
      check(caller, call);
      if (std::chrono::steady_clock::now() >= end) time_out(caller, call);
      std::this_thread::yield();
    }
    check(caller, call);
  }

  // Null for a negative color.
  std::shared_ptr<NcclGroup> split(const Caller& caller, int color, int key) {
    CallInfo call;
    call.collective = Collective::split;
    auto part = std::shared_ptr<NcclGroup>(new NcclGroup(world_, launched_, world_rank_, device_));
    ncclConfig_t config = non_blocking();
    const std::uint64_t number = ++splits_;
    run(
        caller, call,
        [&] { return ncclCommSplit(comm_, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &part->comm_, &config); },
        "ncclCommSplit");
    if (part->comm_ == nullptr) return nullptr;
    part->settle(caller, call, ncclInProgress, "ncclCommSplit");
    const ncclResult_t asked = part->locked([&] {
      const ncclResult_t got = ncclCommUserRank(part->comm_, &part->rank_);
      return got == ncclSuccess ? ncclCommCount(part->comm_, &part->size_) : got;
    });
    part->settle(caller, call, asked, "ncclCommCount");
    part->meetings_.begin(part->size_);
    part->id_ = (id_ ^ (number << 32) ^ static_cast<std::uint64_t>(color)) * 0x100000001b3u;
    return part;
  }

  void abort(const std::string& reason) {
    fail({FailureKind::peer, text(who(), " aborted: ", reason), world_rank_});
    give_up();
  }
  // A rank of the world has left in peace, with these words. True where this rank waits for it. Any thread may call.
  bool has_left(int world_rank, std::string_view words) {
    const std::lock_guard lock(comm_mutex_);
    meetings_.left(world_rank, id_, words);
    return meetings_.missed(rank_) >= 0;
  }
  // Kernels that wait for others end, so that the stream goes on. Any thread may call.
  void give_up() {
    const std::lock_guard lock(comm_mutex_);
    if (comm_ != nullptr) static_cast<void>(ncclCommAbort(std::exchange(comm_, nullptr)));
  }

 private:
  NcclGroup(std::shared_ptr<NcclWorld> world, std::shared_ptr<FailureBoard> launched, int world_rank, int device)
      : world_(std::move(world)), launched_(std::move(launched)), world_rank_(world_rank), device_(device) {
    const std::lock_guard lock(world_->groups_mutex);
    world_->groups.push_back(this);
  }
  std::string who() const { return rank_text(rank_, world_rank_, rank_ == world_rank_); }

  static ncclConfig_t non_blocking() {  // a blocking communicator may hang inside a call, where nobody can abort it
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return config;
  }
  static std::size_t items(const CallInfo& call, std::int64_t n) {
    return static_cast<std::size_t>(n) * nccl_type(call.dtype).each;
  }
  static ncclDataType_t type(const CallInfo& call) { return nccl_type(call.dtype).type; }

  // `all`: every rank takes part; else `start` counts whom it meets.
  template <class Call>
  void run(const Caller& caller, const CallInfo& call, Call&& start, const char* name, bool all = true) {
    check(caller, call);
    const cuda::DeviceScope scope(device_);
    int gone = -1;
    const ncclResult_t begun = locked([&] {
      if (all) meetings_.with_all();
      const ncclResult_t result = start();
      gone = meetings_.missed(rank_);
      return result;
    });
    if (gone >= 0) {
      world_->left_early(gone);
      end(caller, call);
    }
    settle(caller, call, begun, name);
  }
  // One thread at a time: the one that ends the communicator may be another. An error where it has ended it.
  template <class Call>
  ncclResult_t locked(Call&& call) {
    const std::lock_guard lock(comm_mutex_);
    return has_failed() ? ncclRemoteError : call();
  }
  ncclResult_t state() {
    return locked([&] {
      ncclResult_t found = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(comm_, &found);
      return asked == ncclSuccess ? found : asked;
    });
  }

  // Until the call has been taken over, which happens in the background.
  void settle(const Caller& caller, const CallInfo& call, ncclResult_t result, const char* name) {
    const auto end = std::chrono::steady_clock::now() + caller.deadline;
    while (result == ncclInProgress) {
      result = state();
      if (result != ncclInProgress) break;
      if (std::chrono::steady_clock::now() >= end) time_out(caller, call);
      std::this_thread::yield();
    }
    if (result == ncclSuccess) return;
    if (result == ncclInvalidArgument || result == ncclInvalidUsage)  // this rank's mistake; the communicator may go on
      detail::fail<CommError>(text("shardwise::", operation_text(call, caller), ": ", name, ": ",
                                   ncclGetErrorString(result), " (", last_words(), ")"));
    broken(caller, call, result, name);
  }
  // Throws what has gone wrong so far.
  void check(const Caller& caller, const CallInfo& call) {
    const ncclResult_t now = state();
    if (now != ncclSuccess && now != ncclInProgress) broken(caller, call, now, "NCCL");
  }
  [[noreturn, gnu::cold]] void broken(const Caller& caller, const CallInfo& call, ncclResult_t result,
                                      const char* name) {
    // What NCCL notices of a rank that died is less than what its process is known to have ended by.
    if (!has_failed() && (launched_ == nullptr || !launched_->await_cause(-1)))
      fail({FailureKind::peer, text(who(), ": ", name, ": ", ncclGetErrorString(result), " (", last_words(), ")"),
            world_rank_});
    end(caller, call);
  }
  [[noreturn, gnu::cold]] void time_out(const Caller& caller, const CallInfo& call) {
    fail({FailureKind::timeout,
          timeout_text(caller, call, who(), "one or more of the others (NCCL does not say which)"), world_rank_});
    end(caller, call);
  }
  [[noreturn, gnu::cold]] void end(const Caller& caller, const CallInfo& call) {
    give_up();
    if (!has_failed()) fail(launched_->failure());
    std::unique_lock lock(world_->mutex);
    const Failure failure = world_->failure;
    lock.unlock();
    throw_failure(failure, operation_text(call, caller));
  }
  std::string last_words() {
    const std::lock_guard lock(comm_mutex_);
    return comm_ != nullptr ? ncclGetLastError(comm_) : "";
  }

  bool has_failed() {
    const std::lock_guard lock(world_->mutex);
    return world_->failure.kind != FailureKind::none;
  }
  void fail(const Failure& failure) {  // the first one stands
    if (launched_ != nullptr) launched_->fail(failure);
    const std::lock_guard lock(world_->mutex);
    if (world_->failure.kind == FailureKind::none)
      world_->failure = launched_ != nullptr ? launched_->failure() : failure;
  }

  std::shared_ptr<NcclWorld> world_;
  std::shared_ptr<FailureBoard> launched_;
  std::mutex comm_mutex_;
  ncclComm_t comm_ = nullptr;
  int world_rank_;
  int device_;
  int rank_ = 0;
  int size_ = 1;
  std::uint64_t id_ = 0;
  std::uint64_t splits_ = 0;
  Meetings meetings_;
};

// On the thread that learns of it, while the rank's own may wait for the device.
inline void NcclWorld::found(const Failure& first) noexcept {
  {
    const std::lock_guard lock(mutex);
    if (failure.kind == FailureKind::none) failure = first;
  }
  const std::lock_guard lock(groups_mutex);
  for (NcclGroup* const group : groups) group->give_up();
}

inline void NcclWorld::departed(int leaver, std::string_view words) noexcept {
  bool missed = false;
  {
    const std::lock_guard lock(groups_mutex);
    for (NcclGroup* const group : groups) missed = group->has_left(leaver, words) || missed;
  }
  if (missed) left_early(leaver);
}

}  // namespace shardwise::detail

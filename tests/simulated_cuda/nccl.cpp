// The functions of NCCL that the library calls, between the threads of one process. A collective is a task on each rank's stream; the
// last one to come moves the data of all. Calls return before they are done, as those of a non-blocking communicator may.
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include <shardwise/comm/reduce.hpp>

#include "simulated_cuda/control.hpp"
#include "simulated_cuda/nccl_group.hpp"

using namespace simulated_cuda;

namespace {

using shardwise::DType;
using shardwise::ReduceOp;
using Clock = std::chrono::steady_clock;

}  // namespace

struct ncclComm {
  std::shared_ptr<Group> group;
  int rank;
  std::uint64_t calls = 0;
  std::uint64_t collectives = 0;
  std::uint64_t splits = 0;
  std::atomic<bool> busy{false};  // something is going on in the background
  std::atomic<std::int64_t> busy_until{0};
};

namespace {

std::size_t size_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8: return 1;
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclFloat32: return 4;
    default: return 8;
  }
}
DType dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8: return DType::uint8;
    case ncclFloat16: return DType::float16;
    case ncclBfloat16: return DType::bfloat16;
    case ncclInt32: return DType::int32;
    case ncclInt64: return DType::int64;
    case ncclFloat32: return DType::float32;
    default: return DType::float64;
  }
}
ReduceOp op_of(int op) {
  switch (op) {
    case ncclProd: return ReduceOp::product;
    case ncclMax: return ReduceOp::max;
    case ncclMin: return ReduceOp::min;
    case ncclAvg: return ReduceOp::avg;
    default: return ReduceOp::sum;
  }
}

// From the last rank to the first: what may not be relied on is not the order of the others.
std::vector<std::byte> reduced(const std::vector<Part>& parts, std::size_t from, std::size_t count) {
  const std::size_t width = size_of(parts[0].type);
  std::vector<const void*> terms;
  for (std::size_t r = parts.size(); r-- > 0;)
    terms.push_back(static_cast<const std::byte*>(parts[r].in) + from * width);
  std::vector<std::byte> out(count * width);
  shardwise::detail::reduce_blocks(shardwise::detail::reduce_kernels_of(dtype_of(parts[0].type)), out.data(),
                                   terms.data(), static_cast<int>(terms.size()), static_cast<std::int64_t>(count),
                                   op_of(parts[0].extra), false);
  return out;
}

void perform(const std::vector<Part>& parts) {
  const Part& first = parts[0];
  const std::size_t bytes = first.count * size_of(first.type);
  std::vector<std::vector<std::byte>> inputs;
  if (first.kind == Kind::all_gather) {
    for (const Part& p : parts)
      inputs.emplace_back(static_cast<const std::byte*>(p.in), static_cast<const std::byte*>(p.in) + bytes);
    for (const Part& p : parts)
      for (std::size_t r = 0; r < parts.size(); ++r)
        std::memcpy(static_cast<std::byte*>(p.out) + r * bytes, inputs[r].data(), bytes);
  } else if (first.kind == Kind::all_reduce) {
    const auto sum = reduced(parts, 0, first.count);
    for (const Part& p : parts) std::memcpy(p.out, sum.data(), bytes);
  } else if (first.kind == Kind::reduce_scatter) {
    for (std::size_t r = 0; r < parts.size(); ++r) inputs.push_back(reduced(parts, r * first.count, first.count));
    for (std::size_t r = 0; r < parts.size(); ++r) std::memcpy(parts[r].out, inputs[r].data(), bytes);
  } else {
    const Part& root = parts[static_cast<std::size_t>(first.extra)];
    for (const Part& p : parts)
      if (p.out != root.in) std::memcpy(p.out, root.in, bytes);
  }
}

void mismatch(Group& group) {
  for (ncclResult_t& state : group.async) state = ncclInternalError;
  group.aborted = true;
  group.changed.notify_all();
}

// What a stream does for one collective of one rank.
void meet(const std::shared_ptr<Group>& group, int rank, std::uint64_t number, const Part& part) {
  std::unique_lock lock(group->mutex);
  Meeting& meeting = group->meetings[number];
  meeting.parts.resize(static_cast<std::size_t>(group->size), part);
  meeting.parts[static_cast<std::size_t>(rank)] = part;
  if (++meeting.arrived == group->size) {
    for (const Part& other : meeting.parts)
      if (!other.alike(part)) return mismatch(*group);
    if (!group->aborted) perform(meeting.parts);
    meeting.done = true;
    group->changed.notify_all();
  }
  group->changed.wait(lock, [&] { return meeting.done || group->aborted; });
}

struct Transfer {
  bool sends;
  void* data;
  std::size_t bytes;
  int peer;
};
void transfer(const std::shared_ptr<Group>& group, int rank, const std::vector<Transfer>& list) {
  std::unique_lock lock(group->mutex);
  std::vector<std::shared_ptr<Message>> sent;
  for (const Transfer& t : list)
    if (t.sends) {
      sent.push_back(std::make_shared<Message>(Message{t.data, t.bytes}));
      group->mail[{rank, t.peer}].push_back(sent.back());
    }
  group->changed.notify_all();
  for (const Transfer& t : list) {
    if (t.sends) continue;
    auto& box = group->mail[{t.peer, rank}];
    group->changed.wait(lock, [&] { return !box.empty() || group->aborted; });
    if (group->aborted) return;
    if (box.front()->bytes != t.bytes) return mismatch(*group);
    std::memcpy(t.data, box.front()->data, t.bytes);
    box.front()->done = true;
    box.pop_front();
    group->changed.notify_all();
  }
  for (const auto& message : sent) group->changed.wait(lock, [&] { return message->done || group->aborted; });
}

// Calls between ncclGroupStart and ncclGroupEnd.
struct Grouped {
  int depth = 0;
  std::map<std::pair<ncclComm_t, cudaStream_t>, std::vector<Transfer>> transfers;
};
Grouped& grouped() {
  thread_local Grouped g;
  return g;
}

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count();
}

// Half of the calls are taken over a little later.
ncclResult_t taken(ncclComm_t comm) {
  if (++comm->calls % 2 == 0) return ncclSuccess;
  comm->busy_until = now() + 50;
  return ncclInProgress;
}

std::atomic<int> failing_device{-1};
std::atomic<ncclResult_t> failing_with{ncclSuccess};
bool fails_now(ncclComm_t comm) {
  int device = current_device();
  if (!failing_device.compare_exchange_strong(device, -1)) return false;
  const std::lock_guard lock(comm->group->mutex);
  comm->group->async[static_cast<std::size_t>(comm->rank)] = failing_with;
  return true;
}

ncclResult_t collective(ncclComm_t comm, cudaStream_t stream, const Part& part) {
  const std::size_t bytes = part.count * size_of(part.type), all = bytes * static_cast<std::size_t>(comm->group->size),
                    mine = bytes * static_cast<std::size_t>(comm->rank);
  const Range in{part.in, part.kind == Kind::reduce_scatter ? all : bytes};
  const Range out{part.out, part.kind == Kind::all_gather ? all : bytes};
  const bool in_place = part.kind == Kind::all_gather       ? part.in == static_cast<std::byte*>(part.out) + mine
                        : part.kind == Kind::reduce_scatter ? part.out == static_cast<const std::byte*>(part.in) + mine
                                                            : part.in == part.out;
  if (!in_place && !apart(in, out)) return ncclInvalidArgument;
  if (const ncclResult_t result = refused(*comm->group, comm->rank, stream, {in, out}); result != ncclSuccess)
    return result;
  if (fails_now(comm)) return ncclSuccess;  // found in the background
  const std::uint64_t number = comm->collectives++;
  stream_of(stream)->put([group = comm->group, rank = comm->rank, number, part] {
    const AllOpened opened;
    meet(group, rank, number, part);
  });
  return taken(comm);
}
ncclResult_t message(ncclComm_t comm, cudaStream_t stream, const Transfer& t) {
  if (t.peer == comm->rank || t.bytes == 0) return ncclInvalidUsage;  // legal, but seldom meant
  const Range range{t.data, t.bytes};
  if (const ncclResult_t result = refused(*comm->group, comm->rank, stream, {range}); result != ncclSuccess)
    return result;
  Grouped& g = grouped();
  if (g.depth > 0) {
    g.transfers[{comm, stream}].push_back(t);
    return ncclSuccess;
  }
  stream_of(stream)->put([group = comm->group, rank = comm->rank, t] {
    const AllOpened opened;
    transfer(group, rank, {t});
  });
  return taken(comm);
}

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Group>> groups;
  std::uint64_t next = 1;
  static Registry& get() {
    static auto* registry = new Registry;
    return *registry;
  }
};

}  // namespace

void simulated_cuda::fail_next_collective(int device, int result) {
  failing_with = static_cast<ncclResult_t>(result);
  failing_device = device;
}

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* unique) {
  std::memset(unique, 0, sizeof *unique);
  Registry& registry = Registry::get();
  const std::lock_guard lock(registry.mutex);
  std::memcpy(unique->internal, &registry.next, sizeof registry.next);
  ++registry.next;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclRemoteError: return "remote process exited or there was a network error";
    default: return "an error without a name in the simulation";
  }
}
const char* ncclGetLastError(ncclComm_t) { return "simulated"; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId unique, int rank, ncclConfig_t*) {
  Registry& registry = Registry::get();
  std::shared_ptr<Group> group;
  {
    const std::lock_guard lock(registry.mutex);
    auto& known = registry.groups[std::string(unique.internal, sizeof unique.internal)];
    if (known == nullptr) known = std::make_shared<Group>(size);
    group = known;
  }
  if (group->size != size || rank < 0 || rank >= size) return ncclInvalidArgument;
  auto* const made = new ncclComm{group, rank};
  made->busy = true;
  *comm = made;
  {
    const std::lock_guard lock(group->mutex);
    group->devices[static_cast<std::size_t>(rank)] = current_device();
    ++group->joined;
    group->changed.notify_all();
  }
  std::thread([group, made] {
    std::unique_lock lock(group->mutex);
    group->changed.wait(lock, [&] { return group->joined == group->size || group->aborted; });
    made->busy = false;
  }).detach();
  return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const std::lock_guard lock(comm->group->mutex);
  *state = comm->group->async[static_cast<std::size_t>(comm->rank)];
  if (*state == ncclSuccess && comm->group->aborted) *state = ncclRemoteError;
  if (*state == ncclSuccess && (comm->busy || now() < comm->busy_until)) *state = ncclInProgress;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->group->size;
  return ncclSuccess;
}
// The handle is kept: a real one would be used after it was freed without a word.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const std::lock_guard lock(comm->group->mutex);
  comm->group->aborted = true;
  comm->group->changed.notify_all();
  return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommDestroy(ncclComm_t) { return ncclSuccess; }

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t*) {
  const std::uint64_t number = comm->splits++;
  {
    const std::lock_guard lock(comm->group->mutex);
    comm->group->splits[number][comm->rank] = {color, key};
    comm->group->changed.notify_all();
  }
  comm->busy = true;
  std::thread([comm, group = comm->group, number, color, part] {
    std::unique_lock lock(group->mutex);
    auto& choices = group->splits[number];
    group->changed.wait(lock, [&] { return static_cast<int>(choices.size()) == group->size || group->aborted; });
    if (!group->aborted && color != NCCL_SPLIT_NOCOLOR) {
      std::vector<std::pair<int, int>> members;  // by key, then by rank
      for (const auto& [rank, choice] : choices)
        if (choice.color == color) members.emplace_back(choice.key, rank);
      std::sort(members.begin(), members.end());
      auto& made = group->made[{number, color}];
      if (made == nullptr) {
        made = std::make_shared<Group>(static_cast<int>(members.size()));
        for (std::size_t i = 0; i < members.size(); ++i)
          made->devices[i] = group->devices[static_cast<std::size_t>(members[i].second)];
      }
      for (std::size_t i = 0; i < members.size(); ++i)
        if (members[i].second == comm->rank) *part = new ncclComm{made, static_cast<int>(i)};
    }
    comm->busy = false;
  }).detach();
  return ncclInProgress;
}

ncclResult_t ncclGroupStart() {
  ++grouped().depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  Grouped& g = grouped();
  if (--g.depth > 0) return ncclSuccess;
  ncclResult_t result = ncclSuccess;
  for (const auto& [where, list] : g.transfers) {
    if (fails_now(where.first)) continue;
    stream_of(where.second)->put([group = where.first->group, rank = where.first->rank, list] {
      const AllOpened opened;
      transfer(group, rank, list);
    });
    if (taken(where.first) == ncclInProgress) result = ncclInProgress;
  }
  g.transfers.clear();
  return result;
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return collective(comm, stream, {Kind::all_gather, in, out, count, type, 0});
}
ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return collective(comm, stream, {Kind::all_reduce, in, out, count, type, op});
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  return collective(comm, stream, {Kind::reduce_scatter, in, out, count, type, op});
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return collective(comm, stream, {Kind::broadcast, in, out, count, type, root});
}
ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return message(comm, stream, {true, const_cast<void*>(data), count * size_of(type), peer});
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return message(comm, stream, {false, data, count * size_of(type), peer});
}

}  // extern "C"

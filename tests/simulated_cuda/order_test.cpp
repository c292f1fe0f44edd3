// Streams, events, device memory and copies against the simulation: what is not waited for is wrong data here.
#include <doctest/doctest.h>

#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <shardwise/cuda/copy.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>

#include "simulated_cuda/control.hpp"

namespace {

using namespace shardwise;
using namespace shardwise::detail;
using cuda::Event;
using cuda::Stream;
using cuda::StreamView;

struct FillBody {
  std::int64_t* out;
  std::int64_t value;
  void operator()(std::int64_t i) const { out[i] = value + i; }
};
struct AddBody {
  const std::int64_t* a;
  std::int64_t* out;
  void operator()(std::int64_t i) const { out[i] = a[i] + 1; }
};

struct TeamBody {
  static constexpr std::size_t shared_bytes = 0;
  template <class Team>
  void operator()(std::int64_t, const Team&) const {}
};

constexpr std::int64_t n = 3000;
constexpr std::size_t bytes = n * sizeof(std::int64_t);

void fill(const Buffer& out, std::int64_t value, const StreamView& stream) {
  record_stream(out, stream);
  device::launch(FillBody{out.as<std::int64_t>(), value}, n, stream);
}
void add_one(const Buffer& a, const Buffer& out, const StreamView& stream) {
  record_stream(a, stream);
  record_stream(out, stream);
  device::launch(AddBody{a.as<std::int64_t>(), out.as<std::int64_t>()}, n, stream);
}
bool holds(const Buffer& host, std::int64_t value) {
  const auto* x = host.as<std::int64_t>();
  for (std::int64_t i = 0; i < n; ++i)
    if (x[i] != value + i) return false;
  return true;
}

// A value made on one stream, read on a second, which waits for the first, and brought home: how often it was right.
int rounds_over_two_streams(int rounds) {
  const Stream first, second;
  int good = 0;
  for (int round = 0; round < rounds; ++round) {
    const Buffer a = device_buffer(bytes, first);
    fill(a, round, first);
    second.wait(first);
    const Buffer b = device_buffer(bytes, second), home = pinned_buffer(bytes);
    add_one(a, b, second);
    copy_to_host(home, b, bytes, second);
    second.synchronize();
    good += holds(home, round + 1) ? 1 : 0;
  }
  return good;
}

// Nothing is right by luck for ever: whether some of `rounds` rounds are wrong, again where others keep the machine so busy that all
// of them came in order.
template <class Rounds>
bool goes_wrong(Rounds good_of, int rounds) {
  for (int tries = 0; tries < 100; ++tries)
    if (good_of() < rounds) return true;
  return false;
}

struct DroppedWaits {
  DroppedWaits() { simulated_cuda::drop_waits(true); }
  ~DroppedWaits() { simulated_cuda::drop_waits(false); }
};

TEST_CASE("a stream that waits for another one reads what it wrote") { CHECK(rounds_over_two_streams(60) == 60); }

TEST_CASE("without waits the same rounds read what is not there yet") {
  const DroppedWaits dropped;
  CHECK(goes_wrong([] { return rounds_over_two_streams(60); }, 60));
}

TEST_CASE("an event holds its point, wherever its stream goes on to") {
  const Stream first, second;
  const Buffer a = device_buffer(bytes, first), b = device_buffer(bytes, second), home = pinned_buffer(bytes);
  for (int round = 0; round < 40; ++round) {
    fill(a, round, first);
    Event written(first);
    written.block(second);
    add_one(a, b, second);
    Event read(second);
    read.block(first);
    fill(a, -1, first);  // only after it was read
    copy_to_host(home, b, bytes, second);
    second.synchronize();
    CHECK(holds(home, round + 1));
  }
}

TEST_CASE("events and streams say whether they are done") {
  const Stream stream;
  const Buffer a = device_buffer(bytes, stream);
  for (int i = 0; i < 50; ++i) fill(a, i, stream);
  const Event end(stream);
  end.synchronize();
  CHECK(end.query());
  stream.synchronize();
  CHECK(stream.query());
}

// A value made on one stream and read on another one after its last handle has gone: how often it was right. `recorded`: the buffer
// knows of the other stream. `reused`: the first stream goes on to write what may be the same memory.
int rounds_after_the_last_handle(bool recorded, bool reused) {
  const Stream home, other;
  int good = 0;
  for (int round = 0; round < 40; ++round) {
    const Buffer out = device_buffer(bytes, other), host = pinned_buffer(bytes);
    {
      const Buffer a = device_buffer(bytes, home);
      fill(a, round, home);
      other.wait(home);
      if (recorded) record_stream(a, other);
      device::launch(AddBody{a.as<std::int64_t>(), out.as<std::int64_t>()}, n,
                     other);  // on its way when the handle goes
    }
    Buffer next;
    if (reused) {
      next = device_buffer(bytes, home);
      fill(next, -1, home);
    }
    copy_to_host(host, out, bytes, other);
    other.synchronize();
    good += holds(host, round + 1) ? 1 : 0;
  }
  return good;
}

TEST_CASE("memory goes back when the other streams that use it have come so far") {
  CHECK(rounds_after_the_last_handle(true, true) == 40);
}

TEST_CASE("memory that another stream uses without a record of it is gone too early") {
  CHECK(goes_wrong([] { return rounds_after_the_last_handle(false, false); }, 40));
}

TEST_CASE("new device memory holds nothing that could pass for a value") {
  const Stream stream;
  const Buffer a = device_buffer(bytes, stream), home = pinned_buffer(bytes);
  copy_to_host(home, a, bytes, stream);
  stream.synchronize();
  for (std::int64_t i = 0; i < n; ++i) REQUIRE(home.as<std::int64_t>()[i] == -1);
}

TEST_CASE("pinned memory that is on its way serves nobody else") {
  const Stream stream;
  const Buffer a = device_buffer(bytes, stream), home = pinned_buffer(bytes);
  for (int round = 0; round < 40; ++round) {
    {
      const Buffer source = pinned_buffer(bytes);
      for (std::int64_t i = 0; i < n; ++i) source.as<std::int64_t>()[i] = round + i;
      copy_to_device(a, source, bytes, stream);
    }
    const Buffer other = pinned_buffer(bytes);  // another block while the copy has not been made
    for (std::int64_t i = 0; i < n; ++i) other.as<std::int64_t>()[i] = -7;
    copy_to_host(home, a, bytes, stream);
    stream.synchronize();
    CHECK(holds(home, round));
  }
}

TEST_CASE("memory that is not pinned has been read when the call returns, and written") {
  const Stream stream;
  const Buffer a = device_buffer(bytes, stream);
  std::vector<std::int64_t> source(n), target(n);
  for (int round = 0; round < 20; ++round) {
    for (std::int64_t i = 0; i < n; ++i) source[static_cast<std::size_t>(i)] = round + i;
    copy_to_device(a, Buffer::view(source.data()), bytes, stream);
    for (auto& x : source) x = -9;
    copy_to_host(Buffer::view(target.data()), a, bytes, stream);
    CHECK(holds(Buffer::view(target.data()), round));
  }
}

TEST_CASE("each thread has a current stream of its own on each device; a scope sets another one") {
  cuda::set_device(1);
  const StreamView mine = cuda::current_stream();
  CHECK(mine.device == 1);
  CHECK(mine == cuda::current_stream(1));
  CHECK(cuda::current_stream(2).device == 2);
  {
    const Stream other;
    const cuda::StreamScope scope(other);
    CHECK(cuda::current_stream() == other.view());
    CHECK(cuda::current_stream(2) != other.view());
  }
  CHECK(cuda::current_stream() == mine);
  cuda::set_device(0);
  const cuda::DeviceScope scope(3);
  CHECK(cuda::current_stream().device == 3);
}

TEST_CASE("a stream that is given back serves again, and its memory may go back later") {
  cudaStream_t handle = nullptr;
  Buffer left;
  {
    const Stream stream;
    handle = stream.view().handle;
    left = device_buffer(bytes, stream);
  }
  const Stream next;
  CHECK(next.view().handle == handle);
  left = Buffer();
}

template <class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const CudaError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

// What a process of its own ends by.
int signal_of(void (*body)(const void*), const void* argument) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    body(argument);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST_CASE("a host that reads device memory through its pointer falls over, as it would with a device") {
  const Stream stream;
  const Buffer x = device_buffer(bytes, stream), home = pinned_buffer(bytes);
  fill(x, 5, stream);
  copy_to_host(home, x, bytes, stream);
  cuda::synchronize();
  const auto read = [](const void* p) { static_cast<void>(*static_cast<const volatile std::int64_t*>(p)); };
  CHECK(signal_of(read, home.data()) == 0);
  CHECK(signal_of(read, x.data()) == SIGSEGV);
}

TEST_CASE("a query that finds work to do leaves no error behind for who asks the runtime next") {
  const Stream stream;
  const Buffer x = device_buffer(bytes, stream);
  int waited = 0;
  for (int round = 0; round < 200 && waited < 2; ++round) {
    fill(x, round, stream);
    const Event event(stream);
    waited += !stream.query();
    CHECK(cudaGetLastError() == cudaSuccess);
    waited += !event.query();
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  CHECK(waited >= 2);
}

TEST_CASE("nothing to do puts nothing on the stream; a team is of whole warps") {
  const Stream stream;
  stream.synchronize();
  simulated_cuda::fail_next("cudaLaunchHostFunc", cudaErrorLaunchFailure);
  device::launch(FillBody{nullptr, 0}, 0, stream);
  device::launch_teams(TeamBody{}, 0, 32, stream);
  const std::string lanes = message_of([&] { device::launch_teams(TeamBody{}, 1, 33, stream); });
  CHECK(lanes.find("cudaErrorInvalidConfiguration") != std::string::npos);
  CHECK(message_of([&] { device::launch(FillBody{nullptr, 0}, 1, stream); }).find("LaunchFailure") !=
        std::string::npos);
}

TEST_CASE("a product with a bias that cuBLASLt has not is made of two steps") {
  const Stream stream;
  const float values[] = {3, 5, 7, 100};  // a, b, bias of 1 x 1 matrices; the result
  const Buffer x = device_buffer(64 * sizeof(float), stream), home = pinned_buffer(64 * sizeof(float));
  for (int i = 0; i < 4; ++i) home.as<float>()[16 * i] = values[i];
  copy_to_device(x, home, 64 * sizeof(float), stream);
  const auto run = [&] {
    auto* const at = x.as<float>();
    device::gemm_bias(DType::float32, false, 1, 1, 1, at, at + 16, at + 32, at + 48, stream);
    copy_to_host(home, x, 64 * sizeof(float), stream);
    stream.synchronize();
    return home.as<float>()[48];
  };
  simulated_cuda::fail_next("cublasGemmStridedBatchedEx_64", cudaErrorLaunchFailure);
  CHECK(run() == 22);  // by cuBLASLt alone
  CHECK_THROWS_AS(device::gemm(DType::float32, false, false, {1, 1, 1, 1}, x.data(), x.data(), x.data(), false, stream),
                  Error);
  simulated_cuda::fail_next("cublasLtMatmulAlgoGetHeuristic", cudaErrorLaunchFailure);
  CHECK(run() == 22);
  simulated_cuda::fail_next("cublasLtMatmulAlgoGetHeuristic", cudaErrorLaunchFailure);
  simulated_cuda::fail_next("cublasGemmStridedBatchedEx_64", cudaErrorLaunchFailure);
  CHECK_THROWS_AS(run(), Error);
}

TEST_CASE("errors name the call and the error") {
  CHECK(message_of([] { cuda::set_device(99); }) ==
        "shardwise: cudaSetDevice failed: cudaErrorInvalidDevice (simulated)");
  simulated_cuda::fail_next("cudaStreamCreateWithFlags", cudaErrorInsufficientDriver);
  const std::string message = message_of([] {
    std::vector<Stream> many;
    for (int i = 0; i < 50; ++i) many.emplace_back();  // until the pool has none left
  });
  CHECK(message.find("cudaStreamCreateWithFlags failed: cudaErrorInsufficientDriver") != std::string::npos);
  CHECK(message.find("there is no CUDA device") != std::string::npos);
}

TEST_CASE("no driver is no device; another failure is an error") {
  simulated_cuda::fail_next("cudaGetDeviceCount", cudaErrorInsufficientDriver);
  CHECK(cuda::device_count() == 0);
  simulated_cuda::fail_next("cudaGetDeviceCount", cudaErrorLaunchFailure);
  CHECK_THROWS_AS(static_cast<void>(cuda::device_count()), CudaError);
  CHECK(cuda::is_available());
}

TEST_CASE("a device without memory left is an error that says what is held; what was given back serves first") {
  const Stream stream;
  simulated_cuda::limit_memory(1 << 20);
  {
    Buffer most = device_buffer(800000, stream);
    fill(most, 1, stream);
    most = Buffer();  // comes back when the stream gets there
    const Buffer again = device_buffer(800000, stream);
    const Stream* only = &stream;
    try {
      static_cast<void>(device_buffer(800000, *only));
      FAIL("nothing was thrown");
    } catch (const CudaError& e) {
      CHECK(e.code() == cudaErrorMemoryAllocation);
      CHECK(std::string(e.what()).find("has no 800000 bytes left; this process holds 800") != std::string::npos);
    }
  }
  simulated_cuda::limit_memory(std::uint64_t{1} << 31);
}

}  // namespace

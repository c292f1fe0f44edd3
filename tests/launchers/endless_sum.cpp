// Ranks that add until something fails: each prints what it was told, and what it is told when it asks again. For
// check_namespaces.py. Its argument is the deadline of sums but the first, in milliseconds.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <shardwise/backends/any.hpp>

namespace {

template <class F>
std::string heard(F f) {
  try {
    f();
  } catch (const shardwise::TimeoutError& e) {
    return std::string("TimeoutError: ") + e.what();
  } catch (const shardwise::PeerFailedError& e) {
    return std::string("PeerFailedError: ") + e.what();
  } catch (const std::exception& e) {
    return std::string("another: ") + e.what();
  }
  return "nothing";
}

void say(const char* what, int rank, const std::string& words) {
  std::printf("%s %d: %s\n", what, rank, words.c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int, char** argv) {
  const shardwise::AnyCommunicator world = shardwise::from_env();
  const shardwise::AnyCommunicator line = world.with_axis("dp");
  const shardwise::AnyCommunicator soon = line.with_deadline(std::chrono::milliseconds(std::atoi(argv[1])));
  std::vector<float> x(100000, 1.0f), y(x.size());
  const auto add = [&](const auto& c) { c.template all_reduce<float>(x, y, shardwise::ReduceOp::sum); };
  const std::string first = heard([&] { add(line); });
  say("ready", world.rank(), first + ", " + std::to_string(static_cast<int>(y[0])));
  const std::string said = heard([&] {
    for (;;) add(soon);
  });
  say("heard", world.rank(), said);
  say("again", world.rank(), heard([&] { world.barrier(); }));
  return 3;
}

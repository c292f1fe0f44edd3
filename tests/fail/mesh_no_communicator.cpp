// expect-error: shardwise::init_device_mesh: \[M5\] the first argument is a communicator
#include <shardwise/core.hpp>
using namespace shardwise;
void f(ThreadCommunicator world) {
#if SHARDWISE_EXPECT_FAIL
  (void)world;
  (void)init_device_mesh<"tp">(4, {4});
#else
  (void)init_device_mesh<"tp">(world, {4});
#endif
}

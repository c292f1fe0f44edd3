// expect-error: shardwise::init_device_mesh: \[M6\] one size per axis
#include <shardwise/core.hpp>
using namespace shardwise;
void f(ThreadCommunicator world) {
#if SHARDWISE_EXPECT_FAIL
  (void)init_device_mesh<"dp", "tp">(world, {4});
#else
  (void)init_device_mesh<"dp", "tp">(world, {2, 2});
#endif
}

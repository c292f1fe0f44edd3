// [X1]: nothing moves on devices that is not included.
// expect-error: shardwise::redistribute: \[X1\] these tensors lie on devices; include <shardwise/device/redistribute.hpp>
#include <shardwise/core.hpp>

using namespace shardwise;
struct OnDevices : ThreadCommunicator {
  static constexpr MemorySpace memory_space = MemorySpace::cuda;
};

#if SHARDWISE_EXPECT_FAIL
void f(const DeviceMesh<OnDevices, "tp">& mesh, int axis, void* data) {
  detail::sum_over_axis(mesh, axis, DType::float32, data, 1);
}
#else
void f(const DeviceMesh<ThreadCommunicator, "tp">& mesh, int axis, void* data) {
  detail::sum_over_axis(mesh, axis, DType::float32, data, 1);
}
#endif

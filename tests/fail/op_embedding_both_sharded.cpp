// Sharded indices for a table sharded by rows.
// expect-error: shardwise::embedding: \[O17\] a sharded table takes replicated indices
// needs: eigen
#include <shardwise/backends/thread.hpp>
#include <shardwise/ops/embedding.hpp>
#include <shardwise/redistribute/redistribute.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, Shard<0>>& w, const DTensor<std::int64_t, 1, Mesh, Shard<0>>& i) {
  return embedding(w, i);
}
#else
auto f(const DTensor<float, 2, Mesh, Shard<0>>& w, const DTensor<std::int64_t, 1, Mesh, Replicate>& i) {
  return embedding(w, i);
}
#endif

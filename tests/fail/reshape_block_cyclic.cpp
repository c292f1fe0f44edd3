// [O27]: another shape of a part that lies at several places.
// needs: eigen
// expect-error: shardwise::reshape: \[O27\] a block-cyclic or strided tensor keeps its shape
#include <shardwise/shardwise.hpp>

using namespace shardwise;
using Mesh = DeviceMesh<ThreadCommunicator, "tp">;

#if SHARDWISE_EXPECT_FAIL
auto f(const DTensor<float, 2, Mesh, BlockCyclic<0, 2>>& x) { return reshape<Shard<0>>(x, Shape<1>{-1}); }
#else
auto f(const DTensor<float, 2, Mesh, BlockCyclic<0, 2>>& x) { return reshape(redistribute<Shard<0>>(x), Shape<1>{-1}); }
#endif

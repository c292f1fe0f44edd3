// A program whose globals have the names that the library's templates give their locals: -Wshadow has nothing to say of it.
#include <shardwise/shardwise.hpp>

constexpr int a = 1, b = 2, c = 3, count = 4, data = 5, done = 6, element = 7, f = 8, from = 9, held = 10, i = 11,
              in = 12, mesh = 13, n = 14, out = 15, plan = 16, r = 17, rank = 18, ranks = 19, rows = 20, runs = 21,
              shape = 22, size = 23, source = 24, steps = 25, stream = 26, target = 27, to = 28, value = 29,
              wanted = 30, weight = 31, x = 32, y = 33;
static_assert(a + b + c + count + data + done + element + f + from + held + i + in + mesh + n + out + plan + r + rank +
                  ranks + rows + runs + shape + size + source + steps + stream + target + to + value + wanted + weight +
                  x + y ==
              33 * 34 / 2);

namespace program {

using Mesh = shardwise::DeviceMesh<shardwise::ThreadCommunicator, "tp">;

shardwise::DTensor<float, 2, Mesh, shardwise::Shard<1>>
moved(const shardwise::DTensor<float, 2, Mesh, shardwise::Shard<0>>& rows_of_it) {
  return shardwise::relu(shardwise::redistribute<shardwise::Shard<1>>(rows_of_it));
}

}  // namespace program

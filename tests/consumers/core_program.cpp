// What a user of the core writes: no third party is in reach here.
#if __has_include(<shardwise/core.hpp>)
#include <shardwise/core.hpp>
#else
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/name.hpp>
#endif

#include <cstdio>
#include <string_view>

int main() {
  const shardwise::Name axis = "tp";
  const bool good = axis.view() == "tp" && shardwise::size_of(shardwise::dtype_of<float>) == 4;
  std::puts(good ? "core program: good" : "core program: bad");
  return good ? 0 : 1;
}

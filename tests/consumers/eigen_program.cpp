// What a user of the whole library writes.
#if __has_include(<shardwise/shardwise.hpp>)
#include <shardwise/shardwise.hpp>
#else
#include <shardwise/base/name.hpp>
#endif

#include <Eigen/Core>

#include <cstdio>
#include <string_view>

int main() {
  const Eigen::Matrix2f twice = 2.0F * Eigen::Matrix2f::Identity();
  const shardwise::Name axis = "tp";
  const bool good = twice.trace() == 4 && axis.view() == "tp";
  std::puts(good ? "eigen program: good" : "eigen program: bad");
  return good ? 0 : 1;
}

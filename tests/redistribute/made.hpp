// Tensors of the library with the oracle's values, and what the oracle says of them once moved.
#pragma once

#include <cstdint>
#include <vector>

#include <shardwise/tensor/tensor.hpp>

#include "redistribute/oracle.hpp"

namespace test {

template <class X>
Case case_of(const X& x, std::int64_t salt) {
  Case c;
  const auto mesh = x.mesh().shape();
  const auto global = x.shape();
  c.mesh.assign(mesh.begin(), mesh.end());
  c.global.assign(global.begin(), global.end());
  c.from.assign(X::placements.begin(), X::placements.end());
  c.to = c.from;
  c.salt = salt;
  return c;
}

// A tensor with the oracle's values.
template <class T, class... P, class Mesh, std::size_t R>
auto made(const Mesh& mesh, const std::int64_t (&shape)[R], std::int64_t salt = 0) {
  auto x = shardwise::detail::make_tensor<T, R, shardwise::Distributed<Mesh, P...>>(
      shardwise::detail::Extents(shardwise::detail::to_shape(shape)), mesh);
  const std::vector<T> values = elements<T>(source(case_of(x, salt), coordinate_of(mesh)));
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = values[static_cast<std::size_t>(i)];
  return x;
}

// What the oracle says of x, which `made` made, moved to where y lies.
template <class X, class Y>
bool is_moved(const X& x, const Y& y, std::int64_t salt = 0) {
  Case c = case_of(x, salt);
  c.to.assign(Y::placements.begin(), Y::placements.end());
  const auto want = elements<typename Y::value_type>(expected(c, coordinate_of(y.mesh())));
  if (y.size() != static_cast<std::int64_t>(want.size())) return false;
  for (std::size_t i = 0; i < want.size(); ++i)
    if (!(y.data()[i] == want[i])) return false;
  return true;
}

}  // namespace test

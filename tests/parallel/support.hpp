// What the tests of modules and styles share: parts of whole tensors, parameters by name, collectives by kind.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardwise/shardwise.hpp>

namespace test {

using namespace shardwise;

/// This rank's part of a tensor that every rank holds whole, where the mesh has its tensors.
template <class P, class T, std::size_t R, class Mesh>
auto part(const Tensor<T, R>& whole, const Mesh& mesh) {
  return clone(detach(distribute_tensor<P>(detach(whole), mesh, {.src_data_rank = no_source}).to_local()));
}

/// What was communicated, by kind, in one direction.
using Kinds = std::map<Collective, std::int64_t>;
inline Kinds kinds(const CommDebugMode& comm, bool backward) {
  Kinds counts;
  for (const auto& row : comm.rows())
    if (row.backward == backward) counts[row.collective] += row.count;
  return counts;
}
inline void check_counts(const CommDebugMode& comm, const Kinds& forward, const Kinds& backward) {
  INFO(comm.table());
  CHECK(kinds(comm, false) == forward);
  CHECK(kinds(comm, true) == backward);
}

using Values = std::map<std::string, std::vector<double>>;
enum class Take { value, gradient };

template <class X>
std::vector<double> values_of(const X& x) {
  NoGrad guard;
  const auto whole = x.full_tensor();
  return std::vector<double>(whole.data(), whole.data() + whole.size());
}

/// Every parameter, or its gradient, as the values of the whole tensor.
template <class M>
Values whole(const M& module, Take take = Take::value) {
  Values all;
  for_each_parameter(module, [&](std::string_view name, const auto& p) {
    all[std::string(name)] = take == Take::value ? values_of(p) : values_of(p.grad());
  });
  return all;
}

inline void check_close(const std::vector<double>& a, const std::vector<double>& b, double tolerance,
                        const std::string& what = "") {
  REQUIRE_MESSAGE(a.size() == b.size(), what);
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double magnitude = std::max(1.0, std::max(std::abs(a[i]), std::abs(b[i])));
    const double difference = std::abs(a[i] - b[i]) / magnitude;
    worst = difference > worst || difference != difference ? difference : worst;
  }
  CHECK_MESSAGE(worst <= tolerance, what, ": off by ", worst);
}
inline void check_close(const Values& a, const Values& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, values] : a) {
    REQUIRE_MESSAGE(b.count(name) == 1, name);
    check_close(values, b.at(name), tolerance, name);
  }
}

/// Trains both for some steps on the same input and compares outputs, gradients and parameters each time.
template <class Dense, class Sharded, class X, class LocalX>
void train_alike(Dense& dense, Sharded& sharded, const X& x, const LocalX& local_x, int steps = 3, double lr = 0.05,
                 double tolerance = 2e-5) {
  optim::SGD of_dense(parameters(dense), {.lr = lr});
  optim::SGD of_sharded(parameters(sharded), {.lr = lr});
  check_close(whole(dense), whole(sharded), 0);
  for (int step = 0; step < steps; ++step) {
    const auto y = dense(x);
    const auto z = sharded(local_x);
    check_close(values_of(y), values_of(z), tolerance, "output");
    backward(sum(y * y));
    backward(sum(z * z));
    settle_gradients(parameters(sharded));
    check_close(whole(dense, Take::gradient), whole(sharded, Take::gradient), tolerance);
    of_dense.step();
    of_sharded.step();
    check_close(whole(dense), whole(sharded), tolerance);
    of_dense.zero_grad();
    of_sharded.zero_grad();
  }
}

}  // namespace test

// Tensors on Eigen's memory and Eigen's maps on tensors.
#include <vector>

#include <shardwise/ops/eigen.hpp>
#include <shardwise/ops/elementwise.hpp>
#include <shardwise/ops/matmul.hpp>
#include <shardwise/ops/reduction.hpp>
#include <shardwise/testing/doctest.hpp>

#include "support/sharded.hpp"

using namespace shardwise;
using namespace test;

TEST_CASE("as_eigen shares the elements of a matrix and of a vector") {
  auto x = values({2, 3}, 1);
  auto m = as_eigen(x);
  static_assert(decltype(m)::IsRowMajor);
  CHECK(m.rows() == 2);
  CHECK(m.cols() == 3);
  CHECK(m.data() == x.data());
  CHECK(m(1, 0) == x.data()[3]);
  m(1, 2) = 7;
  CHECK(x.data()[5] == 7);
  const auto fixed = x;
  static_assert(std::is_same_v<decltype(as_eigen(fixed).data()), const double*>);
  auto v = arange<float>(4);
  CHECK(as_eigen(v).sum() == 6);
  CHECK(as_eigen(values({0, 3}, 1)).rows() == 0);
}

TEST_CASE("view of a matrix, a vector and a map is a tensor on the same memory") {
  Eigen::Matrix<double, 2, 3, Eigen::RowMajor> fixed;
  fixed << 1, 2, 3, 4, 5, 6;
  auto x = view(fixed);
  static_assert(std::is_same_v<decltype(x), Tensor<double, 2>>);
  CHECK(x.shape() == Shape<2>{2, 3});
  CHECK(x.data() == fixed.data());
  CHECK(x.data()[3] == 4);
  Eigen::VectorXd vector = Eigen::VectorXd::Ones(5);
  static_assert(std::is_same_v<decltype(view(vector)), Tensor<double, 1>>);
  CHECK(equal(view(vector), ones<double>({5})));
  std::vector<float> memory{1, 2, 3, 4};
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<RowMajor> map(memory.data(), 2, 2);
  CHECK(view(map).data() == memory.data());
  // Rows that are further apart than they are long.
  const Eigen::Map<RowMajor, 0, Eigen::OuterStride<>> apart(memory.data(), 2, 1, Eigen::OuterStride<>(2));
  CHECK_THROWS_AS(view(apart), ShapeError);
}

TEST_CASE("a layer fed from an Eigen::Map gives what Eigen gives, and its weights learn") {
  std::vector<double> memory{1, -2, 3, 0.5, 5, -6};
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<RowMajor> input(memory.data(), 2, 3);
  auto weight = values({4, 3}, 1);
  weight.requires_grad(true);
  const auto y = linear(view(input), weight);
  const auto detached = detach(y);
  CHECK((as_eigen(detached) - input * as_eigen(weight).transpose()).norm() < 1e-12);
  backward(sum(y));
  const auto grad = weight.grad();
  CHECK((as_eigen(grad) - RowMajor::Ones(4, 2) * input).norm() < 1e-12);
}

SHARDWISE_TEST_RANKS("as_eigen of a distributed tensor is this rank's part", 2) {
  const auto mesh = init_device_mesh<"tp">(world, {2});
  auto x = distribute_tensor<Shard<0>>(ones<double>({3, 2}), mesh);
  CHECK(as_eigen(x).rows() == (world.rank() == 0 ? 2 : 1));
  as_eigen(x) *= 2.0;
  CHECK(equal(x.full_tensor(), full<double>({3, 2}, 2.0)));
}

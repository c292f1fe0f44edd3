// How tensors are shown.
#include <complex>
#include <limits>
#include <sstream>

#include <shardwise/core.hpp>
#include <shardwise/io/print.hpp>
#include <shardwise/testing/doctest.hpp>

using namespace shardwise;

TEST_CASE("plain tensors show values, shape and element type") {
  auto x = arange<float>(4);
  CHECK(to_string(x) == "Tensor([0., 1., 2., 3.], shape=[4], float)");
  x.data()[1] = -1.5f;
  CHECK(to_string(x) == "Tensor([ 0.0000, -1.5000,  2.0000,  3.0000], shape=[4], float)");
  x.data()[2] = 12345.5f;
  CHECK(to_string(x) == "Tensor([ 0.0000e+00, -1.5000e+00,  1.2346e+04,  3.0000e+00], shape=[4], float)");
  CHECK(to_string(x, {.precision = 1}) == "Tensor([ 0.0e+00, -1.5e+00,  1.2e+04,  3.0e+00], shape=[4], float)");
  auto wanted = ones<double>({1});
  wanted.requires_grad(true);
  CHECK(to_string(wanted) == "Tensor([1.], shape=[1], double, requires_grad)");
}

TEST_CASE("every rank and emptiness has a form") {
  CHECK(to_string(scalar(2.5)) == "Tensor(2.5000, shape=[], double)");
  CHECK(to_string(zeros<float>({2, 0})) == "Tensor([], shape=[2, 0], float)");
  CHECK(to_string(Tensor<float, 2>()) == "Tensor(undefined)");
  CHECK(to_string(ones<float>({2, 2})) == "Tensor([[1., 1.],\n        [1., 1.]], shape=[2, 2], float)");
  CHECK(to_string(ones<float>({2, 1, 2})) == "Tensor([[[1., 1.]],\n\n        [[1., 1.]]], shape=[2, 1, 2], float)");
}

TEST_CASE("every element type has a form") {
  CHECK(to_string(arange<std::int64_t>(3)) == "Tensor([0, 1, 2], shape=[3], int64)");
  CHECK(to_string(full<std::int32_t>({2}, -7)) == "Tensor([-7, -7], shape=[2], int32)");
  CHECK(to_string(full<std::uint8_t>({1}, std::uint8_t{200})) == "Tensor([200], shape=[1], uint8)");
  CHECK(to_string(full<bfloat16>({1}, bfloat16(0.5f))) == "Tensor([0.5000], shape=[1], bfloat16)");
  CHECK(to_string(full<half>({1}, half(2.0f))) == "Tensor([2.], shape=[1], half)");
  CHECK(to_string(full<std::complex<float>>({1}, {1.5f, -2.0f})) ==
        "Tensor([1.5000-2.0000j], shape=[1], complex<float>)");
  auto special = ones<float>({3});
  special.data()[0] = std::numeric_limits<float>::quiet_NaN();
  special.data()[1] = -std::numeric_limits<float>::infinity();
  CHECK(to_string(special) == "Tensor([ nan, -inf,   1.], shape=[3], float)");
}

TEST_CASE("more than 1000 elements are shortened to three at each end") {
  CHECK(to_string(arange<float>(1001)) ==
        "Tensor([   0.,    1.,    2., ...,  998.,  999., 1000.], shape=[1001], float)");
  CHECK(to_string(arange<float>(1000)).size() > 5000);
  CHECK(to_string(zeros<float>({2, 600})) ==
        "Tensor([[0., 0., 0., ..., 0., 0., 0.],\n        [0., 0., 0., ..., 0., 0., 0.]], shape=[2, 600], float)");
  CHECK(to_string(arange<std::int64_t>(5), {.threshold = 4, .edge_items = 1}) ==
        "Tensor([0, ..., 4], shape=[5], int64)");
}

SHARDWISE_TEST_RANKS("a distributed tensor shows its part, where it lies, and the placement on each axis", 4) {
  const auto mesh = init_device_mesh<"dp", "tp">(world, {2, 2});
  const auto x = distribute_tensor<Shard<0>, Replicate>(arange<float>(3), mesh);
  std::ostringstream out;
  out << x;
  CHECK(out.str() == (world.rank() < 2
                          ? "DTensor([0., 1.], shape=[3], float, dp=Shard<0>, tp=Replicate, local=[2] at [0])"
                          : "DTensor([2.], shape=[3], float, dp=Shard<0>, tp=Replicate, local=[1] at [2])"));
  const auto y = from_local<Partial<>, Partial<Avg>>(arange<float>(2), mesh);
  CHECK(to_string(y) == "DTensor([0., 1.], shape=[2], float, dp=Partial<>, tp=Partial<avg>)");
}

// Products of matrices on a device, against the host's.
#include <cstdint>

#include <shardwise/cuda/tf32.hpp>
#include <shardwise/ops/kernels/gemm.hpp>

#include "cuda/device.hpp"

namespace {

using namespace test;
using device::GemmSizes;

template <class T>
void product(Random& random, bool ta, bool tb, const GemmSizes& s, bool accumulate) {
  INFO("batch ", s.batch, ", (", s.m, ", ", s.k, ") x (", s.k, ", ", s.n, "), ", ta, tb, accumulate);
  const auto a = random_values<T>(random, s.batch * s.m * s.k), b = random_values<T>(random, s.batch * s.k * s.n),
             c = random_values<T>(random, s.batch * s.m * s.n);
  std::vector<T> want = c;
  for (std::int64_t i = 0; i < s.batch; ++i)
    kernels::gemm(ta, tb, s.m, s.n, s.k, a.data() + i * s.m * s.k, b.data() + i * s.k * s.n,
                  want.data() + i * s.m * s.n, accumulate);
  const OnDevice<T> da(a), db(b), dc(c);
  device::gemm(shardwise::dtype_of<T>, ta, tb, s, da.data(), db.data(), dc.data(), accumulate, stream());
  CHECK(near(dc.read(), want, 4 * static_cast<double>(s.k + 1)));
}

template <class T>
void products() {
  Random random(1);
  const GemmSizes shapes[] = {{1, 3, 5, 4}, {2, 1, 7, 9}, {3, 6, 1, 2}, {1, 17, 13, 40},
                              {1, 4, 3, 0}, {0, 2, 2, 2}, {2, 0, 3, 1}, {2, 3, 0, 1}};
  for (const GemmSizes& s : shapes)
    for (const bool ta : {false, true})
      for (const bool tb : {false, true})
        for (const bool accumulate : {false, true}) product<T>(random, ta, tb, s, accumulate);
}

SHARDWISE_DEVICE_TEST("products of every element type, transposed and added up, are the host's") {
  products<float>();
  products<double>();
  products<shardwise::bfloat16>();
  products<shardwise::half>();
  products<std::complex<float>>();
  products<std::complex<double>>();
  products<std::int32_t>();
  products<std::int64_t>();
  products<std::uint8_t>();
}

// `shift`: elements between an aligned address and the matrices; `bias_shift` likewise.
template <class T>
void product_with_bias(Random& random, bool tb, const GemmSizes& s, std::size_t shift, std::size_t bias_shift) {
  INFO("(", s.m, ", ", s.k, ") x (", s.k, ", ", s.n, "), ", tb, ", ", shift, " and ", bias_shift, " elements on");
  const auto a = random_values<T>(random, s.m * s.k), b = random_values<T>(random, s.k * s.n),
             bias = random_values<T>(random, s.n);
  std::vector<T> want;
  for (std::int64_t r = 0; r < s.m; ++r) want.insert(want.end(), bias.begin(), bias.end());
  kernels::gemm(false, tb, s.m, s.n, s.k, a.data(), b.data(), want.data(), true);
  const OnDevice<T> da(a, shift), db(b, shift), dc(want.size(), shift), dbias(bias, bias_shift);
  device::gemm_bias(shardwise::dtype_of<T>, tb, s.m, s.n, s.k, da.data(), db.data(), dbias.data(), dc.data(), stream());
  CHECK(near(dc.read(), want, 4 * static_cast<double>(s.k + 1)));
}

template <class T>
void products_with_bias() {
  Random random(2);
  const GemmSizes shapes[] = {{1, 3, 5, 4}, {1, 1, 7, 9}, {1, 6, 1, 2}, {1, 17, 13, 40},
                              {1, 4, 3, 0}, {1, 0, 2, 2}, {1, 2, 0, 3}, {1, 32, 64, 16}};
  for (const GemmSizes& s : shapes)
    for (const bool tb : {false, true})
      for (const std::size_t shift : {0u, 1u})
        for (const std::size_t bias_shift : {0u, 1u}) product_with_bias<T>(random, tb, s, shift, bias_shift);
}

SHARDWISE_DEVICE_TEST("products with a bias of every element type, wherever they lie, are the host's") {
  products_with_bias<float>();
  products_with_bias<double>();
  products_with_bias<shardwise::bfloat16>();
  products_with_bias<shardwise::half>();
  products_with_bias<std::complex<float>>();
  products_with_bias<std::complex<double>>();
  products_with_bias<std::int32_t>();
  products_with_bias<std::int64_t>();
  products_with_bias<std::uint8_t>();
}

SHARDWISE_DEVICE_TEST("products of floats are rounded to TF32 where that is asked for alone") {
  const std::vector<float> a{1.0f + 0x1p-20f}, b{1.0f};
  const OnDevice<float> da(a), db(b), exact(1), rounded(1);
  CHECK(!shardwise::cuda::tf32_allowed());
  device::gemm(shardwise::DType::float32, false, false, {1, 1, 1, 1}, da.data(), db.data(), exact.data(), false,
               stream());
  shardwise::cuda::allow_tf32(true);
  device::gemm(shardwise::DType::float32, false, false, {1, 1, 1, 1}, da.data(), db.data(), rounded.data(), false,
               stream());
  shardwise::cuda::allow_tf32(false);
  CHECK(exact.read()[0] == a[0]);
  CHECK(std::abs(rounded.read()[0] - 1.0f) < 0x1p-9f);  // a device may compute so small a product exactly
}

}  // namespace

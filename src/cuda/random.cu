// Kernels that draw random numbers. Compiled without contracting products and sums, so that they round as on the host.
#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/random.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>

namespace shardwise::detail::device {

namespace {

template <class T, class Block, class Finish>
void draw(void* out, const RandomRows& rows, const Block& block, const Finish& finish, const StreamView& stream) {
  if (rows.length <= 0) return;
  using Body = RandomBody<T, Block, Finish>;
  // Where a row begins within a block it meets one more.
  const std::int64_t blocks = rows.rank == 0
                                  ? (rows.first + rows.length - 1) / Body::lanes - rows.first / Body::lanes + 1
                                  : (rows.length - 1) / Body::lanes + 2;
  Body body{static_cast<T*>(out), rows.first, rows.length, Divider(blocks), {}, block, finish};
  for (int d = rows.rank - 1; d >= 0; --d) body.rows.add(rows.extents[d], rows.index_strides[d], rows.out_strides[d]);
  launch(body, body.rows.elements() * blocks, stream);
}

}  // namespace

void fill_uniform(DType dtype, void* out, std::uint64_t seed, std::uint64_t draw_number, const RandomRows& rows,
                  double low, double high, const StreamView& stream) {
  visit_some<TakesReal>("a random number", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    // As the host rounds them: to the element type first.
    const A from = static_cast<A>(static_cast<T>(low)), to = static_cast<A>(static_cast<T>(high));
    draw<T>(out, rows, UniformBlock<T>{seed, draw_number}, UniformRange<T>{from, to}, stream);
  });
}

void fill_normal(DType dtype, void* out, std::uint64_t seed, std::uint64_t draw_number, const RandomRows& rows,
                 double mean, double deviation, const StreamView& stream) {
  visit_some<TakesReal>("a random number", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const A middle = static_cast<A>(static_cast<T>(mean)), spread = static_cast<A>(static_cast<T>(deviation));
    draw<T>(out, rows, NormalBlock<T>{seed, draw_number}, NormalScale<T>{middle, spread}, stream);
  });
}

}  // namespace shardwise::detail::device

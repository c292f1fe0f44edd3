// Kernels that draw random numbers. Compiled without contracting products and sums, so that they round as on the host.
#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/random.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>

namespace shardwise::detail::device {

namespace {

template <class T, class Block, class Finish>
void draw(void* out, std::int64_t first, std::int64_t n, const Block& block, const Finish& finish,
          const StreamView& stream) {
  const RandomBody<T, Block, Finish> body{static_cast<T*>(out), first, n, block, finish};
  launch(body, body.blocks(), stream);
}

}  // namespace

void fill_uniform(DType dtype, void* out, std::uint64_t seed, std::uint64_t draw_number, std::int64_t first,
                  std::int64_t n, double low, double high, const StreamView& stream) {
  visit_some<TakesReal>("a random number", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    // As the host rounds them: to the element type first.
    const A from = static_cast<A>(static_cast<T>(low)), to = static_cast<A>(static_cast<T>(high));
    draw<T>(out, first, n, UniformBlock<T>{seed, draw_number}, UniformRange<T>{from, to}, stream);
  });
}

void fill_normal(DType dtype, void* out, std::uint64_t seed, std::uint64_t draw_number, std::int64_t first,
                 std::int64_t n, double mean, double deviation, const StreamView& stream) {
  visit_some<TakesReal>("a random number", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const A middle = static_cast<A>(static_cast<T>(mean)), spread = static_cast<A>(static_cast<T>(deviation));
    draw<T>(out, first, n, NormalBlock<T>{seed, draw_number}, NormalScale<T>{middle, spread}, stream);
  });
}

}  // namespace shardwise::detail::device

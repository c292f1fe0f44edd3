// Kernels over rows: softmax, norms, cross entropy.
#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/rows.hpp>
#include <shardwise/cuda/bodies/steps.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>
#include <shardwise/cuda/memory.hpp>

#include "sum_passes.hpp"

namespace shardwise::detail::device {

namespace {

template <class Body>
struct OneThread {
  Body body;
  SHARDWISE_HOST_DEVICE void operator()(std::int64_t row) const { body(row, SerialTeam()); }
};

// One row a team where neighbours lie side by side; one row a thread where the neighbours of an element belong to other rows.
template <class Body>
void launch_rows(const Body& body, std::int64_t rows, std::int64_t n, std::int64_t inner, const StreamView& stream) {
  if (inner == 1 && n > 8)
    launch_teams(body, rows, lanes_of(n), stream);
  else
    launch(OneThread<Body>{body}, rows, stream);
}

RowShape row_shape(std::int64_t n, std::int64_t inner) { return {n, Divider(inner)}; }

}  // namespace

void softmax(DType dtype, bool log, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
             const StreamView& stream) {
  if (n == 0) return;
  visit_some<TakesReal>("softmax", dtype, [&]<class T>(T) {
    const SoftmaxBody<T> body{log, static_cast<const T*>(x), static_cast<T*>(y), row_shape(n, inner)};
    launch_rows(body, outer * inner, n, inner, stream);
  });
}

void softmax_backward(DType dtype, bool log, const void* y, const void* dy, void* dx, std::int64_t outer,
                      std::int64_t n, std::int64_t inner, const StreamView& stream) {
  if (n == 0) return;
  visit_some<TakesReal>("softmax", dtype, [&]<class T>(T) {
    const SoftmaxGradientBody<T> body{log, static_cast<const T*>(y), static_cast<const T*>(dy), static_cast<T*>(dx),
                                      row_shape(n, inner)};
    launch_rows(body, outer * inner, n, inner, stream);
  });
}

void norm(DType dtype, const void* x, const void* weight, const void* bias, double eps, std::int64_t rows,
          std::int64_t width, void* y, void* mean, void* rstd, const StreamView& stream) {
  visit_some<TakesReal>("a norm", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const NormBody<T> body{static_cast<const T*>(x),
                           static_cast<const T*>(weight),
                           static_cast<const T*>(bias),
                           static_cast<A>(eps),
                           width,
                           static_cast<T*>(y),
                           static_cast<A*>(mean),
                           static_cast<A*>(rstd)};
    launch_teams(body, rows, lanes_of(width), stream);
  });
}

void norm_backward(DType dtype, const void* x, const void* weight, const void* dy, const void* mean, const void* rstd,
                   std::int64_t rows, std::int64_t width, void* dx, void* dweight, void* dbias,
                   const StreamView& stream) {
  visit_some<TakesReal>("a norm", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const auto* const from = static_cast<const T*>(x);
    const auto* const g = static_cast<const T*>(dy);
    const auto* const m = static_cast<const A*>(mean);
    const auto* const s = static_cast<const A*>(rstd);
    if (dx != nullptr)
      launch_teams(NormGradientBody<T>{from, static_cast<const T*>(weight), g, m, s, width, static_cast<T*>(dx)}, rows,
                   lanes_of(width), stream);
    if (dweight != nullptr) sum_loaded<T, double>(NormWeightLoad<T>{from, g, m, s}, dweight, 1, rows, width, stream);
  });
  if (dbias != nullptr) sum_dim(dtype, dy, dbias, 1, rows, width, stream);
}

void cross_entropy(DType dtype, const CrossEntropy& in, void* loss, void* saved, double* sums, std::int64_t* invalid,
                   const StreamView& stream) {
  const std::int64_t rows = in.outer * in.inner;
  visit_some<TakesReal>("cross_entropy", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const Buffer terms =
        sums != nullptr ? device_buffer(2 * static_cast<std::size_t>(rows) * sizeof(double), stream) : Buffer();
    double* const each = sums != nullptr ? terms.as<double>() : nullptr;
    launch_rows(
        CrossEntropyBody<T>{{row_shape(in.classes, in.inner), static_cast<const T*>(in.logits), in.target,
                             static_cast<const T*>(in.weight), in.ignore_index, static_cast<A>(in.label_smoothing)},
                            static_cast<T*>(loss),
                            static_cast<A*>(saved),
                            each,
                            rows,
                            invalid},
        rows, in.classes, in.inner, stream);
    if (sums != nullptr) sum_dim(DType::float64, each, sums, 2, rows, 1, stream);
  });
}

void cross_entropy_backward(DType dtype, const CrossEntropy& in, const void* saved, const void* row_scale,
                            const void* scale, void* dlogits, const StreamView& stream) {
  visit_some<TakesReal>("cross_entropy", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    launch_rows(CrossEntropyGradientBody<T>{{row_shape(in.classes, in.inner), static_cast<const T*>(in.logits),
                                             in.target, static_cast<const T*>(in.weight), in.ignore_index,
                                             static_cast<A>(in.label_smoothing)},
                                            static_cast<const A*>(saved),
                                            static_cast<const T*>(row_scale),
                                            static_cast<const A*>(scale),
                                            static_cast<T*>(dlogits)},
                in.outer * in.inner, in.classes, in.inner, stream);
  });
}

void kept_weight(DType dtype, const std::int64_t* target, std::int64_t n, std::int64_t classes, const void* weight,
                 std::int64_t ignore_index, double* sum, const StreamView& stream) {
  visit_some<TakesReal>("cross_entropy", dtype, [&]<class T>(T) {
    const Buffer terms = device_buffer(static_cast<std::size_t>(n) * sizeof(double), stream);
    launch(KeptWeightBody<T>{target, classes, static_cast<const T*>(weight), ignore_index, terms.as<double>()}, n,
           stream);
    sum_dim(DType::float64, terms.data(), sum, 1, n, 1, stream);
  });
}

void reduced_loss(DType dtype, const double* loss, const double* weight, void* out, const StreamView& stream) {
  visit_some<TakesReal>("cross_entropy", dtype,
                        [&]<class T>(T) { launch(ReducedLossBody<T>{loss, weight, static_cast<T*>(out)}, 1, stream); });
}

void loss_scale(DType dtype, const void* gradient, const double* weight, void* out, const StreamView& stream) {
  visit_some<TakesReal>("cross_entropy", dtype, [&]<class T>(T) {
    launch(LossScaleBody<T>{static_cast<const T*>(gradient), weight, static_cast<Accumulator<T>*>(out)}, 1, stream);
  });
}

}  // namespace shardwise::detail::device

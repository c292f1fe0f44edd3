// Kernels over rows and sums: softmax, norms, cross entropy, sums over a dimension, gradients of a table.
#include <shardwise/base/broadcast.hpp>
#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/rows.hpp>
#include <shardwise/cuda/bodies/sums.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>
#include <shardwise/cuda/memory.hpp>

namespace shardwise::detail::device {

namespace {

// Threads for a row of n elements: a warp up to 256, a block of 256 beyond.
int lanes_of(std::int64_t n) { return n <= 256 ? 32 : 256; }

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

// How many runs a sum of n is cut into, so that there is work for a device: about 4096 teams, none with less than `least` elements.
std::int64_t parts_of(std::int64_t n, std::int64_t teams, std::int64_t least) {
  const std::int64_t most = (n + least - 1) / least, wanted = teams > 0 ? (4096 + teams - 1) / teams : 1;
  return most < wanted ? (most < 1 ? 1 : most) : wanted;
}

// Columns are added up side by side, also where there is one (`rows` false).
template <class T, class S, class Load>
void sum_pass(const Load& load, bool rows, void* out, S* partial, std::int64_t outer, std::int64_t n,
              std::int64_t inner, std::int64_t parts, const StreamView& stream) {
  const std::int64_t run = (n + parts - 1) / parts;
  const SumShape shape{n, inner, run > 0 ? run : 1, Divider(parts)};
  const SumTarget<T, S> target{static_cast<T*>(out), partial};
  if constexpr (std::is_same_v<Load, SumLoad<T, S>>)
    if (rows) return launch_teams(SumRowBody<Load, T, S>{load, target, shape}, outer * parts, lanes_of(run), stream);
  using Body = SumColumnBody<Load, T, S>;
  const std::int64_t strips = (inner + Body::columns - 1) / Body::columns;
  launch_teams(Body{load, target, shape, Divider(strips)}, outer * parts * strips, 256, stream);
}

// y (outer, inner) of type T = sum over n of what `load` gives, kept in S.
template <class T, class S, class Load>
void sum_loaded(const Load& load, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
                const StreamView& stream) {
  if (outer * inner == 0) return;
  const bool rows = inner == 1 && std::is_same_v<Load, SumLoad<T, S>>;
  const std::int64_t wanted = parts_of(n, outer * ((inner + 31) / 32), rows ? 4096 : 256);
  const std::int64_t run = (n + wanted - 1) / wanted;
  const std::int64_t parts = run > 0 ? (n + run - 1) / run : 1;  // none is empty
  S* const at_once = nullptr;
  if (parts <= 1) return sum_pass<T, S>(load, rows, y, at_once, outer, n, inner, 1, stream);
  const Buffer partial = device_buffer(static_cast<std::size_t>(outer * parts * inner) * sizeof(S), stream);
  sum_pass<T, S>(load, rows, nullptr, partial.as<S>(), outer, n, inner, parts, stream);
  sum_pass<T, S>(SumLoad<T, S>{nullptr, partial.as<S>()}, inner == 1, y, at_once, outer, parts, inner, 1, stream);
}

template <class T>
using SumOf = kernels::SumAccumulator<T>;

}  // namespace

void sum_dim(DType dtype, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
             const StreamView& stream) {
  visit_dtype(dtype, [&]<class T>(T) {
    sum_loaded<T, SumOf<T>>(SumLoad<T, SumOf<T>>{static_cast<const T*>(x), nullptr}, y, outer, n, inner, stream);
  });
}

void spread_dim(DType dtype, const void* dy, void* dx, std::int64_t outer, std::int64_t n, std::int64_t inner,
                double factor, const StreamView& stream) {
  if (n * inner == 0) return;
  visit_some<TakesField>("the gradient of a sum", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    A number;
    if constexpr (is_complex<T>)
      number = A(static_cast<decltype(number.real)>(factor), 0);
    else
      number = static_cast<A>(factor);
    launch(SpreadBody<T>{static_cast<const T*>(dy), static_cast<T*>(dx), number, Divider(inner), Divider(n * inner)},
           outer * n * inner, stream);
  });
}

void reduce_to(DType dtype, const Extents& sout, const void* g, const Extents& sa, void* out,
               const StreamView& stream) {
  const kernels::SumRuns runs(sout, sa);
  int left = runs.repeated_runs;
  const std::size_t element = size_of(dtype);
  if (left == 0) {
    if (sout.elements() > 0 && g != out)
      SHARDWISE_CUDA(cudaMemcpyAsync(out, g, static_cast<std::size_t>(sout.elements()) * element,
                                     cudaMemcpyDeviceToDevice, stream.handle));
    return;
  }
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < runs.count; ++i) outer *= runs.size[i];
  if (outer == 0) {
    if (sa.elements() > 0)  // zero is all bits zero in every type
      SHARDWISE_CUDA(cudaMemsetAsync(out, 0, static_cast<std::size_t>(sa.elements()) * element, stream.handle));
    return;
  }
  Buffer held;
  for (int i = 0; i < runs.count; ++i) {
    outer /= runs.size[i];
    if (!runs.repeated[i]) {
      inner *= runs.size[i];
      continue;
    }
    if (--left == 0) return sum_dim(dtype, g, out, outer, runs.size[i], inner, stream);
    Buffer next = device_buffer(static_cast<std::size_t>(outer * inner) * element, stream);
    sum_dim(dtype, g, next.data(), outer, runs.size[i], inner, stream);
    held = std::move(next);
    g = held.data();
  }
}

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

void embedding_backward(DType dtype, const void* dy, const std::int64_t* index, std::int64_t n, std::int64_t first,
                        std::int64_t count, std::int64_t width, void* dtable, const StreamView& stream) {
  // Complex numbers are rows of twice as many real ones.
  if (dtype == DType::complex64)
    return embedding_backward(DType::float32, dy, index, n, first, count, 2 * width, dtable, stream);
  if (dtype == DType::complex128)
    return embedding_backward(DType::float64, dy, index, n, first, count, 2 * width, dtable, stream);
  const std::int64_t size = count * width;
  if (size == 0) return;
  visit_some<TakesReal>("the gradient of a table", dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    constexpr bool same = std::is_same_v<T, A>;  // else a row that occurs often would stop growing in 16 bits
    const Buffer sums = same ? Buffer() : device_buffer(static_cast<std::size_t>(size) * sizeof(A), stream);
    A* const into = same ? static_cast<A*>(dtable) : sums.as<A>();
    SHARDWISE_CUDA(cudaMemsetAsync(into, 0, static_cast<std::size_t>(size) * sizeof(A), stream.handle));
    launch(ScatterAddBody<T>{static_cast<const T*>(dy), index, into, first, count, Divider(width)}, n * width, stream);
    if constexpr (!same) cast(dtype_of<A>, into, dtype, dtable, size, stream);
  });
}

}  // namespace shardwise::detail::device

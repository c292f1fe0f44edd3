// Kernels of one and two operands, and the reduction of several buffers.
#include <vector>

#include <shardwise/cuda/bodies/dispatch.hpp>
#include <shardwise/cuda/bodies/elementwise.hpp>
#include <shardwise/cuda/bodies/steps.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/launch.hpp>
#include <shardwise/cuda/memory.hpp>

namespace shardwise::detail::device {

namespace {

template <class T>
void zip(Operand<T> a, Operand<T> b, const kernels::BroadcastLoops& loops, void* out, Function f,
         const StreamView& stream) {
  const ZipBody<T> body(a, b, loops, static_cast<T*>(out), f);
  launch(body, body.chunks(), stream);
}
template <class T>
Operand<T> elements(const void* p) {
  return {static_cast<const T*>(p), {}};
}
// out[i] = f(a[i], b[i]); b null: f of a alone.
template <class T>
void zip_alike(const void* a, const void* b, void* out, std::int64_t n, Function f, const StreamView& stream) {
  if (n == 0) return;
  const Extents shape(Shape<1>{n});
  zip(elements<T>(a), elements<T>(b), kernels::BroadcastLoops(shape, shape, shape), out, f, stream);
}

void check_quotient(DType dtype, Binary op) {
  SHARDWISE_REQUIRE(op != Binary::div || (dtype != DType::int32 && dtype != DType::int64 && dtype != DType::uint8),
                    text("shardwise: a quotient has no meaning for ", to_string(dtype)));
}

}  // namespace

void reduce_terms(DType dtype, void* out, const void* const* terms, int count, std::int64_t n, ReduceOp op,
                  const StreamView& stream) {
  SHARDWISE_REQUIRE(count >= 1 && count <= max_terms, text("shardwise::reduce_terms: ", count, " terms; 1 to ",
                                                           max_terms, " meet in one call on a device"));
  const bool ordered = dtype != DType::complex64 && dtype != DType::complex128;
  SHARDWISE_REQUIRE(ordered || (op != ReduceOp::max && op != ReduceOp::min),
                    "shardwise::reduce_terms: complex numbers have no maximum and no minimum");
  visit_dtype(dtype, [&]<class T>(T) {
    const ReduceBody<T> body(static_cast<T*>(out), terms, count, n, op);
    launch(body, body.chunks(), stream);
  });
}

void unary(DType dtype, Unary f, const void* x, void* y, std::int64_t n, const StreamView& stream) {
  const auto run = [&]<class T>(T) { zip_alike<T>(x, nullptr, y, n, function_of(f), stream); };
  f == Unary::neg ? visit_dtype(dtype, run) : visit_some<TakesReal>("an elementwise function", dtype, run);
}

void unary_backward(DType dtype, Unary f, const void* x, const void* y, const void* dy, void* dx, std::int64_t n,
                    const StreamView& stream) {
  if (f == Unary::neg) return unary(dtype, f, dy, dx, n, stream);
  const void* const v = kernels::unary_backward_reads_output(f) ? y : x;
  visit_some<TakesReal>("the derivative of an elementwise function", dtype,
                        [&]<class T>(T) { zip_alike<T>(v, dy, dx, n, derivative_of(f), stream); });
}

void binary(DType dtype, Binary op, const Extents& sa, const void* a, const Extents& sb, const void* b,
            const Extents& sout, void* out, const StreamView& stream) {
  check_quotient(dtype, op);
  if (sout.elements() == 0) return;
  const kernels::BroadcastLoops loops(sa, sb, sout);
  visit_dtype(dtype, [&]<class T>(T) { zip(elements<T>(a), elements<T>(b), loops, out, function_of(op), stream); });
}

void binary_scalar(DType dtype, Binary op, const void* a, const void* number, bool reversed, void* out, std::int64_t n,
                   const StreamView& stream) {
  check_quotient(dtype, op);
  if (n == 0) return;
  const Extents shape(Shape<1>{n});
  const kernels::BroadcastLoops loops(shape, shape, shape);
  visit_dtype(dtype, [&]<class T>(T) {
    T given;
    std::memcpy(&given, number, sizeof given);
    const Operand<T> value{nullptr, static_cast<Accumulator<T>>(given)};
    reversed ? zip(value, elements<T>(a), loops, out, function_of(op), stream)
             : zip(elements<T>(a), value, loops, out, function_of(op), stream);
  });
}

void binary_backward(DType dtype, Binary op, const Extents& sa, const void* a, const Extents& sb, const void* b,
                     const Extents& sout, const void* dy, void* da, void* db, const StreamView& stream) {
  const bool sum = op == Binary::add || op == Binary::sub;
  visit_some<TakesField>("the gradient of arithmetic", dtype, [&]<class T>(T) {
    // f(value of the operand, gradient) for an operand's own elements; what they are repeated to is summed.
    const auto by_operand = [&](const Extents& shape, const void* operand, void* into, const Extents& target,
                                Function f) {
      const bool repeated = target != sout;
      const Buffer terms =
          repeated ? device_buffer(static_cast<std::size_t>(sout.elements()) * sizeof(T), stream) : Buffer();
      void* const product = repeated ? terms.data() : into;
      if (sout.elements() > 0)
        zip(elements<T>(operand), elements<T>(dy), kernels::BroadcastLoops(shape, sout, sout), product, f, stream);
      if (repeated) reduce_to(dtype, sout, product, target, into, stream);
    };
    if (da != nullptr) {
      if (sum)
        reduce_to(dtype, sout, dy, sa, da, stream);
      else
        by_operand(sb, b, da, sa, op == Binary::mul ? Function::product_gradient : Function::quotient_gradient);
    }
    if (db == nullptr) return;
    if (sum)
      reduce_to(dtype, sout, dy, sb, db, stream);
    else
      by_operand(sa, a, db, sb, Function::product_gradient);
    if (op == Binary::sub)
      unary(dtype, Unary::neg, db, db, sb.elements(), stream);
    else if (op == Binary::div)  // b is constant over what was summed
      zip_alike<T>(db, b, db, sb.elements(), Function::divisor_gradient, stream);
  });
}

void scale(DType dtype, const void* x, double factor, void* y, std::int64_t n, const StreamView& stream) {
  if (n == 0) return;
  const Extents shape(Shape<1>{n});
  const kernels::BroadcastLoops loops(shape, shape, shape);
  visit_dtype(dtype, [&]<class T>(T) {
    zip(elements<T>(x), Operand<T>{nullptr, Convert<Accumulator<T>>::from(factor)}, loops, y, Function::mul, stream);
  });
}

void add_to(DType dtype, void* y, const void* x, std::int64_t n, const StreamView& stream) {
  visit_dtype(dtype, [&]<class T>(T) { zip_alike<T>(y, x, y, n, Function::add, stream); });
}

void dropout(DType dtype, const void* x, const float* uniform, double p, void* y, std::uint8_t* mask, std::int64_t n,
             const StreamView& stream) {
  visit_some<TakesReal>("dropout", dtype, [&]<class T>(T) {
    const auto factor = static_cast<Accumulator<T>>(p < 1 ? 1 / (1 - p) : 0);
    launch(DropoutBody<T>{static_cast<const T*>(x), uniform, static_cast<T*>(y), mask, static_cast<float>(p), factor},
           n, stream);
  });
}

void dropout_backward(DType dtype, const void* dy, const std::uint8_t* mask, double p, void* dx, std::int64_t n,
                      const StreamView& stream) {
  visit_some<TakesReal>("dropout", dtype, [&]<class T>(T) {
    const auto factor = static_cast<Accumulator<T>>(p < 1 ? 1 / (1 - p) : 0);
    launch(DropoutGradientBody<T>{static_cast<const T*>(dy), mask, static_cast<T*>(dx), factor}, n, stream);
  });
}

void descend(DType dtype, void* x, const void* gradient, void* momentum, std::int64_t n, const SgdStep& step,
             const StreamView& stream) {
  visit_dtype_as_reals(dtype, n, [&]<class T>(T, std::int64_t count) {
    if constexpr (RealElement<T>)
      launch(SgdBody<T>{static_cast<T*>(x), static_cast<const T*>(gradient), static_cast<T*>(momentum),
                        SgdStepOf<Accumulator<T>>(step)},
             count, stream);
  });
}

}  // namespace shardwise::detail::device

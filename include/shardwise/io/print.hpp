// to_string(tensor) and operator<<: the values as PyTorch shows them, shortened where there are many, then shape, element
// type and, on a mesh, placements by axis and the part that this rank holds. Never communicates. Layer: io.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iosfwd>
#include <string>

#include <shardwise/base/text.hpp>
#include <shardwise/tensor/tensor.hpp>

namespace shardwise {

/// How tensors are shown. PyTorch: `torch.set_printoptions`.
struct PrintOptions {
  /// Digits behind the point.
  int precision = 4;
  /// Above this many elements only `edge_items` at each end of a dimension are shown.
  std::int64_t threshold = 1000;
  std::int64_t edge_items = 3;
};

namespace detail {

// One notation for all values of a tensor, as in PyTorch: integers as "1.", the rest fixed, or scientific where the
// values are large, small or far apart.
enum class Notation { integer, whole, fixed, scientific };

struct ValueFormat {
  Notation notation = Notation::whole;
  int precision = 4;

  std::string operator()(double x) const {
    if (x != x) return "nan";
    if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
    char text[64];
    if (notation == Notation::whole)
      std::snprintf(text, sizeof text, "%.0f.", x);
    else if (notation == Notation::fixed)
      std::snprintf(text, sizeof text, "%.*f", precision, x);
    else
      std::snprintf(text, sizeof text, "%.*e", precision, x);
    return text;
  }
};

struct ValueRange {
  double least = HUGE_VAL;
  double most = 0;
  bool whole = true;

  void add(double x) {
    if (x != x || std::isinf(x)) return;
    const double size = std::fabs(x);
    whole = whole && std::floor(size) == size;
    if (size > most) most = size;
    if (size > 0 && size < least) least = size;
  }
  ValueFormat format(int precision) const {
    if (most == 0) return {Notation::whole, precision};
    const bool wide = most / least > 1000 || most > 1e8;
    if (whole) return {wide && most > 1e8 ? Notation::scientific : Notation::whole, precision};
    return {wide || least < 1e-4 ? Notation::scientific : Notation::fixed, precision};
  }
};

// Calls f(i) for the indices of a dimension of n that are shown, and gap() once where some are left out.
template <class F, class G>
void for_each_shown(std::int64_t n, bool shortened, std::int64_t edge, F f, G gap) {
  const bool leave_out = shortened && n > 2 * edge;
  for (std::int64_t i = 0; i < n; ++i) {
    if (leave_out && i == edge) {
      gap();
      i = n - edge;
    }
    f(i);
  }
}

// Calls f(offset) for every element shown.
template <class F>
void visit_shown(const Extents& shape, int d, std::int64_t offset, bool shortened, std::int64_t edge, F& f) {
  if (d == shape.rank) return f(offset);
  const std::int64_t stride = shape.elements(d + 1, shape.rank);
  for_each_shown(
      shape[d], shortened, edge,
      [&](std::int64_t i) { visit_shown(shape, d + 1, offset + i * stride, shortened, edge, f); }, [] {});
}

template <class F>
void print_nested(std::string& out, const Extents& shape, int d, std::int64_t offset, bool shortened, std::int64_t edge,
                  F& element) {
  if (d == shape.rank) {
    out += element(offset);
    return;
  }
  const std::int64_t stride = shape.elements(d + 1, shape.rank);
  const bool innermost = d + 1 == shape.rank;
  std::string between = ", ";
  if (!innermost)
    between = "," + std::string(static_cast<std::size_t>(shape.rank - d - 1), '\n') +
              std::string(static_cast<std::size_t>(d) + 1, ' ');
  bool first = true;
  out += "[";
  for_each_shown(
      shape[d], shortened, edge,
      [&](std::int64_t i) {
        if (!first) out += between;
        first = false;
        print_nested(out, shape, d + 1, offset + i * stride, shortened, edge, element);
      },
      [&] { out += between + "..."; });
  out += "]";
}

template <class T>
std::string print_values(const T* data, const Extents& shape, const PrintOptions& options) {
  const bool shortened = shape.elements() > options.threshold;
  std::string out;
  if (shape.elements() == 0) return "[]";
  std::size_t width = 0;
  const auto all = [&](auto text) {
    const auto measure = [&](std::int64_t i) {
      const std::size_t n = text(data[i]).size();
      width = n > width ? n : width;
    };
    visit_shown(shape, 0, 0, shortened, options.edge_items, measure);
    const auto padded = [&](std::int64_t i) {
      const std::string s = text(data[i]);
      return std::string(width - s.size(), ' ') + s;
    };
    print_nested(out, shape, 0, 0, shortened, options.edge_items, padded);
  };
  ValueRange range;
  const auto note = [&](std::int64_t i) {
    if constexpr (is_complex<T>) {
      range.add(static_cast<double>(data[i].real()));
      range.add(static_cast<double>(data[i].imag()));
    } else {
      range.add(static_cast<double>(data[i]));
    }
  };
  visit_shown(shape, 0, 0, shortened, options.edge_items, note);
  const ValueFormat format = range.format(options.precision);
  if constexpr (is_complex<T>)
    all([&](const T& z) {
      const std::string im = format(static_cast<double>(z.imag()));
      return format(static_cast<double>(z.real())) + (im[0] == '-' ? "" : "+") + im + "j";
    });
  else if constexpr (RealElement<T>)
    all([&](const T& x) { return format(static_cast<double>(x)); });
  else
    all([](const T& x) { return std::to_string(x); });
  return out;
}

inline std::string print_placement(const PlacementValue& p) {
  if (p.is_shard()) return text("Shard<", p.dim, ">");
  if (p.is_replicate()) return "Replicate";
  if (p.is_interleaved())
    return text(p.kind == PlacementKind::strided ? "StridedShard<" : "BlockCyclic<", p.dim, ", ", p.block, ">");
  if (p.op == ReduceOp::sum) return "Partial<>";
  return text("Partial<", shardwise::to_string(p.op), ">");
}

}  // namespace detail

/// `Tensor([[1., 2.]], shape=[1, 2], float)`; of a distributed tensor the part that this rank holds, the placement on each
/// mesh axis and, where it is not the whole, the shape and the offset of the part:
/// `DTensor([[1., 2.]], shape=[4, 2], float, dp=Shard<0>, local=[1, 2] at [3, 0])`.
template <class T, std::size_t R, class L>
std::string to_string(const BasicTensor<T, R, L>& x, const PrintOptions& options = {}) {
  constexpr bool distributed = BasicTensor<T, R, L>::distributed;
  const std::string name = distributed ? "DTensor" : "Tensor";
  if (!x.defined()) return name + "(undefined)";
  const detail::Extents& global = x.impl()->global;
  const detail::Extents& local = x.impl()->local;
  std::string values = detail::print_values(x.data(), local, options);
  // Lines after the first stand below the values.
  const std::string indent(name.size() + 1, ' ');
  std::string out = name + "(";
  for (std::size_t i = 0; i < values.size(); ++i) {
    out += values[i];
    if (values[i] == '\n' && i + 1 < values.size() && values[i + 1] != '\n') out += indent;
  }
  out += ", shape=" + detail::to_string(global) + ", " + to_string(dtype_of<T>);
  if constexpr (distributed) {
    using Mesh = std::remove_cvref_t<decltype(x.mesh())>;
    for (std::size_t a = 0; a < Mesh::ndim; ++a)
      out += ", " + std::string(Mesh::names[a].view()) + "=" + detail::print_placement(x.placements[a]);
    if (!(local == global)) out += ", local=" + detail::to_string(local);
    if constexpr (!detail::is_interleaved(BasicTensor<T, R, L>::placements))
      if (!(local == global)) out += " at " + shardwise::to_string(x.local_offset());
  }
  if (x.requires_grad()) out += ", requires_grad";
  return out + ")";
}

/// As `to_string(x)`. Each rank writes its own part. (Over the stream's traits, so that <ostream> is parsed where it is used.)
template <class Traits, class T, std::size_t R, class L>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out, const BasicTensor<T, R, L>& x) {
  return out << to_string(x);
}

}  // namespace shardwise

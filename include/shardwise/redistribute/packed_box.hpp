// A box of a local tensor as bytes one after the other: where they lie so already, and pieces of them where they do not.
// Layer: redistribute.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <shardwise/placement/walk.hpp>
#include <shardwise/redistribute/run_copy.hpp>

namespace shardwise::detail {

// `part` of a tensor that holds `held`, elements of `element` bytes. Trivial, so that lists of them lie in a Buffer.
class PackedBox {
 public:
  PackedBox(const Box& part, const Box& held, std::size_t element)
      : walk_(walk(part, held, part)), element_(static_cast<std::int64_t>(element)),
        bytes_(walk_.empty ? 0 : part.size.elements() * element_) {}

  std::int64_t bytes() const { return bytes_; }
  bool in_one_piece() const { return bytes_ > 0 && walk_.rank == 1; }
  // Where it lies in the tensor; null unless in one piece.
  template <class Byte>
  Byte* in(Byte* tensor) const {
    return in_one_piece() ? tensor + walk_.start_a * element_ : nullptr;
  }

  // Writes the bytes [at, at + bytes) of it to `to`.
  void pack(const std::byte* tensor, std::size_t at, std::size_t bytes, std::byte* to) const {
    const std::int64_t row_bytes = walk_.extent[walk_.rank - 1] * element_;
    std::int64_t row = static_cast<std::int64_t>(at) / row_bytes, done = static_cast<std::int64_t>(at) % row_bytes;
    for (auto left = static_cast<std::int64_t>(bytes); left > 0;) {
      const std::byte* const from = tensor + row_start(row) * element_;
      if (done > 0 || left < row_bytes) {  // a part of a row
        const std::int64_t n = std::min(left, row_bytes - done);
        std::memcpy(to, from + done, static_cast<std::size_t>(n));
        to += n, left -= n, done = 0, ++row;
        continue;
      }
      // All that are as far from each other: those of the innermost dimension of rows.
      const bool alone = walk_.rank == 1;
      const std::int64_t in_a_dimension = alone ? 1 : walk_.extent[walk_.rank - 2];
      const std::int64_t rows = std::min(left / row_bytes, in_a_dimension - row % in_a_dimension);
      const std::int64_t step = alone ? 0 : walk_.stride_a[walk_.rank - 2];
      copy_steps({rows, walk_.extent[walk_.rank - 1], step, walk_.extent[walk_.rank - 1]}, from, to, element_, 0,
                 false);
      to += rows * row_bytes, left -= rows * row_bytes, row += rows;
    }
  }

 private:
  std::int64_t row_start(std::int64_t row) const {
    std::int64_t at = walk_.start_a;
    for (int d = walk_.rank - 2; d >= 0; --d) {
      at += row % walk_.extent[d] * walk_.stride_a[d];
      row /= walk_.extent[d];
    }
    return at;
  }

  Walk walk_;
  std::int64_t element_;
  std::int64_t bytes_;
};

}  // namespace shardwise::detail

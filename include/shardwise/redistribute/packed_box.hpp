// A box of a local tensor as bytes one after the other: where they lie so already, and pieces of them where they do not, there and
// back.
// Layer: redistribute.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <shardwise/comm/stream.hpp>
#include <shardwise/placement/walk.hpp>
#include <shardwise/redistribute/run_copy.hpp>

namespace shardwise::detail {

// `part` of a tensor that holds `held`, elements of `element` bytes. Trivial, so that lists of them lie in a Buffer.
class PackedBox {
 public:
  PackedBox() = default;  // of nothing
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

  // Writes the bytes [at, at + bytes) of it to `to`: past the caches where they are more than a core keeps.
  template <class = void>
  void pack(const std::byte* tensor, std::size_t at, std::size_t bytes, std::byte* to) const {
    const bool stream = bytes >= streamed_piece;
    for_each_row_in(at, bytes, [&](std::int64_t start, std::int64_t rows, std::int64_t step, std::int64_t n) {
      if (rows == 0)
        std::memcpy(to, tensor + start, static_cast<std::size_t>(n));
      else
        copy_steps({rows, n / element_, step, n / element_}, tensor + start, to, element_, 0, stream);
      to += std::max<std::int64_t>(rows, 1) * n;
    });
    if (stream) stream_fence();
  }
  // And back. `stream`: past the caches; stream_fence() must follow.
  template <class = void>
  void unpack(const std::byte* from, std::size_t at, std::size_t bytes, std::byte* tensor, bool stream) const {
    for_each_row_in(at, bytes, [&](std::int64_t start, std::int64_t rows, std::int64_t step, std::int64_t n) {
      if (rows == 0)
        std::memcpy(tensor + start, from, static_cast<std::size_t>(n));
      else
        copy_steps({rows, n / element_, n / element_, step}, from, tensor + start, element_, 0, stream);
      from += std::max<std::int64_t>(rows, 1) * n;
    });
  }

 private:
  static constexpr std::size_t streamed_piece = std::size_t{512} << 10;

  // f(start, rows, step, n): `rows` rows of n bytes, from byte `start` of the tensor on, `step` elements from one to the next; or no
  // rows, but n bytes of one.
  template <class F>
  void for_each_row_in(std::size_t at, std::size_t bytes, F f) const {
    const std::int64_t row_bytes = walk_.extent[walk_.rank - 1] * element_;
    std::int64_t row = static_cast<std::int64_t>(at) / row_bytes, done = static_cast<std::int64_t>(at) % row_bytes;
    for (auto left = static_cast<std::int64_t>(bytes); left > 0;) {
      const std::int64_t start = row_start(row) * element_;
      if (done > 0 || left < row_bytes) {
        const std::int64_t n = std::min(left, row_bytes - done);
        f(start + done, 0, 0, n);
        left -= n, done = 0, ++row;
        continue;
      }
      // All that are as far from each other: those of the innermost dimension of rows.
      const bool alone = walk_.rank == 1;
      const std::int64_t in_a_dimension = alone ? 1 : walk_.extent[walk_.rank - 2];
      const std::int64_t rows = std::min(left / row_bytes, in_a_dimension - row % in_a_dimension);
      const std::int64_t step = alone ? 0 : walk_.stride_a[walk_.rank - 2];
      f(start, rows, step, row_bytes);
      left -= rows * row_bytes, row += rows;
    }
  }

  std::int64_t row_start(std::int64_t row) const {
    std::int64_t at = walk_.start_a;
    for (int d = walk_.rank - 2; d >= 0; --d) {
      at += row % walk_.extent[d] * walk_.stride_a[d];
      row /= walk_.extent[d];
    }
    return at;
  }

  Walk walk_{};
  std::int64_t element_ = 1;
  std::int64_t bytes_ = 0;
};

}  // namespace shardwise::detail

// What ranks and the store say to each other. A server greets with a nonce; the client answers who it is, with a code
// that only one who knows the token can make of the nonces; the server answers with its own, or why it refuses. Then
// come frames: length, type, fields, least byte first. Layer: backends/process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <sys/random.h>

#include <shardwise/backends/process/descriptor.hpp>
#include <shardwise/backends/process/key_value_store.hpp>
#include <shardwise/backends/process/sha256.hpp>

namespace shardwise::detail {

inline constexpr std::string_view store_magic = "SHWSTOR1";
inline constexpr std::size_t nonce_size = 32;
inline constexpr std::size_t greeting_size = store_magic.size() + nonce_size;
inline constexpr std::size_t longest_run_id = 256;
// Before a rank has shown that it belongs here, and after.
inline constexpr std::size_t largest_hello = 512;
inline constexpr std::size_t largest_frame = KeyValueStore::largest_value + KeyValueStore::longest_key + 64;

enum class Frame : std::uint8_t {
  hello,    // rank, size, nonce, run id, code
  welcome,  // code
  refused,  // Refusal, words
  set,      // key, value
  get,      // request, key
  forget,   // request
  value,    // request, value
  missing,  // request; answered by `value` with the ranks that have not joined
  failed,   // to the server: kind, found by, message
  depart,   // words
  notice,   // NoticeKind, rank, kind, found by, message
  complete  // all ranks have joined
};

// Why a connection is refused. `size` and `duplicate` are final for a rank; the others may pass, or be met at another port.
enum class Refusal : std::uint8_t { not_a_rank, slow, crowded, token, other_run, size, rank, duplicate };

inline std::string random_nonce() {
  std::string nonce(nonce_size, '\0');
  SHARDWISE_REQUIRE(getrandom(nonce.data(), nonce.size(), 0) == static_cast<ssize_t>(nonce_size),
                    text("shardwise: getrandom: ", system_text()));
  return nonce;
}

// A frame to send.
class FrameWriter {
 public:
  explicit FrameWriter(Frame type) : bytes_(4, '\0') { bytes_ += static_cast<char>(type); }
  FrameWriter& number(std::uint64_t n) {
    for (int i = 0; i < 8; ++i) bytes_ += static_cast<char>(n >> (8 * i) & 0xff);
    return *this;
  }
  FrameWriter& words(std::string_view s) {
    number(s.size());
    bytes_ += s;
    return *this;
  }
  FrameWriter& failure(const Failure& f) {
    return number(static_cast<std::uint64_t>(f.kind)).number(static_cast<std::uint64_t>(f.found_by)).words(f.message);
  }
  std::string done() {
    const std::size_t n = bytes_.size() - 4;
    for (std::size_t i = 0; i < 4; ++i) bytes_[i] = static_cast<char>(n >> (8 * i) & 0xff);
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

// The fields of a frame that came. Nothing in it is believed: `good` is false once a field is missing.
class FrameReader {
 public:
  explicit FrameReader(std::string_view payload) : rest_(payload) {
    if (rest_.empty()) {
      good_ = false;
      return;
    }
    type_ = static_cast<Frame>(static_cast<unsigned char>(rest_[0]));
    rest_.remove_prefix(1);
  }
  Frame type() const { return type_; }
  // Every field was there, and nothing else.
  bool good() const { return good_ && rest_.empty(); }

  std::uint64_t number() {
    std::uint64_t n = 0;
    const std::string_view bytes = take(8);
    for (std::size_t i = 0; i < bytes.size(); ++i) n |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return n;
  }
  std::string_view words() { return take(number()); }
  Failure failure() {
    Failure f;
    const std::uint64_t kind = number();
    f.kind =
        kind <= static_cast<std::uint64_t>(FailureKind::mismatch) ? static_cast<FailureKind>(kind) : FailureKind::peer;
    f.found_by = static_cast<int>(number());
    f.message = words();
    return f;
  }

 private:
  std::string_view take(std::uint64_t n) {
    if (n > rest_.size()) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(n));
    rest_.remove_prefix(static_cast<std::size_t>(n));
    return taken;
  }

  std::string_view rest_;
  Frame type_{};
  bool good_ = true;
};

// Cuts a stream into frames.
class FrameBuffer {
 public:
  std::string& bytes() { return bytes_; }
  // The payload of the next whole frame: valid until the next call. Nothing: more must come, or, with `too_large`, the
  // stream is broken.
  std::optional<std::string_view> next(std::size_t largest) {
    bytes_.erase(0, std::exchange(taken_, 0));
    if (bytes_.size() < 4) return std::nullopt;
    std::size_t n = 0;
    for (std::size_t i = 0; i < 4; ++i) n |= std::size_t{static_cast<unsigned char>(bytes_[i])} << (8 * i);
    too_large_ = n > largest;
    if (too_large_ || bytes_.size() < 4 + n) return std::nullopt;
    taken_ = 4 + n;
    return std::string_view(bytes_).substr(4, n);
  }
  bool too_large() const { return too_large_; }

 private:
  std::string bytes_;
  std::size_t taken_ = 0;
  bool too_large_ = false;
};

struct Hello {
  int rank = -1;
  int size = 0;
  std::string nonce;
  std::string run_id;
};

// `side` keeps an answer from being sent back as a question.
inline Digest join_code(std::string_view token, std::string_view side, std::string_view server_nonce, const Hello& h) {
  FrameWriter all(Frame::hello);
  all.words(side).words(server_nonce).words(h.nonce).number(static_cast<std::uint64_t>(h.rank));
  all.number(static_cast<std::uint64_t>(h.size)).words(h.run_id);
  return hmac_sha256(token, all.done());
}

inline std::string hello_frame(std::string_view token, std::string_view server_nonce, const Hello& h) {
  return FrameWriter(Frame::hello)
      .number(static_cast<std::uint64_t>(h.rank))
      .number(static_cast<std::uint64_t>(h.size))
      .words(h.nonce)
      .words(h.run_id)
      .words(view(join_code(token, "rank", server_nonce, h)))
      .done();
}

}  // namespace shardwise::detail

// The exceptions of the library and the check that throws the first of them. Layer: base.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include <shardwise/base/text.hpp>

namespace shardwise {

/// The base of everything that the library throws: the caller's mistake, or a failure of the machinery.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Sizes that do not fit each other.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A plan that does not fit its model.
class PlanError : public Error {
 public:
  using Error::Error;
};

/// A file or text that cannot be read or written.
class IoError : public Error {
 public:
  using Error::Error;
};

/// A communication that cannot be completed.
class CommError : public Error {
 public:
  using Error::Error;
};

/// Another rank failed, threw or left.
class PeerFailedError : public CommError {
 public:
  using CommError::CommError;
};

/// A rank did not come within the deadline.
class TimeoutError : public CommError {
 public:
  using CommError::CommError;
};

/// Two ranks called different things at the same place.
class MismatchError : public CommError {
 public:
  using CommError::CommError;
};

namespace detail {

template <class E>
[[noreturn, gnu::noinline, gnu::cold]] void fail_with(const Piece* pieces, std::size_t count) {
  throw E(join(pieces, count));
}
template <class E = Error, std::size_t N>
[[noreturn, gnu::always_inline]] inline void fail(const Text<N>& message) {
  fail_with<E>(message.pieces, N);
}
template <class E = Error>
[[noreturn, gnu::always_inline]] inline void fail(const char* message) {
  fail<E>(text(message));
}
template <class E = Error>
[[noreturn, gnu::noinline, gnu::cold]] void fail(const std::string& message) {
  throw E(message);
}

}  // namespace detail

}  // namespace shardwise

/// Throws `shardwise::Error` (or the exception type given third) with `message` unless `condition` holds.
/// The message, `text(...)` or a string, is only built when it is needed.
#define SHARDWISE_REQUIRE(condition, message, ...)                  \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      ::shardwise::detail::fail __VA_OPT__(<__VA_ARGS__>)(message); \
  } while (false)

// The exceptions of the library and the check that throws the first of them. Layer: base.
#pragma once

#include <stdexcept>
#include <string>

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
template <class E = Error>
[[noreturn, gnu::noinline, gnu::cold]] void fail(const std::string& message) {
  throw E(message);
}
}  // namespace detail

}  // namespace shardwise

/// Throws `shardwise::Error` (or the exception type given third) with `message` unless `condition` holds.
/// The message is only built when it is needed.
#define SHARDWISE_REQUIRE(condition, message, ...)                  \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      ::shardwise::detail::fail __VA_OPT__(<__VA_ARGS__>)(message); \
  } while (false)

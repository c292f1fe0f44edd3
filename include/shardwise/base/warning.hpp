// Warnings: a sentence for the user that stops nothing. It goes to the innermost handler of the calling thread, which
// is the rank where ranks are threads; without one to standard error, each text once per thread. Layer: base.
#pragma once

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include <shardwise/base/text.hpp>

namespace shardwise {

namespace detail {

struct WarningHandler {
  WarningHandler* outer = nullptr;
  void (*on_warning)(WarningHandler&, std::string_view) = nullptr;
};

inline WarningHandler*& innermost_warning_handler() {
  thread_local WarningHandler* innermost = nullptr;
  return innermost;
}

[[gnu::cold]] inline void warn_on_standard_error(std::string_view words) {
  thread_local std::string seen;  // whole lines
  const std::string line = text("shardwise: warning: ", words, "\n");
  if (std::strstr(seen.c_str(), line.c_str()) != nullptr) return;
  seen += line;
  std::fputs(line.c_str(), stderr);  // one call, so that the lines of several ranks do not mix
}

}  // namespace detail

/// Hands `text` to the calling thread's innermost `ScopedWarningHandler`. Without one it goes to standard error, each
/// text once per thread.
inline void warn(std::string_view text) {
  detail::WarningHandler*& innermost = detail::innermost_warning_handler();
  detail::WarningHandler* const handler = innermost;
  if (handler == nullptr) {
    detail::warn_on_standard_error(text);
    return;
  }
  // A handler that warns itself tells the next one out.
  struct Restore {
    detail::WarningHandler*& innermost;
    detail::WarningHandler* handler;
    ~Restore() { innermost = handler; }
  } const restore{innermost, handler};
  innermost = handler->outer;
  handler->on_warning(*handler, text);
}

/// Takes the warnings of the calling thread while it lives: `ScopedWarningHandler handler([&](std::string_view text) {...});`.
/// Handlers nest; the innermost alone is told. It is destroyed on the thread that made it.
template <class F>
class ScopedWarningHandler : private detail::WarningHandler {
 public:
  explicit ScopedWarningHandler(F f) : f_(std::move(f)) {
    outer = detail::innermost_warning_handler();
    on_warning = [](detail::WarningHandler& self, std::string_view text) {
      static_cast<ScopedWarningHandler&>(self).f_(text);
    };
    detail::innermost_warning_handler() = this;
  }
  ~ScopedWarningHandler() { detail::innermost_warning_handler() = outer; }
  ScopedWarningHandler(const ScopedWarningHandler&) = delete;
  ScopedWarningHandler& operator=(const ScopedWarningHandler&) = delete;

 private:
  F f_;
};

}  // namespace shardwise

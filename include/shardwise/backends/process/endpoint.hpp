// Endpoint: where the store of rank 0 is met: a host with a port, a range of ports to scan, or a local name.
// Layer: backends/process.
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <shardwise/base/error.hpp>

namespace shardwise::detail {

// "host:port", "[IPv6]:port", or "local:NAME": a socket of this host without a file, for processes of one user.
struct Endpoint {
  std::string host;    // a name or a number without brackets; empty for a local name
  int port = 0;        // 0: any free one, for a server that hands its endpoint on
  int ports = 1;       // how many from `port` on may hold the store
  std::string local;   // the local name
  std::string listen;  // where to listen instead of on `host`; empty: there

  bool is_local() const { return !local.empty(); }
  bool empty() const { return local.empty() && host.empty(); }
};

inline std::string to_string(const Endpoint& e) {
  if (e.is_local()) return text("local:", e.local);
  const bool v6 = e.host.find(':') != std::string::npos;
  const std::string at = text(v6 ? "[" : "", e.host, v6 ? "]:" : ":", e.port);
  return e.ports == 1 ? at : std::string(text(at, " to ", e.port + e.ports - 1));
}

// A whole number from `low` to `high` and nothing else.
inline std::optional<int> parse_whole(std::string_view words, int low, int high) {
  int n = 0;
  const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), n);
  if (error != std::errc{} || end != words.data() + words.size() || n < low || n > high) return std::nullopt;
  return n;
}

// `source` names the variable in the message. Throws: Error.
inline Endpoint parse_endpoint(std::string_view words, std::string_view source) {
  constexpr std::string_view form = "', not HOST:PORT, [IPv6]:PORT or local:NAME";
  Endpoint e;
  if (words.substr(0, 6) == "local:") {
    e.local = words.substr(6);
    SHARDWISE_REQUIRE(!e.local.empty() && e.local.size() <= 90,
                      text("shardwise: ", source, " is '", words, "': a local name has 1 to 90 characters"));
    return e;
  }
  const bool bracket = words.substr(0, 1) == "[";
  const std::size_t colon = words.rfind(':');
  SHARDWISE_REQUIRE(colon != std::string_view::npos && (!bracket || (colon > 1 && words[colon - 1] == ']')),
                    text("shardwise: ", source, " is '", words, form));
  e.host = bracket ? words.substr(1, colon - 2) : words.substr(0, colon);
  SHARDWISE_REQUIRE(!e.host.empty() && (bracket || e.host.find(':') == std::string::npos),
                    text("shardwise: ", source, " is '", words, form));
  const std::optional<int> port = parse_whole(words.substr(colon + 1), 1, 65535);
  SHARDWISE_REQUIRE(port.has_value(), text("shardwise: ", source, " is '", words, "': a port is 1 to 65535"));
  e.port = *port;
  return e;
}

}  // namespace shardwise::detail

// CommDebugMode: what the calling rank communicates while it lives: counts and bytes by collective, mesh axis and module path,
// forward and backward apart. Layer: debug.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <shardwise/base/list.hpp>
#include <shardwise/comm/trace.hpp>

namespace shardwise {
namespace detail {

// Over types of its own, so that a unit that prints no table compiles none of it.
template <class Row, class String = std::string>
String table_of_calls(const Row* rows, std::size_t count, std::int64_t calls, std::int64_t bytes) {
  struct Line {
    String cell[6];
  };
  List<Line> lines;
  lines.push_back(Line{"operation", "axis", "pass", "module", "count", "bytes received"});
  for (std::size_t i = 0; i < count; ++i) {
    const Row& r = rows[i];
    lines.push_back(Line{to_string(r.collective), r.axis.empty() ? "-" : r.axis, r.backward ? "backward" : "forward",
                         r.module.empty() ? "-" : r.module, std::to_string(r.count), std::to_string(r.bytes)});
  }
  lines.push_back(Line{"total", "", "", "", std::to_string(calls), std::to_string(bytes)});
  std::size_t width[6] = {};
  for (const auto& line : lines)
    for (std::size_t i = 0; i < 6; ++i)
      if (line.cell[i].size() > width[i]) width[i] = line.cell[i].size();
  String out;
  for (std::size_t l = 0; l < lines.size(); ++l) {
    if (l == 1 || l + 1 == lines.size()) {
      for (std::size_t i = 0; i < 6; ++i) out += (i > 0 ? "  " : "") + String(width[i], '-');
      out += "\n";
    }
    for (std::size_t i = 0; i < 6; ++i) {
      const String& cell = lines[l].cell[i];
      const String pad(width[i] - cell.size(), ' ');
      out += (i > 0 ? "  " : "") + (i >= 4 ? pad + cell : cell + pad);  // numbers to the right
    }
    out += "\n";
  }
  return out;
}

}  // namespace detail

/// Listens to this thread's communication. Modes nest: an outer one hears what an inner one hears.
/// PyTorch: `CommDebugMode` (which knows neither bytes nor axes).
// (A template, so that a unit that counts nothing compiles none of it.)
template <class = void>
class BasicCommDebugMode : detail::CommListener {
 public:
  /// All calls that were alike.
  struct Row {
    Collective collective;
    std::string axis;
    std::string module;
    bool backward;
    std::int64_t count;
    std::int64_t bytes;
  };

  BasicCommDebugMode() {
    on_event = [](CommListener& self, const CommEvent& event) { static_cast<BasicCommDebugMode&>(self).add(event); };
    outer = detail::trace_state().listeners;
    detail::trace_state().listeners = this;
  }
  BasicCommDebugMode(const BasicCommDebugMode&) = delete;
  BasicCommDebugMode& operator=(const BasicCommDebugMode&) = delete;
  ~BasicCommDebugMode() {
    // Not always the innermost one: modes are ordinary objects and may be declared side by side.
    CommListener** at = &detail::trace_state().listeners;
    while (*at != nullptr && *at != this) at = &(*at)->outer;
    if (*at == this) *at = outer;
  }

  std::int64_t total_count() const {
    return sum([](const Row&) { return true; }, &Row::count);
  }
  std::int64_t count(Collective collective) const {
    return sum([&](const Row& r) { return r.collective == collective; }, &Row::count);
  }
  std::int64_t count(Collective collective, std::string_view axis) const {
    return sum([&](const Row& r) { return r.collective == collective && r.axis == axis; }, &Row::count);
  }
  std::int64_t forward_count() const {
    return sum([](const Row& r) { return !r.backward; }, &Row::count);
  }
  std::int64_t backward_count() const {
    return sum([](const Row& r) { return r.backward; }, &Row::count);
  }
  /// Calls asked for by this module or by one inside it; "" is everything. PyTorch credits every ancestor as well.
  std::int64_t module_count(std::string_view path) const {
    return sum([&](const Row& r) { return inside(r.module, path); }, &Row::count);
  }
  std::int64_t module_count(std::string_view path, Collective collective) const {
    return sum([&](const Row& r) { return inside(r.module, path) && r.collective == collective; }, &Row::count);
  }
  /// Bytes that this rank received from the others.
  std::int64_t total_bytes() const {
    return sum([](const Row&) { return true; }, &Row::bytes);
  }
  std::int64_t bytes(Collective collective) const {
    return sum([&](const Row& r) { return r.collective == collective; }, &Row::bytes);
  }
  std::int64_t axis_count(std::string_view axis) const {
    return sum([&](const Row& r) { return r.axis == axis; }, &Row::count);
  }
  std::int64_t axis_bytes(std::string_view axis) const {
    return sum([&](const Row& r) { return r.axis == axis; }, &Row::bytes);
  }
  const std::vector<Row>& rows() const { return rows_; }
  /// Forgets what was heard.
  void reset() { rows_.clear(); }

  /// A table for people: operation, axis, pass, module, count, bytes received; the total last.
  std::string table() const { return detail::table_of_calls(rows_.data(), rows_.size(), total_count(), total_bytes()); }

 private:
  static bool inside(std::string_view module, std::string_view path) {
    if (path.empty()) return true;
    if (module.size() < path.size() || module.substr(0, path.size()) != path) return false;
    return module.size() == path.size() || module[path.size()] == '.';
  }

  template <class Keep>
  std::int64_t sum(Keep keep, std::int64_t Row::* field) const {
    std::int64_t total = 0;
    for (const Row& r : rows_)
      if (keep(r)) total += r.*field;
    return total;
  }

  void add(const CommEvent& e) {
    for (Row& r : rows_)
      if (r.collective == e.collective && r.backward == e.backward && r.axis == e.axis && r.module == e.module) {
        ++r.count;
        r.bytes += e.bytes;
        return;
      }
    rows_.push_back({e.collective, std::string(e.axis), std::string(e.module), e.backward, 1, e.bytes});
  }

  std::vector<Row> rows_;
};
using CommDebugMode = BasicCommDebugMode<>;

}  // namespace shardwise

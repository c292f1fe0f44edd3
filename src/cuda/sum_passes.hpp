// A sum over the middle of (outer, n, inner) in one launch or, where that would leave a device idle, two: of runs, then of their sums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <shardwise/cuda/bodies/sums.hpp>
#include <shardwise/cuda/launch.hpp>
#include <shardwise/cuda/memory.hpp>

namespace shardwise::detail::device {

// How many runs a sum of n is cut into, so that there is work for a device: about 4096 teams, none with less than `least` elements.
inline std::int64_t parts_of(std::int64_t n, std::int64_t teams, std::int64_t least) {
  const std::int64_t most = (n + least - 1) / least, wanted = teams > 0 ? (4096 + teams - 1) / teams : 1;
  return most < wanted ? (most < 1 ? 1 : most) : wanted;
}

// Columns are added up side by side, also where there is one (`rows` false).
template <class T, class S, class Load>
void sum_pass(const Load& load, bool rows, void* out, S* partial, std::int64_t outer, std::int64_t n,
              std::int64_t inner, std::int64_t parts, const cuda::StreamView& stream) {
  const std::int64_t run = (n + parts - 1) / parts;
  const SumShape shape{n, inner, run > 0 ? run : 1, Divider(parts)};
  const SumTarget<T, S> target{static_cast<T*>(out), partial};
  if constexpr (std::is_same_v<Load, SumLoad<T, S>>)
    if (rows) return launch_teams(SumRowBody<Load, T, S>{load, target, shape}, outer * parts, lanes_of(run), stream);
  using Body = SumColumnBody<Load, T, S>;
  const std::int64_t strips = (inner + Body::columns - 1) / Body::columns;
  launch_teams(Body{load, target, shape, Divider(strips)}, outer * parts * strips, 256, stream);
}

// y (outer, inner) of type T = sum over n of what `load` gives, kept in S.
template <class T, class S, class Load>
void sum_loaded(const Load& load, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
                const cuda::StreamView& stream) {
  if (outer * inner == 0) return;
  const bool rows = inner == 1 && std::is_same_v<Load, SumLoad<T, S>>;
  const std::int64_t wanted = parts_of(n, outer * ((inner + 31) / 32), rows ? 4096 : 256);
  const std::int64_t run = (n + wanted - 1) / wanted;
  const std::int64_t parts = run > 0 ? (n + run - 1) / run : 1;  // none is empty
  S* const at_once = nullptr;
  if (parts <= 1) return sum_pass<T, S>(load, rows, y, at_once, outer, n, inner, 1, stream);
  const Buffer partial = device_buffer(static_cast<std::size_t>(outer * parts * inner) * sizeof(S), stream);
  sum_pass<T, S>(load, rows, nullptr, partial.as<S>(), outer, n, inner, parts, stream);
  sum_pass<T, S>(SumLoad<T, S>{nullptr, partial.as<S>()}, inner == 1, y, at_once, outer, parts, inner, 1, stream);
}

}  // namespace shardwise::detail::device

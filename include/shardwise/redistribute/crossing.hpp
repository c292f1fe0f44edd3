// The executor of moves from one mesh to another: one exchange among the ranks that meet; where messages cost something, replicas
// of the target read a share each and gather the rest among themselves. Compiled once per type of communicator. Layer: redistribute.
#pragma once

#include <cstdint>
#include <type_traits>

#include <shardwise/comm/call.hpp>
#include <shardwise/redistribute/cross_move.hpp>
#include <shardwise/redistribute/execute.hpp>
#include <shardwise/redistribute/meeting.hpp>
#include <shardwise/redistribute/remap.hpp>
#include <shardwise/redistribute/run_copy.hpp>

namespace shardwise::detail {

// Ranks: all of the group, along the replicated axes of the target.
template <class Comm, class Move>
void gather_replicas(const Comm& group, const Move& move, DType dtype, void* out) {
  const CallInfo call = move.gather_call();
  if constexpr (PeerlessCommunicator<Comm>) return group.count(call);
  if constexpr (ExchangesPacked<Comm>)
    if (!group.direct()) {
      const PackedSizes sizes = move.gather_sizes();
      return group.exchange_packed(
          call, sizes.sends(), sizes.receives(), [&](int rank, std::byte* to) { move.pack_gathered(rank, out, to); },
          [&](const Peers& peers) { move.unpack_gathered(peers.in, out); });
    }
  const std::size_t bytes = static_cast<std::size_t>(move.wanted_elements()) * size_of(dtype);
  // Peers read of an output what its own rank does not write any more.
  const auto body = [&](const auto& peers) { move.gather(peers.in, out); };
  if (bytes <= Comm::staged_limit)
    group.exchange_staged(call, out, bytes, body);
  else
    group.exchange(call, out, bytes, out, body);
}

// `line(axes)`: the group of this rank along axes of the target. One that is not asked for a second step compiles none.
template <bool may_gather, class Comm, class Move, class Line>
void carry_out(const Comm& group, const Move& move, const Line& line, DType dtype, const void* in, void* out) {
  if (move.crosses())
    exchange(group, move, dtype, in, out);
  else if constexpr (PeerlessCommunicator<Comm>)
    move.pull_own(in, out);
  else
    move.pull(OneInput{static_cast<const std::byte*>(in)}, out);
  if (!move.is_in_target()) return;
  if constexpr (may_gather)
    if (const std::uint32_t axes = move.gathered_axes(); axes != 0) {
      const auto& along = line(axes);  // made by all, whoever gathers
      if (move.gathers()) gather_replicas(along, move, dtype, out);
    }
  divide(dtype, out, move.wanted_elements(), move.divisor());
}

// Whether the replicas of a target read shares: as the prices have it, or, to be tested anywhere, always.
enum class Replicas : std::uint8_t { priced, always_share };

// As execute(), from one mesh to another.
template <Replicas replicas = Replicas::priced, class From, class To>
void execute_across(const From& from_mesh, const PlacementList<From::ndim>& from, const To& to_mesh,
                    const PlacementList<To::ndim>& to, const Extents& global, DType dtype, const void* in, void* out) {
  if constexpr (!mesh_on_host<To>) {
    DeviceExecutor<!mesh_on_host<To>>::execute_across(from_mesh, from, to_mesh, to, global, dtype, in, out);
  } else if constexpr (!tensors_move_over<typename To::Communicator>) {
    check_communicator<typename To::Communicator>();
  } else {
    using Comm = typename To::Communicator;
    const GridView source = listed_grid_view(from_mesh, from);
    const GridView target = listed_grid_view(to_mesh, to);
    if (relabelling(source, target, global) != Relabelling::none) {
      if (source.coordinate != nullptr && target.coordinate != nullptr)
        copy_common(source.own(global), in, target.own(global), out, size_of(dtype));
      return;
    }
    const MeetingPlace place = meeting_place(source, target);
    const Comm* const met = meeting_group(place, from_mesh, to_mesh);
    if (met == nullptr) return;
    const Comm& group = *met;
    bool in_two_steps = replicas == Replicas::always_share;
    if constexpr (PricedCommunicator<Comm>) in_two_steps = in_two_steps || group.cost_model().seconds_per_message > 0;
    if constexpr (ExchangesPacked<Comm>) in_two_steps = in_two_steps || !group.direct();
    // CrossMove, but in the words of a template: only a program that crosses compiles it.
    using Grid = std::conditional_t<mesh_on_host<To>, GridView, void>;
    const BasicCrossMove<Grid> move(source, target, place, group.rank(), group.size(), global, dtype, in_two_steps);
    constexpr bool may_gather = PricedCommunicator<Comm> || ExchangesPacked<Comm> || replicas == Replicas::always_share;
    carry_out<may_gather>(
        group, move, [&](std::uint32_t axes) -> const Comm& { return to_mesh.group(axes); }, dtype, in, out);
  }
}

}  // namespace shardwise::detail

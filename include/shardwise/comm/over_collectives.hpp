// OverCollectives: what moves of tensors need of a communicator, made of the collectives that it has. Layer: comm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <shardwise/comm/communicator.hpp>
#include <shardwise/comm/decorators.hpp>

namespace shardwise {

/// A communicator of one's own, for meshes: `init_device_mesh<"tp">(OverCollectives(mine), {4})`.
///
/// Blocks are packed and go by `all_to_all_v`, what every rank needs goes by `all_gather_v`, as bytes. The backends of the library
/// need none of it. Ranks compare nothing: `Traced(Checked(OverCollectives(mine)))` compares and counts what the program asks for.
template <Communicator C>
  requires(C::memory_space == MemorySpace::host)
class OverCollectives : public detail::Decorated<OverCollectives<C>, C> {
  using Base = detail::Decorated<OverCollectives<C>, C>;

 public:
  /// Inputs of at most this many bytes a rank may go through exchange_staged.
  static constexpr std::size_t staged_limit = 4096;
  static constexpr bool writes_peers = false;
  /// The ranks see nothing of each other but messages.
  static constexpr bool direct() { return false; }

  OverCollectives(C c) : Base(std::move(c)) {}  // NOLINT: a decorated communicator is a communicator

  /// Runs `body` over every rank's input. Moves: all of them to each.
  void exchange(const CallInfo&, const void* in, std::size_t in_bytes, void*, PeersFunction body) const {
    const auto ranks = static_cast<std::size_t>(this->size());
    const auto mine = static_cast<std::int64_t>(in_bytes);
    std::vector<std::int64_t> counts(ranks);
    this->inner().all_gather(std::span<const std::int64_t>(&mine, 1), std::span<std::int64_t>(counts));
    std::vector<std::uint8_t> all(total(counts));
    this->inner().all_gather_v(std::span<const std::uint8_t>(static_cast<const std::uint8_t*>(in), in_bytes),
                               std::span<std::uint8_t>(all), std::span<const std::int64_t>(counts));
    run(body, all, counts, nullptr);
  }
  void exchange_staged(const CallInfo& call, const void* in, std::size_t in_bytes, PeersFunction body) const {
    exchange(call, in, in_bytes, nullptr, body);
  }
  /// Moves `sends[r]` bytes, which `pack` writes, to each rank r, and runs `body` over the `receives[r]` bytes of each.
  void exchange_packed(const CallInfo&, std::span<const std::int64_t> sends, std::span<const std::int64_t> receives,
                       PackFunction pack, PeersFunction body) const {
    std::vector<std::uint8_t> out(total(sends)), all(total(receives));
    std::size_t at = 0;
    for (std::size_t r = 0; r < sends.size(); ++r) {
      const auto bytes = static_cast<std::size_t>(sends[r]);
      if (bytes > 0) pack(static_cast<int>(r), bytes, reinterpret_cast<std::byte*>(out.data() + at));
      at += bytes;
    }
    this->inner().all_to_all_v(std::span<const std::uint8_t>(out), sends, std::span<std::uint8_t>(all), receives);
    run(body, all, receives, &pack);
  }

 private:
  friend detail::Decorated<OverCollectives, C>;

  OverCollectives around(C c) const { return OverCollectives(std::move(c)); }
  OverCollectives around_part(C c) const { return OverCollectives(std::move(c)); }

  static std::size_t total(std::span<const std::int64_t> counts) {
    std::int64_t sum = 0;
    for (const std::int64_t n : counts) sum += n;
    return static_cast<std::size_t>(sum);
  }
  // `pack`: says where what comes shall lie, where it does; null: nobody does.
  static void run(const PeersFunction& body, const std::vector<std::uint8_t>& all, std::span<const std::int64_t> counts,
                  const PackFunction* pack) {
    std::vector<const std::byte*> in;
    const auto* at = reinterpret_cast<const std::byte*>(all.data());
    for (std::size_t r = 0; r < counts.size(); ++r) {
      std::byte* const place = pack != nullptr && pack->in_pieces() ? pack->place(static_cast<int>(r)) : nullptr;
      if (place != nullptr && counts[r] > 0) std::memcpy(place, at, static_cast<std::size_t>(counts[r]));
      in.push_back(place != nullptr ? place : at);
      at += counts[r];
    }
    body(Peers{static_cast<int>(counts.size()), in.data(), nullptr});
  }
};

}  // namespace shardwise

// MessageHeader: the 64 bytes before every message between processes that do not share memory: what the sender is doing.
// Compared before the payload is used. Layer: backends/process.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include <shardwise/base/collective.hpp>
#include <shardwise/base/dtype.hpp>
#include <shardwise/base/extents.hpp>
#include <shardwise/comm/arguments.hpp>
#include <shardwise/comm/call.hpp>

namespace shardwise::detail {

struct MessageHeader {
  static constexpr std::uint32_t shardwise_message = 0x736d7773;  // "swms"

  std::uint32_t magic = shardwise_message;
  Collective collective = Collective::none;
  DType dtype = DType::float32;
  ReduceOp op = ReduceOp::sum;
  std::uint8_t dimensions = 0;
  std::int32_t root = -1;
  std::uint32_t version = 2;  // of this layout, and of what follows it
  std::uint64_t group = 0;
  std::uint64_t sequence = 0;  // collectives of the group before this call
  std::int64_t first = 0;  // extent of the first dimension
  std::int64_t elements = 0;
  std::uint64_t layout = 0;  // fingerprint of the shape and of CallInfo::layout
  std::uint64_t bytes = 0;  // of payload

  bool is_message() const { return collective == Collective::send || collective == Collective::recv; }
};
static_assert(sizeof(MessageHeader) == 64 && std::is_trivially_copyable_v<MessageHeader> &&
              std::has_unique_object_representations_v<MessageHeader>);
static_assert(std::endian::native == std::endian::little, "shardwise: headers travel as they lie in memory");

inline MessageHeader header_of(const CallInfo& call, std::uint64_t group, std::uint64_t sequence) {
  MessageHeader h;
  h.collective = call.collective;
  h.dtype = call.dtype;
  h.op = call.op;
  h.dimensions = static_cast<std::uint8_t>(call.shape.rank);
  h.root = call.root;
  h.group = group;
  h.sequence = sequence;
  h.first = call.shape.rank > 0 ? call.shape[0] : 0;
  h.elements = call.shape.elements();
  h.layout =
      fingerprint({call.shape.size, static_cast<std::size_t>(call.shape.rank)}) ^ (call.layout * 0x9e3779b97f4a7c15u);
  return h;
}

// For messages about it. A shape of more than two dimensions comes back as its first extent and the product of the others.
[[gnu::cold]] inline CallInfo call_of(const MessageHeader& h) {
  const auto known = [](auto value, int count, decltype(value) otherwise) {
    return static_cast<int>(value) < count ? value : otherwise;
  };
  CallInfo call;
  call.collective = known(h.collective, collective_count, Collective::none);
  call.dtype = known(h.dtype, 9, DType::uint8);
  call.op = known(h.op, 5, ReduceOp::sum);
  call.root = h.root;
  if (h.dimensions == 1) call.shape = Extents(Shape<1>{h.elements});
  if (h.dimensions > 1) call.shape = Extents(Shape<2>{h.first, h.first == 0 ? 0 : h.elements / h.first});
  return call;
}

// Whether it is a header of this version of the library.
inline bool is_known(const MessageHeader& h) {
  return h.magic == MessageHeader::shardwise_message && h.version == MessageHeader().version;
}

// Whether two ranks do the same thing: one collective, or the two ends of a message. Payloads may differ.
inline bool agree(const MessageHeader& a, const MessageHeader& b) {
  const bool same_operation = a.is_message() && b.is_message() ? a.collective != b.collective
                                                               : a.collective == b.collective && a.root == b.root;
  return same_operation && is_known(a) && is_known(b) && a.dtype == b.dtype && a.op == b.op &&
         a.dimensions == b.dimensions && a.group == b.group && a.sequence == b.sequence && a.elements == b.elements &&
         a.layout == b.layout;
}

// Whether `theirs`, the next message of a rank that `mine` does not wait for, shows that it does something else. It may be ahead.
inline bool contradicts(const MessageHeader& mine, const MessageHeader& theirs) {
  if (!is_known(theirs) || theirs.group != mine.group || theirs.sequence > mine.sequence) return false;
  if (theirs.sequence < mine.sequence) return true;  // left over
  if (mine.is_message()) return false;  // it may be in the next collective
  return !agree(mine, theirs);
}

}  // namespace shardwise::detail

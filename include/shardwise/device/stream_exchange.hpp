// StreamExchange: the messages of one exchange between ranks that are GPUs. What lies in one piece travels from and to where it is;
// the rest is packed by one kernel and unpacked by another. All of it on one stream, none of it waits. Layer: device.
#pragma once

#include <cstddef>
#include <cstdint>

#include <shardwise/base/buffer.hpp>
#include <shardwise/base/list.hpp>
#include <shardwise/comm/stream_communicator.hpp>
#include <shardwise/cuda/kernels.hpp>
#include <shardwise/cuda/memory.hpp>
#include <shardwise/placement/walk.hpp>

namespace shardwise::detail {

// What is copied from the first to the second tensor of a walk.
inline device::BoxCopy box_copy(const Walk& w, const std::byte* from, std::byte* to, std::size_t element) {
  device::BoxCopy box;
  box.rank = w.rank;
  for (int d = 0; d < w.rank; ++d) {
    box.extents[d] = w.extent[d];
    box.src_strides[d] = w.stride_a[d];
    box.dst_strides[d] = w.stride_b[d];
  }
  box.src = from + w.start_a * static_cast<std::int64_t>(element);
  box.dst = to + w.start_b * static_cast<std::int64_t>(element);
  return box;
}

class StreamExchange {
 public:
  StreamExchange(std::size_t element, const cuda::StreamView& stream) : element_(element), stream_(stream) {}
  StreamExchange(const StreamExchange&) = delete;
  StreamExchange& operator=(const StreamExchange&) = delete;

  // For `rank`: a part of `tensor`, which holds `held`. What several ranks take is packed once.
  void send(int rank, const Box& part, const Box& held, const std::byte* tensor) {
    const Walk w = walk(part, held, part);
    if (w.empty) return;
    const std::int64_t n = part.size.elements();
    if (w.rank == 1) return sends_.push_back({{rank, const_cast<std::byte*>(at(tensor, w.start_a)), n}, in_place});
    if (last_packed_ == in_place || tensor != last_tensor_ ||
        !(part.size == last_part_.size && part.offset == last_part_.offset)) {
      last_packed_ = take(n);
      last_tensor_ = tensor;
      last_part_ = part;
      packs_.push_back({w, tensor, nullptr, last_packed_});
    }
    sends_.push_back({{rank, nullptr, n}, last_packed_});
  }
  // Of `rank`: a part of `tensor`, which holds `wanted`.
  void receive(int rank, const Box& part, const Box& wanted, std::byte* tensor) {
    const Walk w = walk(part, part, wanted);
    if (w.empty) return;
    const std::int64_t n = part.size.elements();
    if (w.rank == 1) return receives_.push_back({{rank, at(tensor, w.start_b), n}, in_place});
    const std::int64_t where = take(n);
    unpacks_.push_back({w, nullptr, tensor, where});
    receives_.push_back({{rank, nullptr, n}, where});
  }
  // Of `rank`: so many elements, straight to where they belong.
  void receive_into(int rank, std::byte* to, std::int64_t elements) {
    receives_.push_back({{rank, to, elements}, in_place});
  }
  // For `rank`: what is packed otherwise, after allocate(). Gives where.
  std::int64_t send_packed(int rank, std::int64_t elements) {
    const std::int64_t where = room_for(elements);
    sends_.push_back({{rank, nullptr, elements}, where});
    return where;
  }
  // Of `rank`: what stays as it comes. Gives where it will be found.
  std::int64_t receive_packed(int rank, std::int64_t elements) {
    const std::int64_t where = take(elements);
    receives_.push_back({{rank, nullptr, elements}, where});
    return where;
  }
  // This rank's own part, as messages are packed and unpacked.
  void keep(const Box& part, const Box& held, const std::byte* tensor, const Box& wanted, std::byte* out) {
    const Walk w = walk(part, held, wanted);
    if (!w.empty) packs_.push_back({w, tensor, out, in_place});
  }
  // Memory for as many.
  std::int64_t room_for(std::int64_t elements) { return take(elements); }
  std::int64_t keep_packed(const Box& part, const Box& held, const std::byte* tensor) {
    const std::int64_t where = take(part.size.elements());
    packs_.push_back({walk(part, held, part), tensor, nullptr, where});
    return where;
  }

  // Once everything is known.
  void allocate() {
    if (room_ > 0 && !memory_) memory_ = device_buffer(static_cast<std::size_t>(room_), stream_);
  }
  // Ranks: all of the group. What was kept or packed is found until this object ends.
  template <StreamCommunicator Comm>
  void run(const Comm& group, const CallInfo& call) {
    List<StreamMessage> sends, receives;
    begin(sends, receives, 1);
    group.exchange_on_stream(call, {sends.data(), sends.size()}, {receives.data(), receives.size()});
    end();
  }
  // In two halves, for several at once: their messages count elements of the width of which `each` make one of these.
  void begin(List<StreamMessage>& sends, List<StreamMessage>& receives, std::int64_t each) {
    allocate();
    copy(packs_);
    add(sends, sends_, each);
    add(receives, receives_, each);
  }
  void end() const { copy(unpacks_); }
  std::byte* packed(std::int64_t where) const { return memory_.data() + where; }

 private:
  static constexpr std::int64_t in_place = -1;
  struct Message {
    StreamMessage message;
    std::int64_t packed;  // where; or in_place
  };
  struct Copy {
    Walk walk;
    const std::byte* from;  // null: what is packed
    std::byte* to;  // likewise
    std::int64_t packed;
  };

  template <class Byte>
  Byte* at(Byte* tensor, std::int64_t elements) const {
    return tensor + elements * static_cast<std::int64_t>(element_);
  }
  // Every piece begins at a multiple of 16 bytes, which a thread moves at once.
  std::int64_t take(std::int64_t elements) {
    const std::int64_t where = room_;
    room_ += (elements * static_cast<std::int64_t>(element_) + 15) / 16 * 16;
    return where;
  }
  void add(List<StreamMessage>& to, const List<Message>& list, std::int64_t each) const {
    to.reserve(to.size() + list.size());
    for (const Message& m : list) {
      std::byte* const data = m.packed != in_place ? memory_.data() + m.packed : m.message.data;
      to.push_back({m.message.rank, data, m.message.elements * each});
    }
  }
  void copy(const List<Copy>& list) const {
    if (list.empty()) return;
    List<device::BoxCopy> boxes;
    boxes.reserve(list.size());
    for (const Copy& c : list)
      boxes.push_back(box_copy(c.walk, c.from != nullptr ? c.from : memory_.data() + c.packed,
                               c.to != nullptr ? c.to : memory_.data() + c.packed, element_));
    device::copy_boxes(element_, boxes.data(), static_cast<int>(boxes.size()), stream_);
  }

  std::size_t element_;
  cuda::StreamView stream_;
  Buffer memory_;
  std::int64_t room_ = 0;
  List<Message> sends_, receives_;
  List<Copy> packs_, unpacks_;
  std::int64_t last_packed_ = in_place;
  const std::byte* last_tensor_ = nullptr;
  Box last_part_;
};

}  // namespace shardwise::detail

// List: an array that grows, in blocks of the cache. std::vector without what the insides of the library do not need: a
// vector of one type is some twenty functions of a unit, a list five. Layer: base.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <new>

#include <shardwise/base/buffer.hpp>

namespace shardwise::detail {

template <class T>
class List {
 public:
  List() = default;
  // n values, each as T() makes it; a T that cannot move lives in a list that never grows.
  explicit List(std::size_t n) {
    if (n > 0) take(n);
    for (; size_ < n; ++size_) new (static_cast<void*>(first_ + size_)) T();
  }
  List(std::initializer_list<T> values) {
    reserve(values.size());
    for (const T& value : values) push_back(value);
  }
  List(const List& other) {
    reserve(other.size_);
    for (const T& value : other) push_back(value);
  }
  List(List&& other) noexcept { swap(other); }
  List& operator=(List other) noexcept {
    swap(other);
    return *this;
  }
  ~List() {
    clear();
    if (first_ != nullptr) BlockCache::give(reinterpret_cast<Block*>(first_) - 1);
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return first_; }
  const T* data() const { return first_; }
  T* begin() { return first_; }
  T* end() { return first_ + size_; }
  const T* begin() const { return first_; }
  const T* end() const { return first_ + size_; }
  T& operator[](std::size_t i) { return first_[i]; }
  const T& operator[](std::size_t i) const { return first_[i]; }
  T& back() { return first_[size_ - 1]; }

  void push_back(T value) {
    if (size_ == room_) reserve(size_ + 1);
    new (static_cast<void*>(first_ + size_)) T(static_cast<T&&>(value));
    ++size_;
  }
  void pop_back() { first_[--size_].~T(); }
  void clear() {
    while (size_ > 0) pop_back();
  }
  void resize(std::size_t n) {
    reserve(n);
    while (size_ > n) pop_back();
    while (size_ < n) push_back(T());
  }
  // Removes one; the last takes its place.
  void remove(std::size_t i) {
    first_[i] = static_cast<T&&>(back());
    pop_back();
  }
  [[gnu::noinline]] void reserve(std::size_t n) {
    if (n <= room_) return;
    T* const from = first_;
    take(n);
    if (from == nullptr) return;
    for (std::size_t i = 0; i < size_; ++i) {
      new (static_cast<void*>(first_ + i)) T(static_cast<T&&>(from[i]));
      from[i].~T();
    }
    BlockCache::give(reinterpret_cast<Block*>(from) - 1);
  }

 private:
  void take(std::size_t n) {
    static_assert(alignof(T) <= 64);
    Block* const block = BlockCache::take(n * sizeof(T));
    first_ = reinterpret_cast<T*>(block + 1);
    room_ = (block->bytes - sizeof(Block)) / sizeof(T);
  }
  void swap(List& other) noexcept {
    T* const first = first_;
    const std::size_t size = size_, room = room_;
    first_ = other.first_, size_ = other.size_, room_ = other.room_;
    other.first_ = first, other.size_ = size, other.room_ = room;
  }

  T* first_ = nullptr;
  std::size_t size_ = 0;
  std::size_t room_ = 0;
};

}  // namespace shardwise::detail

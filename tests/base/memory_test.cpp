// Ref and WeakRef: who owns an object, when it ends, when its memory does. List: an array that grows.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <shardwise/base/list.hpp>
#include <shardwise/base/memory.hpp>

using shardwise::detail::List;
using shardwise::detail::make_ref;
using shardwise::detail::Ref;
using shardwise::detail::WeakRef;

namespace {

struct Base {
  int value = 0;
};
struct Counted : Base {
  explicit Counted(int* e, int v = 0) : ended(e) {
    value = v;
    if (v < 0) throw std::runtime_error("negative");
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { ++*ended; }
  int* ended;
};

}  // namespace

TEST_CASE("an object ends with its last owner, as what it was made") {
  int ended = 0;
  {
    Ref<Base> base = make_ref<Counted>(&ended, 7);
    CHECK(base->value == 7);
    const Ref<const Base> other = base;
    CHECK(other == base);
    base = nullptr;
    CHECK(base == nullptr);
    CHECK(ended == 0);
    CHECK(other->value == 7);
  }
  CHECK(ended == 1);
}

TEST_CASE("moving leaves nothing behind; assigning to itself keeps the object") {
  int ended = 0;
  Ref<Counted> a = make_ref<Counted>(&ended);
  Ref<Counted> b = std::move(a);
  CHECK(a == nullptr);  // NOLINT: what is left of it
  Ref<Counted>& same = b;
  b = same;
  CHECK(ended == 0);
  b = make_ref<Counted>(&ended);
  CHECK(ended == 1);
  b = nullptr;
  CHECK(ended == 2);
}

TEST_CASE("a weak reference sees the end, and keeps the memory but not the object") {
  int ended = 0;
  WeakRef<Counted> weak;
  CHECK(weak.expired());
  CHECK(weak.lock() == nullptr);
  Ref<Counted> object = make_ref<Counted>(&ended, 3);
  weak = object;
  const WeakRef<Counted> copy = weak;
  CHECK(weak.lock()->value == 3);
  CHECK(!copy.expired());
  object = nullptr;
  CHECK(ended == 1);
  CHECK(weak.expired());
  CHECK(copy.lock() == nullptr);
  weak = WeakRef<Counted>();
  // As long as somebody knows it, its block is not taken for another.
  const Ref<Counted> another = make_ref<Counted>(&ended, 4);
  CHECK(copy.expired());
}

TEST_CASE("what could not be made leaves no memory behind and never ends") {
  int ended = 0;
  CHECK_THROWS_AS(make_ref<Counted>(&ended, -1), std::runtime_error);
  CHECK(ended == 0);
}

TEST_CASE("threads share and drop an object, and it ends once") {
  for (int round = 0; round < 50; ++round) {
    int ended = 0;
    std::atomic<int> seen{0};
    {
      Ref<Counted> object = make_ref<Counted>(&ended, 5);
      const WeakRef<Counted> weak = object;
      std::vector<std::thread> threads;
      for (int t = 0; t < 4; ++t)
        threads.emplace_back([&seen, object, weak]() mutable {
          for (int i = 0; i < 100; ++i) {
            const Ref<Counted> mine = object;
            if (const Ref<Counted> locked = weak.lock()) seen += locked->value == 5;
          }
          object = nullptr;
          if (const Ref<Counted> locked = weak.lock()) seen += locked->value == 5;
        });
      object = nullptr;
      for (std::thread& t : threads) t.join();
      CHECK(weak.expired());
    }
    CHECK(ended == 1);
    CHECK(seen.load() >= 400);
  }
}

TEST_CASE("a list grows, copies, moves and takes out") {
  List<std::string> list;
  for (int i = 0; i < 100; ++i) list.push_back("a string that is too long to lie in its handle " + std::to_string(i));
  CHECK(list.size() == 100);
  CHECK(list[42] == "a string that is too long to lie in its handle 42");
  const List<std::string> copy = list;
  list.remove(42);
  CHECK(list.size() == 99);
  CHECK(list[42] == copy[99]);
  CHECK(copy[42] == "a string that is too long to lie in its handle 42");
  list.remove(98);
  CHECK(list.size() == 98);
  const List<std::string> moved = std::move(list);
  CHECK(list.empty());  // NOLINT: what is left of it
  CHECK(moved.size() == 98);
  list = copy;
  list.resize(3);
  CHECK(list.size() == 3);
  list.resize(5);
  CHECK(list[4].empty());
  CHECK(list[2] == copy[2]);
}

TEST_CASE("a list ends each of its elements once") {
  int ended = 0;
  {
    List<Ref<Counted>> list;
    for (int i = 0; i < 20; ++i) list.push_back(make_ref<Counted>(&ended));
    CHECK(ended == 0);
    list.pop_back();
    CHECK(ended == 1);
    const List<Ref<Counted>> copy = list;
    list.clear();
    CHECK(ended == 1);
  }
  CHECK(ended == 20);
}

TEST_CASE("a list of what cannot move has its size from the start") {
  const List<std::atomic<int>> list(3);
  CHECK(list.size() == 3);
  CHECK(list[2].load() == 0);
  CHECK(List<std::int64_t>{4, 5}[1] == 5);
  CHECK(List<int>(0).empty());
}

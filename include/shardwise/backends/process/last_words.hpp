// LastWords: what a process of a world says when an exception ends it. Layer: backends/process.
#pragma once

#include <cstdlib>
#include <exception>
#include <memory>
#include <utility>

#include <shardwise/backends/process/world.hpp>

namespace shardwise::detail {

// An exception that nobody catches ends the process; the other ranks are told its words before.
class LastWords {
 public:
  explicit LastWords(std::weak_ptr<ProcessWorld> world) {
    world_of_process() = std::move(world);
    if (std::get_terminate() != &say) before() = std::set_terminate(&say);
  }
  // The world that this process was launched into; null where it has not joined it, or has left.
  static std::shared_ptr<ProcessWorld> world() { return world_of_process().lock(); }

 private:
  static std::weak_ptr<ProcessWorld>& world_of_process() {
    static std::weak_ptr<ProcessWorld> world;
    return world;
  }
  static std::terminate_handler& before() {
    static std::terminate_handler handler = nullptr;
    return handler;
  }
  [[noreturn]] static void say() {
    const std::shared_ptr<ProcessWorld> world = world_of_process().lock();
    if (world != nullptr && std::current_exception() != nullptr) {
      try {
        throw;
      } catch (const std::exception& e) {
        world->fail(e.what());
      } catch (...) {
        world->fail("an exception that is no std::exception");
      }
    }
    if (before() != nullptr) before()();
    std::abort();
  }
};

}  // namespace shardwise::detail

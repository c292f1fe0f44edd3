// What a rank that leaves in peace has to say to the others: parts of its program that end with it tell theirs how far they came. Layer:
// backends/process.
#pragma once

#include <string_view>

namespace shardwise::detail {

// Where words are left for the end of this rank.
class DepartureBoard {
 public:
  virtual ~DepartureBoard() = default;
  virtual void say_on_leaving(std::string_view words) = 0;
};

// Told of each rank that has left in peace, with all that it had to say, on the thread that learns of it.
class DepartureListener {
 public:
  virtual ~DepartureListener() = default;
  virtual void departed(int rank, std::string_view words) noexcept = 0;
};

}  // namespace shardwise::detail

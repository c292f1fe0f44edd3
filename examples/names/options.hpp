// What the command line asks for.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace names {

enum class Precision { single, twice };

struct Options {
  bool help = false;
  std::int64_t steps = 5000;
  std::int64_t hidden = 128;
  Precision precision = Precision::single;
  int ranks = 4;
  std::string text = "/usr/share/dict/american-english";
  std::string plot;  // empty: no picture
  std::uint64_t seed = 1;
};

// A command line that cannot be understood; the message says what would be.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

Options parse_options(const std::vector<std::string>& arguments);
std::string help_text();

}  // namespace names

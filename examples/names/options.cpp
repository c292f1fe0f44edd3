#include "options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <string_view>
#include <system_error>

namespace names {

namespace {

constexpr std::array<std::string_view, 8> flags{"--help",  "--steps", "--hidden", "--dtype",
                                                "--ranks", "--text",  "--plot",   "--seed"};

// Levenshtein's distance: how many letters to change, add or drop.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

[[noreturn]] void unknown_flag(const std::string& flag) {
  const auto nearest = std::min_element(flags.begin(), flags.end(), [&](std::string_view a, std::string_view b) {
    return distance(flag, a) < distance(flag, b);
  });
  const std::string hint =
      distance(flag, *nearest) <= 3 ? "did you mean " + std::string(*nearest) + "?" : "--help lists the flags";
  throw UsageError("unknown flag '" + flag + "'; " + hint);
}

template <class Integer>
Integer integer(const std::string& flag, const std::string& value, Integer low, Integer high) {
  Integer number{};
  const char* const last = value.data() + value.size();
  const auto [stopped, error] = std::from_chars(value.data(), last, number);
  if (value.empty() || stopped != last || error != std::errc() || number < low || number > high)
    throw UsageError(flag + " takes a whole number from " + std::to_string(low) + " to " + std::to_string(high) +
                     ", not '" + value + "'");
  return number;
}

Precision precision(const std::string& value) {
  if (value == "float") return Precision::single;
  if (value == "double") return Precision::twice;
  throw UsageError("--dtype takes float or double, not '" + value + "'");
}

std::string file_name(const std::string& flag, const std::string& value) {
  if (value.empty()) throw UsageError(flag + " takes the name of a file");
  return value;
}

}  // namespace

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::size_t equals = arguments[i].find('=');  // --steps=20 is --steps 20
    const std::string flag = arguments[i].substr(0, equals);
    if (std::find(flags.begin(), flags.end(), flag) == flags.end()) unknown_flag(flag);
    if (flag == "--help") {
      options.help = true;
      continue;
    }
    const bool joined = equals != std::string::npos;
    if (!joined && i + 1 == arguments.size()) throw UsageError(flag + " needs a value; --help says which");
    const std::string value = joined ? arguments[i].substr(equals + 1) : arguments[++i];
    if (flag == "--steps") options.steps = integer<std::int64_t>(flag, value, 1, 1'000'000);
    if (flag == "--hidden") options.hidden = integer<std::int64_t>(flag, value, 1, 65'536);
    if (flag == "--dtype") options.precision = precision(value);
    if (flag == "--ranks") options.ranks = integer<int>(flag, value, 1, 64);
    if (flag == "--text") options.text = file_name(flag, value);
    if (flag == "--plot") options.plot = file_name(flag, value);
    if (flag == "--seed") options.seed = integer<std::uint64_t>(flag, value, 0, ~std::uint64_t{0});
  }
  return options;
}

std::string help_text() {
  const Options defaults;
  return "usage: names [--steps N] [--hidden N] [--dtype float|double] [--ranks N] [--text FILE] [--plot FILE] [--seed N]\n"
         "\n"
         "Trains a language model of characters on a list of words, on one device and tensor-parallel on several ranks\n"
         "(threads of this process), from the same weights on the same batches, and compares the two.\n"
         "\n"
         "  --steps N             training steps (" +
         std::to_string(defaults.steps) +
         ")\n"
         "  --hidden N            units of the hidden layer (" +
         std::to_string(defaults.hidden) +
         ")\n"
         "  --dtype float|double  element type (float)\n"
         "  --ranks N             ranks that share the model, 1 to 64 (" +
         std::to_string(defaults.ranks) +
         ")\n"
         "  --text FILE           words, one a line, UTF-8 (" +
         defaults.text +
         ")\n"
         "  --plot FILE           write a picture of the loss curves there (SVG)\n"
         "  --seed N              of the weights and of the order of the batches (" +
         std::to_string(defaults.seed) +
         ")\n"
         "  --help                this text\n"
         "\n"
         "Status: 0 where both agree (losses within 1e-4, relatively) and the held-out loss is at least 15 % below that of\n"
         "guessing by frequency alone; 1 where not, or where something failed; 2 for a command line it cannot read.\n";
}

}  // namespace names

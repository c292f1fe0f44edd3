// A list of words as numbers: what follows what, split into words to learn from and words held out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace names {

inline constexpr std::int64_t context_size = 8;

// Characters are Unicode code points, numbered as the text has them: what comes before a word, its end, then by code point.
class Vocabulary {
 public:
  static constexpr std::int64_t padding = 0;
  static constexpr std::int64_t end = 1;

  Vocabulary() = default;
  explicit Vocabulary(std::vector<char32_t> characters) : characters_(std::move(characters)) {}

  std::int64_t size() const { return 2 + static_cast<std::int64_t>(characters_.size()); }
  std::int64_t token(char32_t character) const;
  std::string text(const std::vector<std::int64_t>& tokens) const;  // UTF-8, without padding and end

 private:
  std::vector<char32_t> characters_;  // sorted
};

// Words one after the other, each behind `context_size` paddings and closed by an end. An example is a place in this
// stream: the token there is to be told from the `context_size` tokens before it.
class Examples {
 public:
  void add(const std::vector<std::int64_t>& word);

  std::size_t size() const { return places_.size(); }
  std::int64_t words() const { return words_; }
  std::int64_t target(std::size_t i) const { return stream_[places_[i]]; }
  const std::int64_t* context(std::size_t i) const {
    return stream_.data() + (places_[i] - static_cast<std::size_t>(context_size));
  }

 private:
  std::vector<std::int64_t> stream_;
  std::vector<std::size_t> places_;
  std::int64_t words_ = 0;
};

struct Corpus {
  std::string source;
  Vocabulary vocabulary;
  Examples training;
  Examples held_out;
  std::unordered_set<std::string> words;

  // Mean loss on the held-out examples of guessing without looking: every character alike, or as often as in training.
  double uniform_loss() const;
  double unigram_loss() const;
};

// Reads a UTF-8 file, one word a line; empty lines are left out. One word in twenty is held out: the choice depends on
// the word alone. Throws std::runtime_error that names the file and, where there is one, the line.
Corpus read_corpus(const std::string& path);

}  // namespace names

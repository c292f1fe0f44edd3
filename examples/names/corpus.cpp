#include "corpus.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>

namespace names {

namespace {

// ---- UTF-8 ----------------------------------------------------------------------------------------------------

// The code points of `line`; where it is not UTF-8, `bad` is the place of the first wrong byte.
std::u32string decoded(std::string_view line, std::size_t& bad) {
  std::u32string text;
  bad = std::string_view::npos;
  for (std::size_t i = 0; i < line.size();) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(line[at]); };
    const unsigned lead = byte(i);
    const std::size_t length = lead < 0x80   ? 1
                               : lead < 0xC2 ? 0
                               : lead < 0xE0 ? 2
                               : lead < 0xF0 ? 3
                               : lead < 0xF5 ? 4
                                             : 0;
    bool good = length > 0 && i + length <= line.size();
    char32_t point = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    for (std::size_t k = 1; good && k < length; ++k) {
      good = (byte(i + k) & 0xC0u) == 0x80;
      point = (point << 6) | (byte(i + k) & 0x3Fu);
    }
    const bool too_long = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
    const bool surrogate = point >= 0xD800 && point <= 0xDFFF;
    if (!good || too_long || surrogate || point > 0x10FFFF) {
      bad = i;
      return text;
    }
    text += point;
    i += length;
  }
  return text;
}

void append_utf8(std::string& text, char32_t point) {
  const auto add = [&](char32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (point < 0x80) {
    add(point);
  } else if (point < 0x800) {
    add(0xC0 | (point >> 6));
    add(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    add(0xE0 | (point >> 12));
    add(0x80 | ((point >> 6) & 0x3F));
    add(0x80 | (point & 0x3F));
  } else {
    add(0xF0 | (point >> 18));
    add(0x80 | ((point >> 12) & 0x3F));
    add(0x80 | ((point >> 6) & 0x3F));
    add(0x80 | (point & 0x3F));
  }
}

// ---- the file -------------------------------------------------------------------------------------------------

struct Word {
  std::string text;
  std::u32string characters;
  std::uint64_t hash;
};

// FNV-1a, then mixed as in MurmurHash3, so that words alike fall apart.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t h = 14695981039346656037ull;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdull;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return h ^ (h >> 33);
}

std::string hexadecimal(char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02X", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  return text;
}

std::vector<Word> read_words(const std::string& path) {
  if (!std::filesystem::exists(path)) throw std::runtime_error(path + ": no such file");
  if (std::filesystem::is_directory(path)) throw std::runtime_error(path + ": a folder, not a file of words");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened for reading");
  std::vector<Word> words;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // a byte order mark
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    std::size_t bad = 0;
    std::u32string characters = decoded(line, bad);
    if (bad != std::string::npos)
      throw std::runtime_error(path + ":" + std::to_string(number) + ": not UTF-8: byte " + std::to_string(bad + 1) +
                               " of the line is " + hexadecimal(line[bad]) +
                               "; convert the file, for example: iconv -f latin1 -t utf-8");
    words.push_back({line, std::move(characters), hash_of(line)});
  }
  if (file.bad()) throw std::runtime_error(path + ": cannot be read");
  return words;
}

}  // namespace

std::int64_t Vocabulary::token(char32_t character) const {
  return 2 + (std::lower_bound(characters_.begin(), characters_.end(), character) - characters_.begin());
}

std::string Vocabulary::text(const std::vector<std::int64_t>& tokens) const {
  std::string text;
  for (const std::int64_t token : tokens)
    if (token >= 2) append_utf8(text, characters_[static_cast<std::size_t>(token - 2)]);
  return text;
}

void Examples::add(const std::vector<std::int64_t>& word) {
  stream_.insert(stream_.end(), static_cast<std::size_t>(context_size), Vocabulary::padding);
  for (const std::int64_t token : word) {
    places_.push_back(stream_.size());
    stream_.push_back(token);
  }
  places_.push_back(stream_.size());
  stream_.push_back(Vocabulary::end);
  ++words_;
}

double Corpus::uniform_loss() const {
  return std::log(static_cast<double>(vocabulary.size() - 1));  // padding never follows
}

double Corpus::unigram_loss() const {
  // Counted from one, so that a character that training never shows is improbable, not impossible.
  std::vector<double> count(static_cast<std::size_t>(vocabulary.size()), 1.0);
  for (std::size_t i = 0; i < training.size(); ++i) ++count[static_cast<std::size_t>(training.target(i))];
  const double all = static_cast<double>(training.size()) + static_cast<double>(vocabulary.size() - 1);
  double loss = 0;
  for (std::size_t i = 0; i < held_out.size(); ++i)
    loss -= std::log(count[static_cast<std::size_t>(held_out.target(i))] / all);
  return loss / static_cast<double>(held_out.size());
}

Corpus read_corpus(const std::string& path) {
  const std::vector<Word> words = read_words(path);
  if (words.empty()) throw std::runtime_error(path + ": no words in it; one word a line is expected");

  // The twentieth part with the smallest hashes. Words that are equal go together: none is both learned and held out.
  std::vector<std::uint64_t> hashes;
  for (const Word& word : words) hashes.push_back(word.hash);
  std::sort(hashes.begin(), hashes.end());
  const std::uint64_t last = hashes[std::max<std::size_t>(words.size() / 20, 1) - 1];
  if (last == hashes.back())
    throw std::runtime_error(path + ": one word is not enough; some are held out and the others learned from");

  std::set<char32_t> characters;
  for (const Word& word : words) characters.insert(word.characters.begin(), word.characters.end());
  Corpus corpus;
  corpus.source = path;
  corpus.vocabulary = Vocabulary({characters.begin(), characters.end()});
  for (const Word& word : words) {
    std::vector<std::int64_t> tokens;
    for (const char32_t character : word.characters) tokens.push_back(corpus.vocabulary.token(character));
    (word.hash <= last ? corpus.held_out : corpus.training).add(tokens);
    corpus.words.insert(word.text);
  }
  return corpus;
}

}  // namespace names

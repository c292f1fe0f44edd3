// A small JSON reader for the data files of the tests. Numbers are doubles; the strings "nan", "inf" and "-inf" stand
// for what JSON has no numbers for, and number() reads them so. What is missing or of another kind is an exception
// that says where.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test {

class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };

  static Json parse(std::string_view text) {
    Parser parser{text};
    Json value = parser.value();
    parser.space();
    if (parser.at != text.size()) parser.fail("the end of the text");
    return value;
  }

  /// A file below SHARDWISE_TEST_DATA.
  static Json load(const std::string& name) {
#ifdef SHARDWISE_TEST_DATA
    const std::string path = std::string(SHARDWISE_TEST_DATA) + "/" + name;
#else
    const std::string path = name;
#endif
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("json: cannot read " + path);
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    try {
      return parse(text);
    } catch (const std::exception& e) {
      throw std::runtime_error(path + ": " + e.what());
    }
  }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_object() const { return kind_ == Kind::object; }
  bool is_string() const { return kind_ == Kind::string; }

  bool boolean() const {
    expect(Kind::boolean);
    return number_ != 0;
  }
  double number() const {
    if (kind_ == Kind::string) {
      if (text_ == "nan") return std::numeric_limits<double>::quiet_NaN();
      if (text_ == "inf") return std::numeric_limits<double>::infinity();
      if (text_ == "-inf") return -std::numeric_limits<double>::infinity();
    }
    expect(Kind::number);
    return number_;
  }
  std::int64_t integer() const { return static_cast<std::int64_t>(number()); }
  const std::string& string() const {
    expect(Kind::string);
    return text_;
  }

  /// Elements of an array, values of an object.
  std::size_t size() const { return items_.size(); }
  const std::vector<Json>& items() const {
    if (kind_ != Kind::object) expect(Kind::array);
    return items_;
  }
  const std::vector<std::string>& keys() const {
    expect(Kind::object);
    return keys_;
  }
  const Json& operator[](std::size_t i) const {
    expect(Kind::array);
    if (i >= items_.size())
      throw std::runtime_error("json: element " + std::to_string(i) + " of an array of " +
                               std::to_string(items_.size()));
    return items_[i];
  }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const Json& operator[](std::string_view key) const {
    expect(Kind::object);
    if (const Json* value = find(key)) return *value;
    std::string known;
    for (const std::string& k : keys_) known += " \"" + k + "\"";
    throw std::runtime_error("json: no key \"" + std::string(key) + "\"; there are" + known);
  }
  const Json& operator[](const char* key) const { return (*this)[std::string_view(key)]; }

  /// An array of numbers, as T.
  template <class T>
  std::vector<T> numbers() const {
    expect(Kind::array);
    std::vector<T> values;
    values.reserve(items_.size());
    for (const Json& item : items_) values.push_back(static_cast<T>(item.number()));
    return values;
  }

 private:
  const Json* find(std::string_view key) const {
    for (std::size_t i = 0; i < keys_.size(); ++i)
      if (keys_[i] == key) return &items_[i];
    return nullptr;
  }
  void expect(Kind kind) const {
    constexpr const char* names[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
    if (kind_ != kind)
      throw std::runtime_error(std::string("json: ") + names[static_cast<int>(kind)] + " expected, found " +
                               names[static_cast<int>(kind_)] + (text_.empty() ? "" : " \"" + text_ + "\""));
  }

  struct Parser {
    std::string_view text;
    std::size_t at = 0;

    [[noreturn]] void fail(const std::string& expected) const {
      std::size_t line = 1, column = 1;
      for (std::size_t i = 0; i < at && i < text.size(); ++i) {
        ++column;
        if (text[i] == '\n') ++line, column = 1;
      }
      throw std::runtime_error("json: line " + std::to_string(line) + ", column " + std::to_string(column) + ": " +
                               expected + " expected, found " +
                               (at < text.size() ? "'" + std::string(1, text[at]) + "'" : "the end"));
    }
    void space() {
      while (at < text.size() && (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r')) ++at;
    }
    bool take(char c) {
      space();
      if (at >= text.size() || text[at] != c) return false;
      ++at;
      return true;
    }
    void need(char c) {
      if (!take(c)) fail(std::string("'") + c + "'");
    }
    void word(std::string_view w) {
      if (text.substr(at, w.size()) != w) fail("\"" + std::string(w) + "\"");
      at += w.size();
    }
    Json value() {
      space();
      if (at >= text.size()) fail("a value");
      Json json;
      switch (text[at]) {
        case '{':
          ++at;
          json.kind_ = Kind::object;
          if (take('}')) return json;
          do {
            space();
            json.keys_.push_back(string());
            need(':');
            json.items_.push_back(value());
          } while (take(','));
          need('}');
          return json;
        case '[':
          ++at;
          json.kind_ = Kind::array;
          if (take(']')) return json;
          do json.items_.push_back(value());
          while (take(','));
          need(']');
          return json;
        case '"':
          json.kind_ = Kind::string;
          json.text_ = string();
          return json;
        case 't':
          word("true");
          json.kind_ = Kind::boolean;
          json.number_ = 1;
          return json;
        case 'f':
          word("false");
          json.kind_ = Kind::boolean;
          return json;
        case 'n': word("null"); return json;
        default: break;
      }
      std::size_t end = at;
      while (end < text.size() && std::string_view("+-.eE0123456789").find(text[end]) != std::string_view::npos) ++end;
      if (end == at) fail("a value");
      const std::string digits(text.substr(at, end - at));
      char* stop = nullptr;
      json.kind_ = Kind::number;
      json.number_ = std::strtod(digits.c_str(), &stop);
      if (*stop != '\0') fail("a number");
      at = end;
      return json;
    }
    std::string string() {
      if (at >= text.size() || text[at] != '"') fail("'\"'");
      ++at;
      std::string s;
      for (; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] != '\\') {
          s += text[at];
          continue;
        }
        ++at;
        if (at >= text.size()) break;
        switch (text[at]) {
          case 'n': s += '\n'; break;
          case 't': s += '\t'; break;
          case 'r': s += '\r'; break;
          case 'b': s += '\b'; break;
          case 'f': s += '\f'; break;
          case 'u': s += utf8(); break;
          default: s += text[at]; break;
        }
      }
      if (at >= text.size()) fail("'\"'");
      ++at;
      return s;
    }
    std::string utf8() {  // of the basic plane; leaves `at` on the last digit
      if (at + 4 >= text.size()) fail("four hexadecimal digits");
      const auto code = static_cast<unsigned>(std::strtoul(std::string(text.substr(at + 1, 4)).c_str(), nullptr, 16));
      at += 4;
      std::string s;
      if (code < 0x80) {
        s += static_cast<char>(code);
      } else if (code < 0x800) {
        s += static_cast<char>(0xc0 | (code >> 6));
        s += static_cast<char>(0x80 | (code & 0x3f));
      } else {
        s += static_cast<char>(0xe0 | (code >> 12));
        s += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
        s += static_cast<char>(0x80 | (code & 0x3f));
      }
      return s;
    }
  };

  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string text_;
  std::vector<std::string> keys_;
  std::vector<Json> items_;
};

/// `{"shape": [...], "data": [...]}`: the spelling of tensors in the data files.
template <class T>
struct JsonTensor {
  std::vector<std::int64_t> shape;
  std::vector<T> data;

  explicit JsonTensor(const Json& json)
      : shape(json["shape"].numbers<std::int64_t>()), data(json["data"].numbers<T>()) {
    std::int64_t n = 1;
    for (const std::int64_t s : shape) n *= s;
    if (n != static_cast<std::int64_t>(data.size()))
      throw std::runtime_error("json: a tensor of " + std::to_string(n) + " elements has " +
                               std::to_string(data.size()) + " values");
  }
};

}  // namespace test

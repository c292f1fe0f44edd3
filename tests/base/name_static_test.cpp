#include <shardwise/base/name.hpp>

#include <string_view>
#include <type_traits>

using namespace shardwise;

namespace {

// A literal, a view of it, and the empty name.
static_assert(Name("net1").view() == "net1");
static_assert(Name("net1").size() == 4);
static_assert(!Name("net1").empty());
static_assert(Name().empty());
static_assert(Name("").empty());
static_assert(Name() == Name(""));
static_assert(Name(std::string_view("net1")) == Name("net1"));
static_assert(Name(std::string_view("layers.*.w1").substr(0, 6)) == Name("layers"));

// Equality is that of the text.
static_assert(Name("net1") == Name("net1"));
static_assert(Name("net1") != Name("net2"));
static_assert(Name("net1") != Name("net10"));
static_assert(Name("a b").view() == "a b");
static_assert(Name(" a").view() == " a");
static_assert(Name("a ") == Name("a"));  // a name never ends with a space
static_assert(Name("é").size() == 2);

// Padded with spaces up to a final NUL, also at full length.
constexpr const char full[] = "0123456789012345678901234567890123456789012345678901234567890ab";
static_assert(sizeof(full) == Name::capacity + 1);
static_assert(Name(full).size() == Name::capacity);
static_assert(Name(full).view() == full);
static_assert(Name(full).text[Name::capacity] == '\0');
static_assert(Name("x").text[1] == ' ');
static_assert(Name("x").text[Name::capacity - 1] == ' ');
static_assert(Name("x").text[Name::capacity] == '\0');

// A run-time text that is too long is cut.
constexpr const char too_long[] = "0123456789012345678901234567890123456789012345678901234567890abcdef";
static_assert(Name(std::string_view(too_long)) == Name(full));

// Names of flattened axes.
static_assert(join_names("dp", "tp") == Name("dp_tp"));
static_assert(join_names(join_names("dp", "tp"), "pp") == Name("dp_tp_pp"));
static_assert(join_names("", "tp") == Name("tp"));
static_assert(join_names(full, "tp") == Name(full));
static_assert(join_names(full, full).text[Name::capacity] == '\0');

// A template argument: equal names make the same type.
template <Name name>
struct Named {
  static constexpr std::string_view view = name.view();
};
static_assert(std::is_same_v<Named<"tp">, Named<join_names("", "tp")>>);
static_assert(std::is_same_v<Named<"tp">, Named<Name(std::string_view("tp"))>>);
static_assert(!std::is_same_v<Named<"tp">, Named<"dp">>);
static_assert(Named<"tp">::view == "tp");

template <Name... names>
constexpr int count = sizeof...(names);
static_assert(count<"dp", "tp"> == 2);

static_assert(std::is_trivially_copyable_v<Name>);
static_assert(sizeof(Name) == 64);

}  // namespace

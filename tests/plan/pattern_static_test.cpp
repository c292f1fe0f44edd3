// Every row of tests/data/plans.json, which PyTorch's parallelize_module produced, at compile time.
#include <shardwise/plan/pattern.hpp>

#include <string_view>

using namespace shardwise;

namespace {

#define ROW(number, pattern, name, matches) static_assert(match_path(pattern, name) == matches, "row " #number);
#include "../data/plans_rows.inc"
#undef ROW

#define ROW(number, pattern, name, matches) +1
constexpr int rows = 0
#include "../data/plans_rows.inc"
    ;
#undef ROW
static_assert(rows == 172);

static_assert(first_atom("layers.0.w1") == "layers");
static_assert(rest_after_first_atom("layers.0.w1") == "0.w1");
static_assert(first_atom("net1") == "net1");
static_assert(rest_after_first_atom("net1").empty());
static_assert(first_atom("").empty());
static_assert(rest_after_first_atom("").empty());
static_assert(first_atom("net[a.b]") == "net[a");
static_assert(rest_after_first_atom("net[a.b]") == "b]");
static_assert(first_atom(".a").empty());

// Sets of several bytes a character, and bytes that are no UTF-8.
static_assert(match_atom("[é]", "é"));
static_assert(!match_atom("[é]", "ë"));
static_assert(match_atom("[!é]", "ë"));
static_assert(match_atom("?", "\xf0\x9f\x98\x80"));
static_assert(!match_atom("??", "\xf0\x9f\x98\x80"));
static_assert(match_atom("*é*", "caféa"));
static_assert(match_atom("\xff?", "\xff\xc3"));
static_assert(!match_atom("\xfe", "\xff"));
static_assert(match_atom("[c-a!x]", "x"));
static_assert(!match_atom("[c-a!x]", "y"));
static_assert(!match_path("a.b", "a.b.c"));
static_assert(!match_path("a.b.c", "a.b"));
static_assert(match_path("*.", "a"));
static_assert(!match_path("a..", "a"));
static_assert(!match_path(".", ""));
static_assert(!match_path(".", "a"));

static_assert(match_indices("*") == IndexMatch::all);
static_assert(match_indices("**") == IndexMatch::all);
static_assert(match_indices("?*") == IndexMatch::all);
static_assert(match_indices("*?") == IndexMatch::all);
static_assert(match_indices("*?*") == IndexMatch::all);
static_assert(match_indices("[0-9]*") == IndexMatch::all);
static_assert(match_indices("*[0-9]") == IndexMatch::all);
static_assert(match_indices("[!a-z]*") == IndexMatch::all);
static_assert(match_indices("[0123456789]*") == IndexMatch::all);
static_assert(match_indices("") == IndexMatch::none);
static_assert(match_indices("layer") == IndexMatch::none);
static_assert(match_indices("*x") == IndexMatch::none);
static_assert(match_indices("[a-z]*") == IndexMatch::none);
static_assert(match_indices("[!0-9]*") == IndexMatch::none);
static_assert(match_indices("1[") == IndexMatch::none);
static_assert(match_indices("00") == IndexMatch::none);
static_assert(match_indices("0?*") == IndexMatch::none);
static_assert(match_indices("[9-0]*") == IndexMatch::none);
static_assert(match_indices("0") == IndexMatch::some);
static_assert(match_indices("0*") == IndexMatch::some);
static_assert(match_indices("*0") == IndexMatch::some);
static_assert(match_indices("17") == IndexMatch::some);
static_assert(match_indices("?") == IndexMatch::some);
static_assert(match_indices("[0-9]") == IndexMatch::some);
static_assert(match_indices("??*") == IndexMatch::some);
static_assert(match_indices("[1-9]*") == IndexMatch::some);
static_assert(match_indices("[!1]*") == IndexMatch::some);

}  // namespace

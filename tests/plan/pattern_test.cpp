#include <shardwise/plan/pattern.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace shardwise;

namespace {

using Names = std::vector<std::string>;
using Applications = std::vector<std::pair<std::string, std::string>>;

// A whole plan as PyTorch applied it (tests/data/plans.json).
struct Plan {
  int number;
  Names tied;     // empty, or two names of one module
  Names modules;  // the leaves of the tree
  Names keys;
  Applications applied;
};

const Plan plans[] = {
#define LIST(...) {__VA_ARGS__}
#define PAIR(key, module) {key, module}
#define PLAN(number, tied, modules, keys, applied) {number, tied, modules, keys, applied},
#include "../data/plans_rows.inc"
#undef PLAN
#undef PAIR
#undef LIST
};

bool contains(const Names& names, const std::string& name) {
  for (const std::string& n : names)
    if (n == name) return true;
  return false;
}

std::string parent(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? std::string() : name.substr(0, dot);
}

// Where a tied module has a second name. PyTorch lists the children of one parent without duplicates.
bool second_name_counts(const Plan& plan) { return !plan.tied.empty() && parent(plan.tied[0]) != parent(plan.tied[1]); }

// All modules of the tree, containers before what they hold.
Names tree(const Plan& plan) {
  Names names{""};
  Names leaves = plan.modules;
  if (second_name_counts(plan)) leaves.push_back(plan.tied[1]);
  for (const std::string& leaf : leaves)
    for (std::size_t i = 0; i <= leaf.size(); ++i)
      if (i == leaf.size() || leaf[i] == '.')
        if (!contains(names, leaf.substr(0, i))) names.push_back(leaf.substr(0, i));
  return names;
}

// By the names alone: what a rule is applied to.
Applications match_whole_names(const Plan& plan) {
  Applications applied;
  for (const std::string& key : plan.keys)
    for (const std::string& name : tree(plan))
      if (match_path(key, name)) {
        const bool second = second_name_counts(plan) && name == plan.tied[1];
        applied.emplace_back(key, second ? plan.tied[0] : name);
      }
  return applied;
}

// As modules do it: a child takes the rest of the keys whose first atom matches it; an empty rest is its own.
void descend(const Names& names, const std::string& module, std::string_view rest, Names& reached) {
  if (rest.empty()) {
    reached.push_back(module);
    return;
  }
  for (const std::string& name : names)
    if (!name.empty() && parent(name) == module) {
      const std::string child = module.empty() ? name : name.substr(module.size() + 1);
      if (match_atom(first_atom(rest), child)) descend(names, name, rest_after_first_atom(rest), reached);
    }
}

}  // namespace

TEST_CASE("whole plans are applied to the modules that PyTorch applies them to, in its order") {
  int compared = 0;
  for (const Plan& plan : plans) {
    CAPTURE(plan.number);
    CHECK(match_whole_names(plan) == plan.applied);
    ++compared;
  }
  CHECK(compared == 13);
}

TEST_CASE("descending a plan atom by atom reaches what whole names match") {
  for (const Plan& plan : plans)
    for (const std::string& key : plan.keys) {
      CAPTURE(plan.number);
      CAPTURE(key);
      const Names names = tree(plan);
      Names reached, matched;
      descend(names, "", key, reached);
      for (const std::string& name : names)
        if (match_path(key, name)) matched.push_back(name);
      CHECK(reached == matched);
    }
}

TEST_CASE("match_indices agrees with matching every index up to 2000") {
  const char characters[] = {'*', '?', '0', '1', '9', 'a', '[', ']', '!', '-'};
  int wrong_all = 0, wrong_none = 0, wrong_some = 0;
  // All atoms of up to four of these characters.
  for (int length = 0; length <= 4; ++length) {
    int total = 1;
    for (int i = 0; i < length; ++i) total *= 10;
    for (int code = 0; code < total; ++code) {
      std::string atom;
      for (int i = 0, rest = code; i < length; ++i, rest /= 10) atom += characters[rest % 10];
      int matched = 0;
      const int most = 2000;
      const IndexMatch answer = match_indices(atom);
      for (int index = 0; index < most; ++index) {
        matched += match_atom(atom, std::to_string(index)) ? 1 : 0;
        if (answer == IndexMatch::some && matched > 0 && matched <= index) break;
      }
      wrong_all += (answer == IndexMatch::all) != (matched == most) ? 1 : 0;
      wrong_none += answer == IndexMatch::none && matched > 0 ? 1 : 0;
      // `some` is the careful answer: it may also stand for an atom that matches nothing.
      wrong_some += answer == IndexMatch::some && matched == most ? 1 : 0;
    }
  }
  CHECK(wrong_all == 0);
  CHECK(wrong_none == 0);
  CHECK(wrong_some == 0);
}

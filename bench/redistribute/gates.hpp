// The figures of redistribute that have limits.
#pragma once

#include <cstddef>
#include <string>

#include "options.hpp"
#include "ranks.hpp"

namespace bench {

// The place of a transition in ranks.transitions(); refuses an unknown name.
std::size_t find_transition(const Ranks& ranks, const std::string& name);

// Runs the gates of this kind of ranks and prints GATE <name> <measured> <limit> ok|over for each; 1 if one is over.
int gates(const Options& options, const Ranks& ranks);

}  // namespace bench

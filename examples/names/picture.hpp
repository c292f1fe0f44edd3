// The loss curves as a picture.
#pragma once

#include <string>

#include "training.hpp"

namespace names {

// An SVG. The parallel curve is drawn dashed over the one-device curve: where both agree, both are seen.
std::string loss_curves_as_svg(const Options& options, const Corpus& corpus, const Result& result);

}  // namespace names

// PyTorch's MLPModule.
#pragma once

#include <shardwise/shardwise.hpp>

namespace test {

using namespace shardwise;

template <class Scope = Unsharded<float>>
struct Mlp {
  Child<Scope, "net1", nn::Linear> net1;
  Child<Scope, "net2", nn::Linear> net2;
  auto operator()(const auto& x) const { return net2(relu(net1(x))); }
};

}  // namespace test

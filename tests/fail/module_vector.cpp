// Modules in a std::vector: no walk of the model would find its parameters.
// expect-error: shardwise::for_each_parameter: \[C4\] a member of the model has parameters that are not found: a module in a module is a Child<Scope, "name", Module>; many are a ChildList or a ChildArray, no std::vector and no std::array
// needs: eigen
#include <vector>

#include <shardwise/shardwise.hpp>

using namespace shardwise;

template <class Scope = Unsharded<float>>
struct Model {
  ChildArray<Scope, "layers", nn::Linear, 2> layers;
  std::vector<double> scales;
#if SHARDWISE_EXPECT_FAIL
  std::vector<nn::Linear<Scope>> more_layers;
#else
  ChildList<Scope, "more_layers", nn::Linear> more_layers;
#endif
};

ParameterList all(const Model<>& model) { return parameters(model); }

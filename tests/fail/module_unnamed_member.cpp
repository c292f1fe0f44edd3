// A module that is a member as it is: no walk of the model would find its parameters.
// expect-error: shardwise::for_each_parameter: \[C4\] a member of the model has parameters that are not found: a module in a module is a Child<Scope, "name", Module>; many are a ChildList or a ChildArray, no std::vector and no std::array
// needs: eigen
#include <array>
#include <optional>
#include <vector>

#include <shardwise/shardwise.hpp>

using namespace shardwise;

// Configuration that is written for the scope has no parameters.
template <class Scope>
struct Bounds {
  typename Scope::value_type low = 0, high = 1;
};

template <class Scope = Unsharded<float>>
struct Model {
  ChildArray<Scope, "layers", nn::Linear, 2> layers;
  std::optional<Child<Scope, "head", nn::Linear>> head;
  std::vector<double> scales;
  std::array<Bounds<Scope>, 2> bounds;
  std::optional<Bounds<Scope>> more;
#if SHARDWISE_EXPECT_FAIL
  nn::Linear<Scope> last;
#else
  Child<Scope, "last", nn::Linear> last;
#endif
};

ParameterList all(const Model<>& model) { return parameters(model); }

// A module of more than 32 members.
// expect-error: shardwise::(visit_members|for_each_member|Module|parallelize_module|for_each_parameter): \[.*32 members
// needs: eigen
#include <shardwise/shardwise.hpp>

using namespace shardwise;

template <class Scope = Unsharded<float>>
struct Wide {
  Child<Scope, "net", nn::Linear> net;
  int m0 = 0, m1 = 0, m2 = 0, m3 = 0, m4 = 0, m5 = 0, m6 = 0, m7 = 0, m8 = 0, m9 = 0, m10 = 0, m11 = 0, m12 = 0,
      m13 = 0, m14 = 0, m15 = 0, m16 = 0, m17 = 0, m18 = 0, m19 = 0, m20 = 0, m21 = 0, m22 = 0, m23 = 0, m24 = 0,
      m25 = 0, m26 = 0, m27 = 0, m28 = 0, m29 = 0;
#if SHARDWISE_EXPECT_FAIL
  int one_more = 0;
  int two_more = 0;
#else
  int one_more = 0;
#endif
};

ParameterList all(const Wide<>& model) { return parameters(model); }

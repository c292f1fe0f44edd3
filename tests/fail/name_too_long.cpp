// A name of 64 characters.
// expect-error: shardwise::Name: \[N1\] at most 63 characters; shorten the name
#include <shardwise/base/name.hpp>

#if SHARDWISE_EXPECT_FAIL
constexpr shardwise::Name name = "1234567890123456789012345678901234567890123456789012345678901234";
#else
constexpr shardwise::Name name = "123456789012345678901234567890123456789012345678901234567890123";
#endif

static_assert(!name.empty());

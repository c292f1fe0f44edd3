// Whether this build is a slow one, with a sanitizer, or not optimised. Long tests run fewer cases there.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHARDWISE_TEST_SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SHARDWISE_TEST_SLOW_BUILD 1
#endif
#endif
#ifndef SHARDWISE_TEST_SLOW_BUILD
#define SHARDWISE_TEST_SLOW_BUILD 0
#endif

namespace test {

constexpr bool slow_build = SHARDWISE_TEST_SLOW_BUILD != 0;
#ifdef __OPTIMIZE__
constexpr bool optimised = true;
#else
constexpr bool optimised = false;
#endif

}  // namespace test

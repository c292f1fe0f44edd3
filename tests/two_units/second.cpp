#include <everything.hpp>

const char* second_unit();
const char* second_unit() { return shardwise::to_string(shardwise::DType::float32); }

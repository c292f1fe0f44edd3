// Whether products of float matrices may round their operands to TF32. Layer: cuda.
#pragma once

#include <atomic>

namespace shardwise::detail {
inline std::atomic<bool> tf32_in_products{false};
}  // namespace shardwise::detail

namespace shardwise::cuda {

/// Products of float matrices may round their operands to TF32, 10 bits of mantissa, several times faster; of the whole process. Off
/// unless asked for. PyTorch: `torch.backends.cuda.matmul.allow_tf32`.
inline void allow_tf32(bool allowed) { detail::tf32_in_products.store(allowed, std::memory_order_relaxed); }
inline bool tf32_allowed() { return detail::tf32_in_products.load(std::memory_order_relaxed); }

}  // namespace shardwise::cuda

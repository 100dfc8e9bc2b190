// What every function of the family demands of a weight beside what its kernel's list says.
#pragma once

#include "cuda/linear/message.h"
#include "sparsecore/block_sparse_cuda.h"

namespace sparsecore::block_sparse {

// Entries and turns then fit into 32 bits.
constexpr int64_t kMostBlocks = int64_t{1} << 30;

constexpr bool is_size(int32_t size) { return size == 16 || size == 32 || size == 64 || size == 128; }

// The index is read on the device alone: block_sparse_validate.
inline Status check_weight(const char* function, const BlockSparse& weight, int64_t n) {
  using cuda_linear::refuse;
  if (weight.blocks < 0 || weight.blocks > kMostBlocks)
    return refuse(Status::kBadShape, "%s: needs 0 to 2^30 blocks, got %lld", function,
                  static_cast<long long>(weight.blocks));
  if (n > 0 && (!weight.starts || (weight.blocks > 0 && !weight.index)))
    return refuse(Status::kNullPointer, "%s: needs starts and index", function);
  return Status::kOk;
}

}  // namespace sparsecore::block_sparse

// Shared lists: V neighbouring output channels (a group) keep the same columns. N:M with a vector length, and
// Group(V, 1): one kernel, because only the lengths of the lists differ.
//
//   groups     = ceil(n / vector); the channels past n in the last group are stored as zeros
//   group_ptr  int32 [groups + 1]       first record of each group, in records; the last entry is `records`
//   columns    uint16 [records]         kept columns of the group, strictly ascending (k <= 65536)
//   values     [records, vector]        a record is the V weights of one kept column
//
// bytes = records * (vector * size_of(values) + 2) + 4 * (groups + 1)
#pragma once

#include "sparsecore/linear.h"
#include "sparsecore/row_lists.h"

namespace sparsecore {

struct SharedLists {
  const void* values = nullptr;
  const uint16_t* columns = nullptr;
  const int32_t* group_ptr = nullptr;
  int64_t records = 0;
  int32_t vector = 16;  // 4, 8, 16, 32 or 64; tuned for 16, 32, 64
};

// Bounds of every pointer and column. Cheap beside the product; called by shared_lists_linear itself.
SPARSECORE_API Status shared_lists_check(const SharedLists& weight, int64_t n, int64_t k);
// And the order of the columns. `where` (may be null) receives the record of the first offence.
SPARSECORE_API Status shared_lists_validate(const SharedLists& weight, int64_t n, int64_t k, int64_t* where);

// Compute::kInt8 quantises x per token, symmetric, to [-127, 127] (scale = max|x| / 127), exact int32 sums; a token
// that holds an infinity or a NaN gives NaN. Compute::kFloat16 is a permission: this family computes in float32.
// Where it answers kBadIndex, y may have been written in part.
SPARSECORE_API Status shared_lists_linear(const LinearIo& io, const SharedLists& weight);
SPARSECORE_API Status shared_lists_weight_grad(const WeightGradIo& io, const SharedLists& weight);

// `mask` [groups, k]: 1 where the group keeps the column. `dense` [n, k].
SPARSECORE_API int64_t shared_lists_count(const uint8_t* mask, int64_t groups, int64_t k);
SPARSECORE_API Status shared_lists_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                        int32_t vector, void* values, uint16_t* columns, int32_t* group_ptr);
SPARSECORE_API Status shared_lists_unpack(const SharedLists& weight, DType dtype, int64_t n, int64_t k, void* dense);

// The transposed matrix [k, n] as row lists (each row keeps whole groups): values_t[i] = values[order[i]], where
// order counts elements of `values`. Padding channels of the last group are left out. Sized as a packing of [k, n].
SPARSECORE_API Status shared_lists_transpose(const SharedLists& weight, int64_t n, int64_t k, int32_t block_t,
                                             uint8_t* offsets_t, int32_t* block_ptr_t, int32_t* order);

}  // namespace sparsecore

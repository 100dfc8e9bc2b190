// Row lists: for every output channel the kept columns, blocked along the input. Any per-row pattern: unstructured,
// N:M, anything a mask can say.
//
//   blocks     = ceil(k / block)
//   block_ptr  int32 [blocks, n + 1]   block_ptr[b][o] .. block_ptr[b][o + 1] are the places of channel o in block b;
//                                      block_ptr[b][n] == block_ptr[b + 1][0], and the last entry is nnz
//   offsets    uint8 [nnz]             column - b * block, strictly ascending inside a list
//   values     [nnz]                   in the same order
//
// bytes = nnz * (size_of(values) + 1) + 4 * blocks * (n + 1)
#pragma once

#include "sparsecore/linear.h"

namespace sparsecore {

struct RowLists {
  const void* values = nullptr;
  const uint8_t* offsets = nullptr;
  const int32_t* block_ptr = nullptr;
  int64_t nnz = 0;
  int32_t block = 128;  // columns of a block, a multiple of 16, 16..256
};

// The block that is fastest for a weight of this density (kept / all), for layers whose token count is not known yet.
SPARSECORE_API int32_t row_lists_block(double density);

// Cheap (reads block_ptr only): enough for a kernel to stay inside its buffers, whatever the offsets are. Called by
// row_lists_linear itself.
SPARSECORE_API Status row_lists_check(const RowLists& weight, int64_t n, int64_t k);
// Everything, the order of the offsets too. `where` (may be null) receives the place of the first offence.
SPARSECORE_API Status row_lists_validate(const RowLists& weight, int64_t n, int64_t k, int64_t* where);

SPARSECORE_API Status row_lists_linear(const LinearIo& io, const RowLists& weight);

// Gradient of the kept values: out[i] = sum over tokens of grad_y[t, row(i)] * x[t, column(i)], float32.
struct WeightGradIo {
  const void* grad_y = nullptr;  // [m, n], columns dense
  const void* x = nullptr;       // [m, k], columns dense
  float* out = nullptr;          // as the values of the weight
  int64_t m = 0, n = 0, k = 0;
  int64_t grad_y_row_stride = 0, x_row_stride = 0;
  DType dtype = DType::kFloat32;  // of grad_y and x
};
SPARSECORE_API Status row_lists_weight_grad(const WeightGradIo& io, const RowLists& weight);

// dense -> lists. `dense` [n, k] and `mask` [n, k] (1 = kept) are contiguous; zeros under the mask are stored.
// Sizes: block_ptr as above, then values and offsets of row_lists_count() entries.
SPARSECORE_API int64_t row_lists_count(const uint8_t* mask, int64_t n, int64_t k);
SPARSECORE_API Status row_lists_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                     int32_t block, void* values, uint8_t* offsets, int32_t* block_ptr);
// lists -> dense; `dense` is overwritten, zeros included. The weight must be valid.
SPARSECORE_API Status row_lists_unpack(const RowLists& weight, DType dtype, int64_t n, int64_t k, void* dense);

// The lists of the transposed matrix [k, n], and where each of its values stands in the original: values_t[i] =
// values[order[i]]. Outputs are sized as a packing of [k, n] with `block_t`.
SPARSECORE_API Status row_lists_transpose(const RowLists& weight, int64_t n, int64_t k, int32_t block_t,
                                          uint8_t* offsets_t, int32_t* block_ptr_t, int32_t* order);

}  // namespace sparsecore

// Block-sparse weights on a GPU: square blocks of 16, 32, 64 or 128, bfloat16 and float16.
//
// W [n, k] is cut into blocks of size x size, those at the edges filled up with zeros. What is kept stands as torch has
// it in BSR: the blocks of a row of blocks one after another, their columns ascending.
//
//   values  [blocks, size, size]   row-major each
//   starts  int32 [rows + 1]       row r of blocks has entries starts[r] .. starts[r + 1]; rows = ceil(n / size)
//   index   int32 [blocks]         the column of an entry, strictly ascending in a row, below ceil(k / size)
//   order   int32 [rows]           rows from the longest to the shortest, equal ones ascending: blocks of threads that
//                                  start late get little to do
//
// The transposed matrix uses the same values. Its own starts, index and order go through `source`: entry j of it is
// block source[j] of values, to be read transposed.
#pragma once

#include "sparsecore/linear_cuda.h"

namespace sparsecore {

struct BlockSparse {
  const void* values = nullptr;  // begins at a multiple of 16 bytes
  const int32_t* starts = nullptr;
  const int32_t* index = nullptr;
  const int32_t* order = nullptr;
  const int32_t* source = nullptr;  // null: entry j is block j, as it stands
  int64_t blocks = 0;
  int32_t size = 64;
};

// W is the weight, or with weight.source its transpose. Rows of blocks without entries give what zero sums give.
struct BlockSparseParams : DeviceLinear {
  BlockSparse weight;
};
// Depends on shapes alone.
SPARSECORE_API int64_t block_sparse_workspace(int64_t m, int64_t n, int64_t k, int64_t blocks, int32_t size);
SPARSECORE_API Status block_sparse_linear(const BlockSparseParams& params, void* stream);

// The gradient of the kept blocks: out[j, o, i] = sum over tokens of grad_y[t, size * row + o] * x[t, size * column +
// i] for entry j at (row, column); what lies past n or k is zero. Sums are float32 in an order that depends on shapes
// alone.
struct BlockSparseGradParams {
  const void* grad_y = nullptr;  // [m, n], columns dense
  const void* x = nullptr;       // [m, k], columns dense
  void* out = nullptr;           // [blocks, size, size], begins at a multiple of 16 bytes
  BlockSparse weight;            // starts and index; values, order and source are not looked at
  int64_t m = 0, n = 0, k = 0;
  int64_t grad_y_row_stride = 0, x_row_stride = 0;  // in elements
  DType dtype = DType::kBFloat16;                   // of grad_y and x
  DType out_dtype = DType::kBFloat16;               // float32, bfloat16 or float16
  void* workspace = nullptr;                        // as in DeviceLinear
  int64_t workspace_bytes = 0;
};
SPARSECORE_API int64_t block_sparse_weight_grad_workspace(int64_t m, int64_t blocks, int32_t size);
SPARSECORE_API Status block_sparse_weight_grad(const BlockSparseGradParams& params, void* stream);

// What is wrong with an index, and at which row or entry.
enum class BlockSparseFault : int32_t {
  kNone = 0,
  kStarts,      // starts do not ascend from 0 to the number of blocks
  kIndex,       // an index outside the matrix or not above the one before it
  kOrder,       // order is not the rows from the longest to the shortest
  kTransposed,  // of the transposed index: starts, index or order
  kSource,      // a source that is not the entry at the mirrored place
};
// Writes the first fault to where[0] and its row or entry to where[1], in device memory; kNone and -1 if there is none.
// `transposed` (its source included) may be null. Kernels stay inside their buffers whatever an index holds; a result
// is right only for one without faults.
SPARSECORE_API Status block_sparse_validate(const BlockSparse& weight, const BlockSparse* transposed, int64_t n,
                                            int64_t k, int64_t* where, void* stream);

}  // namespace sparsecore

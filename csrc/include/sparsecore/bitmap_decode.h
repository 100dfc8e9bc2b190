// Unstructured weights for one to eight tokens: one bit per weight and the kept values in order.
//
//   words    = ceil(k / 64)
//   bitmap   uint64 [n, words]   bit j of word w is column 64 w + j; bits past k are zero
//   row_ptr  int32 [n + 1]       first value of each row; the last entry is nnz
//   values   [nnz]
//
// bytes = nnz * size_of(values) + 8 * n * words + 4 * (n + 1)
#pragma once

#include "sparsecore/linear.h"

namespace sparsecore {

struct BitmapDecode {
  const void* values = nullptr;
  const uint64_t* bitmap = nullptr;
  const int32_t* row_ptr = nullptr;
  int64_t nnz = 0;
};

// row_ptr against the population count of every row, and bits past k: all that is needed to stay inside `values`.
SPARSECORE_API Status bitmap_decode_check(const BitmapDecode& weight, int64_t n, int64_t k);
SPARSECORE_API Status bitmap_decode_linear(const LinearIo& io, const BitmapDecode& weight);
SPARSECORE_API Status bitmap_decode_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                         void* values, uint64_t* bitmap, int32_t* row_ptr);
SPARSECORE_API Status bitmap_decode_unpack(const BitmapDecode& weight, DType dtype, int64_t n, int64_t k, void* dense);
// What a dense matrix holds at the places of the bitmap, in their order: `values` has room for nnz. weight.values is
// not read.
SPARSECORE_API Status bitmap_decode_gather(const BitmapDecode& weight, DType dtype, int64_t n, int64_t k,
                                           const void* dense, void* values);

}  // namespace sparsecore

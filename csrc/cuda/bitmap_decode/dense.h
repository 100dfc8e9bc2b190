// What the kernels between the bitmap and the dense matrix are given.
#pragma once

#include "cuda/bitmap_decode/matmul.h"

namespace sparsecore::cuda_bitmap_decode {

constexpr int kPartWords = 32;  // of a row's bitmap, to a warp
constexpr int kDenseThreads = 128;

struct DenseArguments {
  BitmapDecode weight;
  void* dense = nullptr;   // [n, k], contiguous
  void* values = nullptr;  // [nnz], of gather
  int64_t n = 0, k = 0;
  int64_t words = 0, parts = 0;  // of a row
};

}  // namespace sparsecore::cuda_bitmap_decode

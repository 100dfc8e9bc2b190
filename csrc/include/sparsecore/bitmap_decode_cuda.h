// Unstructured and N:M weights for few tokens on a GPU, in the layout of bitmap_decode.h: the CPU's file as it stands.
// Pointers and streams are those of linear_cuda.h.
#pragma once

#include "sparsecore/bitmap_decode.h"
#include "sparsecore/linear_cuda.h"

namespace sparsecore {

// x is bfloat16 or float16; the values are of its type, or int8 with a scale for each channel. Weights are made dense
// in registers: one that the format left out is a zero that is multiplied, so that an x that is not finite makes every
// channel a NaN.
//
// No array can lead the kernel outside its buffers: starts are limited to nnz, and bits past the values read zeros.
// bitmap_decode_check, on the host, says whether they belong together.
struct BitmapDecodeMatmulParams : DeviceLinear {
  BitmapDecode weight;  // [n, k]; values and bitmap at multiples of their elements
  DType weight_dtype = DType::kBFloat16;
};

// Depends on the shape alone, so that graphs and compilers can plan with it.
SPARSECORE_API int64_t bitmap_decode_matmul_workspace(int64_t m, int64_t n, int64_t k);
SPARSECORE_API Status bitmap_decode_matmul(const BitmapDecodeMatmulParams& params, void* stream);

}  // namespace sparsecore

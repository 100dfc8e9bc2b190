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
// No array can lead the kernel outside its buffers: starts are limited to nnz, and bits past the values read zeros. The
// answer is defined where bitmap_decode_check has nothing to say.
struct BitmapDecodeMatmulParams : DeviceLinear {
  BitmapDecode weight;  // [n, k]; values and bitmap at multiples of their elements
  DType weight_dtype = DType::kBFloat16;
};

// Depends on the shape alone, so that graphs and compilers can plan with it.
SPARSECORE_API int64_t bitmap_decode_matmul_workspace(int64_t m, int64_t n, int64_t k);
SPARSECORE_API Status bitmap_decode_matmul(const BitmapDecodeMatmulParams& params, void* stream);

// Up to so many tokens the product reads the bitmap; beyond, a dense product of the unpacked weight takes less time. Of
// 16 x 16 weights, half of them kept, on an H100: 32 tokens take the bitmap product some 26 cycles of shared memory,
// and each further 32 as many; unpacking moves 288 + 512 bytes, 61 cycles, and the dense product reads 512, up to 39.
// They meet near four times 32. Arithmetic, not measurement.
constexpr int64_t kBitmapDecodeMostTokens = 128;

// The dense weight, [n, k] and contiguous. The values are of its type, or int8 without their scale.
struct BitmapDecodeDenseParams {
  BitmapDecode weight;
  void* dense = nullptr;
  int64_t n = 0, k = 0;
  DType weight_dtype = DType::kBFloat16, dtype = DType::kBFloat16;
};
SPARSECORE_API Status bitmap_decode_to_dense(const BitmapDecodeDenseParams& params, void* stream);

// What a dense matrix [n, k], contiguous, holds at the places of the bitmap: a dense gradient as one of the values.
struct BitmapDecodeGatherParams {
  BitmapDecode weight;  // its values are not read
  const void* dense = nullptr;
  void* values = nullptr;  // [nnz]
  int64_t n = 0, k = 0;
  DType dtype = DType::kBFloat16;  // of both
};
SPARSECORE_API Status bitmap_decode_gather(const BitmapDecodeGatherParams& params, void* stream);

// What bitmap_decode_check would answer, into device memory: where[0] the status and where[1] the row (0 where starts
// do not ascend from 0 to nnz), or kOk and -1. To be asked once, of a weight that came from elsewhere. The values are
// not looked at.
SPARSECORE_API Status bitmap_decode_validate_device(const BitmapDecode& weight, int64_t n, int64_t k, int64_t* where,
                                                    void* stream);

}  // namespace sparsecore

// What the bitmap kernels share: their argument, the plan, and how the bitmap is cut.
#pragma once

#include <cstdint>

#include "cuda/linear/arguments.h"
#include "cuda/linear/capabilities.h"
#include "sparsecore/bitmap_decode_cuda.h"

namespace sparsecore::cuda_bitmap_decode {

using namespace cuda_linear;

constexpr int kWordColumns = 64;  // 128 bytes of x

struct Plan {
  int32_t tokens = 8;  // of a tile: 8, 16 or 32
  int32_t splits = 1;  // of the inputs
};

struct MatmulArguments : Arguments {
  BitmapDecode weight;
  int64_t words = 0, turns = 0;  // of a row; a turn is as many words as the tile takes at once
  bool value_vectors = false;    // the values begin at a multiple of 16 bytes
};

// What there is: products by the type of x, with values of it or of int8; validation; by the type of the dense matrix,
// that matrix from values of its type or of int8, and values from it.
enum Kernel { kOwnValues, kInt8Values, kValidate, kDense, kDenseOfInt8, kGather };
const Capabilities& capabilities();
Plan choose_plan(int64_t m, int64_t n, int64_t k);
// With a plan given, as the tests do. Checks the parameters first.
Status run_plan(const Plan& plan, const BitmapDecodeMatmulParams& params, void* stream);

}  // namespace sparsecore::cuda_bitmap_decode

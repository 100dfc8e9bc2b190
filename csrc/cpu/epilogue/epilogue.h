// The end of every linear kernel, on one row of outputs:
//
//   y[i] = activation(scale[i] * sums[i] + bias[i])     i = 0 .. n - 1
//
// GELU is x * (1 + erf(x / sqrt 2)) / 2, GELU tanh its usual approximation, SiLU x / (1 + exp(-x)); relative error
// below 1e-6 of max(|x|, 1) in every file. Reads and writes nothing past n.
#pragma once

#include "sparsecore/types.h"

namespace sparsecore::epilogue {

struct Row {
  const float* sums;
  const float* scale;  // null: 1
  const void* bias;    // null: 0
  DType bias_dtype;
  Activation activation;
  void* y;
  DType dtype;  // float32, bfloat16 or float16
  int64_t n;
};

using RowFunction = void (*)(const Row&);

// The best row of the table for current_isa(). Take it once per call, outside the loops.
RowFunction row_function();

namespace scalar {
void finish_row(const Row& row);
}
namespace avx2 {
void finish_row(const Row& row);
}
namespace avx512 {
void finish_row(const Row& row);
}
namespace neon {
void finish_row(const Row& row);
}
namespace wasm {
void finish_row(const Row& row);
}

}  // namespace sparsecore::epilogue

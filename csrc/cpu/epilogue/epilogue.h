// The end of every linear kernel, on a block of outputs, rows t and channels i:
//
//   y[t][i] = activation(scale[i] * sums[t][i] + bias[i])
//
// where sums are float, or int32 times token_scale[t]. Activations are those of cpu/activate.h; their error is below
// 1e-6 of max(|x|, 1) in every file. Reads and writes nothing outside the block.
#pragma once

#include "sparsecore/linear.h"

namespace sparsecore::epilogue {

struct Block {
  const void* sums;  // [rows, sums_stride] float; int32 where there is a token_scale
  int64_t sums_stride;
  const float* token_scale;  // [rows], or null
  const float* scale;        // [n], or null: 1
  const void* bias;          // [n], or null: 0
  DType bias_dtype;
  Activation activation;
  void* y;  // [rows, y_row_stride]
  int64_t y_row_stride;
  DType dtype;  // of y: float32, bfloat16 or float16
  int64_t rows, n;
};

using BlockFunction = void (*)(const Block&);

// The best row of the table for current_isa(). Take it once per call, outside the loops.
BlockFunction block_function();

// Channels [begin, end) of a linear call, `rows` tokens from `token`: everything of a Block but its sums.
Block block_of(const LinearIo& io, int64_t token, int64_t rows, int64_t begin, int64_t end);

namespace scalar {
void finish(const Block& block);
}
namespace avx2 {
void finish(const Block& block);
}
namespace avx512 {
void finish(const Block& block);
}
namespace neon {
void finish(const Block& block);
}
namespace wasm {
void finish(const Block& block);
}

}  // namespace sparsecore::epilogue

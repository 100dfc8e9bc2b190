// Checks of the dense side, made before a launch, and what follows from its addresses and sizes.
#pragma once

#include "cuda/common/tensor_map.h"
#include "cuda/linear/arguments.h"

namespace sparsecore::cuda_linear {

// Everything but the weight and the type of x, which the formats know.
Status check_operands(const char* function, const DeviceLinear& params);
Status check_workspace(const char* function, const DeviceLinear& params, int64_t needed);

bool rows_aligned(const void* pointer, int64_t rows, int64_t row_stride, int64_t element_bytes);
// x_vectors and y_vectors, from the parameters.
void note_alignment(Arguments* args);

// Into how many parts the inputs of a product of `tiles` blocks of threads are split, which makes up for the blocks
// that a small shape lacks. One rule for all devices, so that results do not depend on the device.
constexpr int64_t kEnoughBlocks = 128;
int32_t splits_of(int64_t tiles, int64_t k_blocks);

// Rows of tokens as tensor copies bring them.
struct TokenRows {
  const void* data;
  int64_t tokens, columns, row_stride;  // columns dense; the stride in elements
  DType dtype;
};
// Whether a tensor map can describe them: at multiples of 16 bytes, one after another, less than 2^40 bytes apart.
bool tensor_copies_take(const TokenRows& rows);
// Boxes of `tokens` rows of kRowBytes, in the 128-byte swizzle. `name` is for messages.
Status map_rows(const char* function, const char* name, const TokenRows& rows, int tokens, TensorMap* map);
// Of a product's x.
bool tensor_copies_take_x(const DeviceLinear& params);
Status map_x(const char* function, const DeviceLinear& params, int tokens, TensorMap* map);

// The workspace's partial sums in the order of the splits, and the end of the product: epilogue.cuh.
Status finish_splits(const char* function, const Arguments& args, void* stream);

}  // namespace sparsecore::cuda_linear

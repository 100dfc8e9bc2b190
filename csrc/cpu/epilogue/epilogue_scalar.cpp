#include "cpu/activate.h"
#include "cpu/epilogue/epilogue.h"
#include "cpu/narrow.h"

namespace sparsecore::epilogue::scalar {
namespace {

float load(const void* array, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kBFloat16: return widen(static_cast<const BFloat16*>(array)[i]);
    case DType::kFloat16: return widen(static_cast<const Float16*>(array)[i]);
    default: return static_cast<const float*>(array)[i];
  }
}

float sum_at(const Block& block, int64_t t, int64_t i) {
  const int64_t at = t * block.sums_stride + i;
  if (!block.token_scale) return static_cast<const float*>(block.sums)[at];
  return static_cast<float>(static_cast<const int32_t*>(block.sums)[at]) * block.token_scale[t];
}

template <typename T>
void finish_typed(const Block& block) {
  for (int64_t t = 0; t < block.rows; ++t)
    for (int64_t i = 0; i < block.n; ++i) {
      const float sum = sum_at(block, t, i), scaled = block.scale ? block.scale[i] * sum : sum;
      const float biased = block.bias ? scaled + load(block.bias, block.bias_dtype, i) : scaled;
      narrow(activate(biased, block.activation), static_cast<T*>(block.y) + t * block.y_row_stride + i);
    }
}

}  // namespace

void finish(const Block& block) {
  switch (block.dtype) {
    case DType::kBFloat16: return finish_typed<BFloat16>(block);
    case DType::kFloat16: return finish_typed<Float16>(block);
    default: return finish_typed<float>(block);
  }
}

}  // namespace sparsecore::epilogue::scalar

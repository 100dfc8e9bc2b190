#include <cmath>

#include "cpu/epilogue/epilogue.h"
#include "cpu/narrow.h"

namespace sparsecore::epilogue::scalar {
namespace {

float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return x < 0.0f ? 0.0f : x;  // NaN passes
    case Activation::kGelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::kSilu: return x / (1.0f + std::exp(-x));
  }
  return x;
}

float load(const void* array, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kBFloat16: return widen(static_cast<const BFloat16*>(array)[i]);
    case DType::kFloat16: return widen(static_cast<const Float16*>(array)[i]);
    default: return static_cast<const float*>(array)[i];
  }
}

template <typename T>
void finish(const Row& row) {
  T* y = static_cast<T*>(row.y);
  for (int64_t i = 0; i < row.n; ++i) {
    const float scaled = row.scale ? row.scale[i] * row.sums[i] : row.sums[i];
    const float biased = row.bias ? scaled + load(row.bias, row.bias_dtype, i) : scaled;
    narrow(activate(biased, row.activation), y + i);
  }
}

}  // namespace

void finish_row(const Row& row) {
  switch (row.dtype) {
    case DType::kBFloat16: return finish<BFloat16>(row);
    case DType::kFloat16: return finish<Float16>(row);
    default: return finish<float>(row);
  }
}

}  // namespace sparsecore::epilogue::scalar

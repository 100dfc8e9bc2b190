// The specification: every other file of the family agrees with this one.
#include <cstring>

#include "cpu/narrow.h"
#include "cpu/row_lists/row_lists.h"

namespace sparsecore::row_lists::scalar {
namespace {

constexpr int kLanes = 8;

template <typename T>
void pack_rows(const T* x, int64_t x_row_stride, int tokens, int columns, int lanes, float* panel) {
  for (int c = 0; c < columns; ++c)
    for (int t = 0; t < lanes; ++t) panel[c * lanes + t] = t < tokens ? widen(x[t * x_row_stride + c]) : 0.0f;
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel) {
  float* to = static_cast<float*>(panel);
  switch (dtype) {
    case DType::kBFloat16: return pack_rows(static_cast<const BFloat16*>(x), x_row_stride, tokens, columns, lanes, to);
    case DType::kFloat16: return pack_rows(static_cast<const Float16*>(x), x_row_stride, tokens, columns, lanes, to);
    default: return pack_rows(static_cast<const float*>(x), x_row_stride, tokens, columns, lanes, to);
  }
}

void unpack(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride) {
  for (int t = 0; t < tokens; ++t)
    for (int64_t o = 0; o < channels; ++o) rows[t * rows_stride + o] = sums[o * lanes + t];
}

template <typename T>
void add_lists(const Tile& tile, const T* values) {
  const float* panel = static_cast<const float*>(tile.panel);
  for (int64_t o = 0; o < tile.lists.channels; ++o) {
    float* sums = tile.sums + o * tile.lanes;
    if (!tile.accumulate) std::memset(sums, 0, tile.lanes * sizeof(float));
    for (int32_t i = tile.lists.starts[o]; i < tile.lists.starts[o + 1]; ++i) {
      const float value = widen(values[i]);
      const float* x = panel + tile.lists.offsets[i] * tile.lanes;
      for (int t = 0; t < tile.lanes; ++t) sums[t] += value * x[t];
    }
  }
}

void tile(const Tile& tile) {
  switch (tile.lists.weights) {
    case DType::kBFloat16: return add_lists(tile, static_cast<const BFloat16*>(tile.lists.values));
    case DType::kFloat16: return add_lists(tile, static_cast<const Float16*>(tile.lists.values));
    case DType::kInt8: return add_lists(tile, static_cast<const int8_t*>(tile.lists.values));
    default: return add_lists(tile, static_cast<const float*>(tile.lists.values));
  }
}

void gradient(const GradientTile& tile) {
  for (int64_t o = 0; o < tile.channels; ++o)
    for (int32_t i = tile.starts[o]; i < tile.starts[o + 1]; ++i) {
      const float *grad = tile.grad + o * tile.lanes, *x = tile.x + tile.offsets[i] * tile.lanes;
      float sum = tile.accumulate ? tile.out[i] : 0.0f;
      for (int t = 0; t < tile.lanes; ++t) sum += grad[t] * x[t];
      tile.out[i] = sum;
    }
}

}  // namespace

const Kernel kKernel = {Isa::kScalar,
                        "scalar::row_lists",
                        "float32 bfloat16 float16 int8",
                        4,
                        [](int64_t) { return 1; },
                        [](int32_t) { return kLanes; },
                        pack,
                        tile,
                        unpack,
                        kLanes,
                        gradient,
                        nullptr};

}  // namespace sparsecore::row_lists::scalar

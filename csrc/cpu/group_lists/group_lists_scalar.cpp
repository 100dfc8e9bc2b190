// The specification: every other file of the family agrees with this one.
#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/group_lists/group_lists.h"
#include "cpu/narrow.h"

namespace sparsecore::group_lists::scalar {
namespace {

constexpr int kVector = 8;
constexpr int kLanes = 16;

float finished(const Finish& finish, int64_t channel, int lane, float sum) {
  if (finish.scale) sum = finish.scale[channel] * sum;
  if (finish.bias) sum += finish.bias[channel];
  if (finish.residual) sum += finish.residual[channel * finish.residual_stride + lane];
  if (finish.hard_swish) {
    const float gate = sum + 3.0f;
    return sum * (gate < 0.0f ? 0.0f : gate > 6.0f ? 6.0f : gate) * (1.0f / 6.0f);
  }
  sum = sum < finish.low ? finish.low : sum;  // NaN passes
  return sum > finish.high ? finish.high : sum;
}

template <typename Index>
void add_lists(const Tile& tile, const Index* index) {
  const int rows = tile.rows, cols = tile.cols;
  for (int64_t p = 0; p < tile.places; ++p) {
    const int64_t first = tile.order[p] * int64_t{rows};
    const int64_t present = std::min<int64_t>(rows, tile.channels - first);
    for (int64_t r = 0; r < present; ++r) {
      float* sums = tile.sums + (first + r) * tile.sums_stride;
      if (!tile.before)
        std::fill(sums, sums + tile.lanes, 0.0f);
      else if (tile.before != tile.sums)
        std::copy_n(tile.before + (first + r) * tile.before_stride, tile.lanes, sums);
      for (int64_t i = tile.starts[p] - tile.starts[0]; i < tile.starts[p + 1] - tile.starts[0]; ++i)
        for (int j = 0; j < cols; ++j) {
          const float value = tile.values[(i * cols + j) * rows + r];
          const float* x = tile.x + (index[i] * int64_t{cols} + j) * tile.x_stride;
          for (int l = 0; l < tile.lanes; ++l) sums[l] += value * x[l];
        }
      if (tile.finish)
        for (int l = 0; l < tile.lanes; ++l) sums[l] = finished(*tile.finish, first + r, l, sums[l]);
    }
  }
}

void tile(const Tile& tile) {
  if (tile.wide_index)
    add_lists(tile, static_cast<const uint16_t*>(tile.index));
  else
    add_lists(tile, static_cast<const uint8_t*>(tile.index));
}

// Calls body(const T*) with the array as its own type.
template <typename Body>
void with_type(const void* array, DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32: return body(static_cast<const float*>(array));
    case DType::kBFloat16: return body(static_cast<const BFloat16*>(array));
    case DType::kFloat16: return body(static_cast<const Float16*>(array));
    case DType::kInt8: return body(static_cast<const int8_t*>(array));
  }
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, float* panel) {
  with_type(x, dtype, [&](auto* from) {
    for (int c = 0; c < columns; ++c)
      for (int t = 0; t < lanes; ++t)
        panel[int64_t{c} * lanes + t] = t < tokens ? sparsecore::widen(from[t * x_row_stride + c]) : 0.0f;
  });
}

void unpack(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride) {
  for (int t = 0; t < tokens; ++t)
    for (int64_t o = 0; o < channels; ++o) rows[t * rows_stride + o] = sums[o * lanes + t];
}

void widen(const void* from, DType dtype, int64_t count, float* to) {
  with_type(from, dtype, [&](auto* values) {
    for (int64_t i = 0; i < count; ++i) to[i] = sparsecore::widen(values[i]);
  });
}

template <typename Index>
void add_gradient(const GradientTile& tile, const Index* index) {
  const int rows = tile.rows, cols = tile.cols;
  for (int64_t p = 0; p < tile.places; ++p)
    for (int64_t i = tile.starts[p] - tile.starts[0]; i < tile.starts[p + 1] - tile.starts[0]; ++i)
      for (int j = 0; j < cols; ++j)
        for (int r = 0; r < rows; ++r) {
          const float* x = tile.x + (index[i] * int64_t{cols} + j) * tile.lanes;
          const float* grad = tile.grad + (tile.order[p] * int64_t{rows} + r) * tile.lanes;
          float& out = tile.out[(i * cols + j) * rows + r];
          float sum = tile.accumulate ? out : 0.0f;
          for (int l = 0; l < tile.lanes; ++l) sum += grad[l] * x[l];
          out = sum;
        }
}

void gradient(const GradientTile& tile) {
  if (tile.wide_index)
    add_gradient(tile, static_cast<const uint16_t*>(tile.index));
  else
    add_gradient(tile, static_cast<const uint8_t*>(tile.index));
}

}  // namespace

const Kernel kKernel = {Isa::kScalar,
                        "scalar::group_lists",
                        "float32 bfloat16 float16 int8",
                        kVector,
                        false,
                        [](int, int, bool) { return kLanes; },
                        tile,
                        pack,
                        unpack,
                        widen,
                        16,
                        gradient};

}  // namespace sparsecore::group_lists::scalar

// The readable one: every other file must agree with it.
#include <cmath>

#include "cpu/narrow.h"
#include "cpu/quantise.h"
#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore::shared_lists::scalar {
namespace {

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

int tile_tokens(int) { return 4; }

Layout layout(int) { return Layout::kColumns; }

void pack_columns(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, float* panel) {
  with_type(x, dtype, [&](auto* rows) {
    for (int64_t c = 0; c < k; ++c)
      for (int t = 0; t < tokens; ++t) panel[c * tokens + t] = widen(rows[t * x_row_stride + c]);
  });
}

void widen_all(const void* from, DType dtype, int64_t count, float* to) {
  with_type(from, dtype, [&](auto* values) {
    for (int64_t i = 0; i < count; ++i) to[i] = widen(values[i]);
  });
}

void tile(const FloatTile& a) {
  for (int t = 0; t < a.tokens; ++t)
    for (int v = 0; v < a.vector; ++v) a.sums[t * a.sums_stride + v] = a.start ? a.start[t * a.start_stride + v] : 0.0f;
  with_type(a.values, a.weights, [&](auto* values) {
    for (int64_t r = 0; r < a.records; ++r)
      for (int t = 0; t < a.tokens; ++t) {
        const float x = a.x[a.columns[r] * a.tokens + t];
        for (int v = 0; v < a.vector; ++v) a.sums[t * a.sums_stride + v] += widen(values[r * a.vector + v]) * x;
      }
  });
}

void gradient(const GradientTile& a) {
  for (int64_t r = 0; r < a.records; ++r) {
    float* out = a.out + r * a.vector;
    for (int v = 0; v < a.vector && !a.accumulate; ++v) out[v] = 0.0f;
    for (int64_t t = 0; t < a.tokens; ++t)
      for (int v = 0; v < a.vector; ++v)
        out[v] += a.x[t * a.x_stride + a.columns[r]] * a.grad_y[t * a.grad_y_stride + v];
  }
}

void quantise(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, void* panel, float* scales) {
  uint8_t* out = static_cast<uint8_t*>(panel);
  with_type(x, dtype, [&](auto* rows) {
    for (int t = 0; t < tokens; ++t) {
      uint32_t largest = 0;
      for (int64_t c = 0; c < k; ++c) {
        const float value = std::fabs(widen(rows[t * x_row_stride + c]));
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        if (bits > largest) largest = bits;
      }
      const TokenScale scale = token_scale(largest);
      scales[t] = scale.scale;
      for (int64_t c = 0; c < k; ++c) {
        const float q =
            scale.inverse == 0.0f ? 0.0f : std::nearbyint(widen(rows[t * x_row_stride + c]) * scale.inverse);
        out[c * kDotTokens + t] = static_cast<uint8_t>(static_cast<int>(q) + 128);
      }
    }
  });
}

void interleave(const void* values, int64_t records, int vector, void* interleaved) {
  const int8_t* from = static_cast<const int8_t*>(values);
  int8_t* to = static_cast<int8_t*>(interleaved);
  for (int64_t step = 0; step < (records + 3) / 4; ++step)
    for (int v = 0; v < vector; ++v)
      for (int64_t r = step * 4; r < step * 4 + 4; ++r) *to++ = r < records ? from[r * vector + v] : int8_t{0};
}

void gather(const void* panel, const uint16_t* columns, int64_t records, void* steps) {
  const uint8_t* from = static_cast<const uint8_t*>(panel);
  uint8_t* to = static_cast<uint8_t*>(steps);
  for (int64_t step = 0; step < (records + 3) / 4; ++step)
    for (int t = 0; t < kDotTokens; ++t)
      for (int64_t r = step * 4; r < step * 4 + 4; ++r)
        *to++ = r < records ? from[columns[r] * kDotTokens + t] : uint8_t{0};
}

void tile_int8(const DotTile& a) {
  const int8_t* weights = static_cast<const int8_t*>(a.interleaved);
  const uint8_t* x = static_cast<const uint8_t*>(a.steps);
  int32_t* sums = static_cast<int32_t*>(a.sums);
  for (int t = 0; t < a.tokens; ++t)
    for (int v = 0; v < a.vector; ++v) {
      int32_t sum = a.accumulate ? sums[t * a.sums_stride + v] : a.start ? a.start[v] : 0;
      for (int64_t step = 0; step < a.count; ++step)
        for (int i = 0; i < 4; ++i) sum += weights[(step * a.vector + v) * 4 + i] * x[(step * kDotTokens + t) * 4 + i];
      sums[t * a.sums_stride + v] = sum;
    }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kScalar,
                        .name = "scalar::shared_lists",
                        .weights = "float32 bfloat16 float16 int8",
                        .min_vector = 4,
                        .widen_above = INT32_MAX,
                        .tile_tokens = tile_tokens,
                        .layout = layout,
                        .pack_columns = pack_columns,
                        .widen = widen_all,
                        .tile = tile,
                        .gradient = gradient};

const DotKernel kInt8 = {.isa = Isa::kScalar,
                         .name = "scalar::shared_lists_int8",
                         .weights = DType::kInt8,
                         .needs_fast_dot = false,
                         .min_vector = 4,
                         .min_tokens = 1,
                         .depth = 4,
                         .offset = 128,
                         .tile_tokens = tile_tokens,
                         .pack = quantise,
                         .interleave = interleave,
                         .gather = gather,
                         .tile = tile_int8};

}  // namespace sparsecore::shared_lists::scalar

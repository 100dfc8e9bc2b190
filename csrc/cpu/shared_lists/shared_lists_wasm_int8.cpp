// int8 weights, activations quantised per token, two kept columns a step, both widened to int16: i32x4.dot_i16x8_s
// gives w0 q0 + w1 q1 for four channels. The byte products of relaxed SIMD take seven bits on one side, which q does
// not fit.
//
// 5 tokens x 8 channels: 10 sums + 2 weights + broadcast + product = 14 of the 15 registers that V8 has on x86.
#include "cpu/shared_lists/quantise_lanes4.h"
#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore::shared_lists::wasm {
namespace {

constexpr int kTileTokens = 5;
constexpr size_t kVectors = 2;

int tile_tokens(int) { return kTileTokens; }

template <typename T>
void pack_from(const T* x, int64_t x_row_stride, int tokens, int64_t k, int16_t* panel, float* scales) {
  for (int first = 0; first < tokens; first += 4) {
    const int count = tokens - first < 4 ? tokens - first : 4;
    const T* rows = x + first * x_row_stride;
    float inverse[4] = {};
    for (int t = 0; t < count; ++t) {
      const TokenScale scale = scale_of(rows + t * x_row_stride, k);
      scales[first + t] = scale.scale;
      inverse[t] = scale.inverse;
    }
    const Float4 factors = load4(inverse);
    for (int64_t c = 0; c < k; c += 4) {
      Float4 columns[4];
      turn_block(rows + c, x_row_stride, count, k - c, columns);
      for (int i = 0; i < 4 && c + i < k; ++i) {
        const Int4 q = nearest_int4(mul4(columns[i], factors));
        wasm_v128_store64_lane(panel + (c + i) * kDotTokens + first, wasm_i16x8_narrow_i32x4(q, q), 0);
      }
    }
  }
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, void* panel, float* scales) {
  with_type(x, dtype,
            [&](auto* rows) { pack_from(rows, x_row_stride, tokens, k, static_cast<int16_t*>(panel), scales); });
}

// Eight places of two rows side by side, pair by pair.
void store_pairs(v128_t a, v128_t b, int16_t* to) {
  wasm_v128_store(to, wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
  wasm_v128_store(to + 8, wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
}

void interleave(const void* values, int64_t records, int vector, void* interleaved) {
  const int8_t* from = static_cast<const int8_t*>(values);
  int16_t* to = static_cast<int16_t*>(interleaved);
  for (int64_t r = 0; r < records; r += 2, from += 2 * vector)
    for (int v = 0; v < vector; v += 8, to += 16)
      store_pairs(wasm_i16x8_load8x8(from + v),
                  r + 1 < records ? wasm_i16x8_load8x8(from + vector + v) : wasm_i16x8_const_splat(0), to);
}

void gather(const void* panel, const uint16_t* columns, int64_t records, void* steps) {
  const int16_t* from = static_cast<const int16_t*>(panel);
  int16_t* to = static_cast<int16_t*>(steps);
  for (int64_t r = 0; r < records; r += 2)
    for (int t = 0; t < kDotTokens; t += 8, to += 16)
      store_pairs(wasm_v128_load(from + columns[r] * kDotTokens + t),
                  r + 1 < records ? wasm_v128_load(from + columns[r + 1] * kDotTokens + t) : wasm_i16x8_const_splat(0),
                  to);
}

// A function of its own, so that engines allocate registers for this loop alone.
template <size_t Tokens>
__attribute__((noinline)) void tile_of(const int32_t* weights, size_t vector, const int32_t* x, int32_t count,
                                       int32_t* out, size_t stride, const int32_t* start, bool accumulate) {
  Int4 sums[Tokens][kVectors];
  each<Tokens>([&]<size_t t>() {
    each<kVectors>([&]<size_t v>() {
      sums[t][v] = accumulate ? load_int4(out + t * stride + 4 * v) : start ? load_int4(start + 4 * v) : zero_int4();
    });
  });
  for (; count > 0; --count, weights += vector, x += kDotTokens) {
    Int4 w[kVectors];
    each<kVectors>([&]<size_t v>() { w[v] = load_int4(weights + 4 * v); });
    each<Tokens>([&]<size_t t>() {
      keep_order();
      const Int4 pair = wasm_v128_load32_splat(x + t);
      each<kVectors>([&]<size_t v>() { sums[t][v] = wasm_i32x4_add(sums[t][v], wasm_i32x4_dot_i16x8(w[v], pair)); });
    });
  }
  each<Tokens>(
      [&]<size_t t>() { each<kVectors>([&]<size_t v>() { store_int4(out + t * stride + 4 * v, sums[t][v]); }); });
}

void tile(const DotTile& a) {
  each<kTileTokens>([&]<size_t i>() {
    if (a.tokens != i + 1) return;
    for (int first = 0; first < a.vector; first += 4 * kVectors)
      tile_of<i + 1>(static_cast<const int32_t*>(a.interleaved) + first, a.vector, static_cast<const int32_t*>(a.steps),
                     static_cast<int32_t>(a.count), static_cast<int32_t*>(a.sums) + first, a.sums_stride,
                     a.start ? a.start + first : nullptr, a.accumulate);
  });
}

}  // namespace

const DotKernel kInt8 = {.isa = Isa::kWasmSimd,
                         .name = "wasm::shared_lists_int8",
                         .weights = DType::kInt8,
                         .needs_fast_dot = false,
                         .min_vector = 8,
                         .min_tokens = 1,
                         .depth = 2,
                         .offset = 0,
                         .tile_tokens = tile_tokens,
                         .pack = pack,
                         .interleave = interleave,
                         .gather = gather,
                         .tile = tile};

}  // namespace sparsecore::shared_lists::wasm

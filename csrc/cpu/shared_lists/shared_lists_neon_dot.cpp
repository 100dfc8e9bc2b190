// int8 weights, activations quantised per token, four kept columns a step: SDOT multiplies the quads of four channels
// with the quad of one token.
//
// 6 tokens x 16 channels: 24 sums + 4 weights + 2 registers of token quads = 30 of 32.
#include "cpu/shared_lists/quantise_lanes4.h"
#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore::shared_lists::neon_dot {
namespace {

constexpr int kTileTokens = 6;
constexpr size_t kVectors = 4;

int tile_tokens(int) { return kTileTokens; }

// Sixteen rows of sixteen bytes become columns: four rounds that interleave the upper with the lower half.
void transpose_bytes(int8x16_t (&rows)[16]) {
  for (int round = 0; round < 4; ++round) {
    int8x16_t next[16];
    for (int i = 0; i < 8; ++i) {
      next[2 * i] = vzip1q_s8(rows[i], rows[i + 8]);
      next[2 * i + 1] = vzip2q_s8(rows[i], rows[i + 8]);
    }
    for (int i = 0; i < 16; ++i) rows[i] = next[i];
  }
}

template <typename T>
int8x16_t quantise16(const T* row, int64_t count, float inverse) {
  T copy[16] = {};
  if (count < 16) {
    std::memcpy(copy, row, count * sizeof(T));
    row = copy;
  }
  int16x4_t q[4];
  for (int i = 0; i < 4; ++i) q[i] = vqmovn_s32(nearest_int4(mul4(load4(row + 4 * i), splat4(inverse))));
  return vcombine_s8(vqmovn_s16(vcombine_s16(q[0], q[1])), vqmovn_s16(vcombine_s16(q[2], q[3])));
}

template <typename T>
void pack_from(const T* x, int64_t x_row_stride, int tokens, int64_t k, int8_t* panel, float* scales) {
  float inverse[kDotTokens];
  for (int t = 0; t < tokens; ++t) {
    const TokenScale scale = scale_of(x + t * x_row_stride, k);
    scales[t] = scale.scale;
    inverse[t] = scale.inverse;
  }
  for (int first = 0; first < tokens; first += 16)
    for (int64_t c = 0; c < k; c += 16) {
      int8x16_t block[16];
      for (int t = 0; t < 16; ++t)
        block[t] = first + t < tokens ? quantise16(x + (first + t) * x_row_stride + c, k - c, inverse[first + t])
                                      : vdupq_n_s8(0);
      transpose_bytes(block);
      for (int i = 0; i < 16 && c + i < k; ++i) vst1q_s8(panel + (c + i) * kDotTokens + first, block[i]);
    }
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, void* panel, float* scales) {
  with_type(x, dtype,
            [&](auto* rows) { pack_from(rows, x_row_stride, tokens, k, static_cast<int8_t*>(panel), scales); });
}

// Four rows of 16 bytes side by side, quad by quad; rows past the end are zero. `row(i)` is row i.
template <typename Row>
void interleave_quads(int64_t rows, int64_t first, int8_t* to, Row&& row) {
  int8x16x4_t quads;
  for (int i = 0; i < 4; ++i) quads.val[i] = first + i < rows ? vld1q_s8(row(first + i)) : vdupq_n_s8(0);
  vst4q_s8(to, quads);
}

void interleave(const void* values, int64_t records, int vector, void* interleaved) {
  const int8_t* from = static_cast<const int8_t*>(values);
  int8_t* to = static_cast<int8_t*>(interleaved);
  for (int64_t r = 0; r < records; r += 4)
    for (int v = 0; v < vector; v += 16, to += 64)
      interleave_quads(records, r, to, [&](int64_t i) { return from + i * vector + v; });
}

void gather(const void* panel, const uint16_t* columns, int64_t records, void* steps) {
  const int8_t* from = static_cast<const int8_t*>(panel);
  int8_t* to = static_cast<int8_t*>(steps);
  for (int64_t r = 0; r < records; r += 4)
    for (int t = 0; t < kDotTokens; t += 16, to += 64)
      interleave_quads(records, r, to, [&](int64_t i) { return from + columns[i] * kDotTokens + t; });
}

template <size_t Tokens>
void tile_of(const DotTile& a, int first) {
  constexpr size_t kQuads = (Tokens + 3) / 4;
  const int8_t* weights = static_cast<const int8_t*>(a.interleaved) + 4 * first;
  const int8_t* x = static_cast<const int8_t*>(a.steps);
  int32_t* out = static_cast<int32_t*>(a.sums) + first;
  int32x4_t sums[Tokens][kVectors];
  each<Tokens>([&]<size_t t>() {
    each<kVectors>([&]<size_t v>() {
      sums[t][v] = a.accumulate ? vld1q_s32(out + t * a.sums_stride + 4 * v)
                   : a.start    ? vld1q_s32(a.start + first + 4 * v)
                                : vdupq_n_s32(0);
    });
  });
  for (int64_t step = 0; step < a.count; ++step, weights += 4 * a.vector, x += 4 * kDotTokens) {
    int8x16_t w[kVectors], quads[kQuads];
    each<kVectors>([&]<size_t v>() { w[v] = vld1q_s8(weights + 16 * v); });
    each<kQuads>([&]<size_t i>() {
      if constexpr (4 * i + 4 <= Tokens) {
        quads[i] = vld1q_s8(x + 16 * i);
      } else {  // no further than the tile's own tokens
        quads[i] = vdupq_n_s8(0);
        std::memcpy(&quads[i], x + 16 * i, Tokens % 4 * 4);
      }
    });
    each<Tokens>([&]<size_t t>() {
      each<kVectors>([&]<size_t v>() { sums[t][v] = vdotq_laneq_s32(sums[t][v], w[v], quads[t / 4], t % 4); });
    });
  }
  each<Tokens>(
      [&]<size_t t>() { each<kVectors>([&]<size_t v>() { vst1q_s32(out + t * a.sums_stride + 4 * v, sums[t][v]); }); });
}

void tile(const DotTile& a) {
  each<kTileTokens>([&]<size_t i>() {
    if (a.tokens == i + 1)
      for (int first = 0; first < a.vector; first += 4 * kVectors) tile_of<i + 1>(a, first);
  });
}

}  // namespace

const DotKernel kInt8 = {.isa = Isa::kNeonDot,
                         .name = "neon_dot::shared_lists_int8",
                         .weights = DType::kInt8,
                         .needs_fast_dot = false,
                         .min_vector = 16,
                         .min_tokens = 1,
                         .depth = 4,
                         .offset = 0,
                         .tile_tokens = tile_tokens,
                         .pack = pack,
                         .interleave = interleave,
                         .gather = gather,
                         .tile = tile};

}  // namespace sparsecore::shared_lists::neon_dot

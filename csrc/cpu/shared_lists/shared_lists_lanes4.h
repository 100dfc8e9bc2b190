// The float micro-kernel on four lanes, compiled by the NEON file and the two WebAssembly files.
//
// A tile of tokens by a slice of channels lives in registers while the records pass: per record one row of the panel
// (the tokens' values of one kept column) and one slice of weights.
//
//   NEON                 6 tokens x 16 channels: 24 sums + 4 weights + 2 panel quads = 30 of 32 registers
//   WebAssembly          5 x 8: 10 sums + 2 weights + broadcast + product = 14 of the 15 that V8 has on x86
//   relaxed WebAssembly  6 x 8: 12 sums + 2 weights + broadcast = 15 of 15
//
// One or two tokens take wider slices, so that enough independent sums hide the latency. A vector wider than the slice
// is walked slice by slice over a few records at a time, which stay in L1 meanwhile.
#pragma once

#include "cpu/panel_lanes4.h"
#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore::shared_lists {
namespace {

#if defined(SPARSECORE_ARM)
constexpr size_t kTileTokens = 6, kWideVectors = 8, kSliceVectors = 4, kGradientVectors = 4;
#elif defined(__wasm_relaxed_simd__)
constexpr size_t kTileTokens = 6, kWideVectors = 4, kSliceVectors = 2, kGradientVectors = 2;
#else
constexpr size_t kTileTokens = 5, kWideVectors = 4, kSliceVectors = 2, kGradientVectors = 2;
#endif
constexpr size_t kWalkBytes = 32 * 1024;

inline int tile_tokens(int) { return kTileTokens; }
inline Layout layout(int) { return Layout::kColumns; }

inline void pack_columns(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, float* panel) {
  if (tokens == 1) return widen_all(x, dtype, k, panel);
  with_type(x, dtype, [&](auto* rows) { pack_tokens(rows, x_row_stride, tokens, k, panel); });
}

// sums[t][0 .. 4 Vectors) = start and the products of `records` records of a slice. A function of its own: engines
// allocate registers badly for the one large function that all tiles would become.
template <size_t Tokens, size_t Vectors, typename T>
__attribute__((noinline)) void walk(const T* values, size_t vector, const uint16_t* columns, int32_t records,
                                    const float* x, float* sums, size_t sums_stride, const float* start,
                                    size_t start_stride) {
  Float4 acc[Tokens][Vectors];
  each<Tokens>([&]<size_t t>() {
    each<Vectors>([&]<size_t v>() { acc[t][v] = start ? load4(start + t * start_stride + 4 * v) : splat4(0.0f); });
  });
  for (; records > 0; --records, values += vector, ++columns) {
    Float4 w[Vectors];
    each<Vectors>([&]<size_t v>() { w[v] = load4(values + 4 * v); });
    const Scalars<Tokens> row(x + *columns * Tokens);
    each<Tokens>([&]<size_t t>() {
      row.next();
      each<Vectors>([&]<size_t v>() { acc[t][v] = row.template madd<t>(w[v], acc[t][v]); });
    });
  }
  each<Tokens>(
      [&]<size_t t>() { each<Vectors>([&]<size_t v>() { store4(sums + t * sums_stride + 4 * v, acc[t][v]); }); });
}

template <size_t Tokens, typename T>
void walk_slices(const FloatTile& a, const T* values) {
  constexpr size_t kWidest = Tokens <= 2 ? kWideVectors : kSliceVectors;
  const size_t vector = static_cast<size_t>(a.vector);
  const int64_t longest = static_cast<int64_t>(kWalkBytes / (vector * sizeof(T)));
  int64_t first = 0;
  do {
    const int32_t records = static_cast<int32_t>(a.records - first < longest ? a.records - first : longest);
    const float* start = first > 0 ? a.sums : a.start;
    const size_t start_stride = static_cast<size_t>(first > 0 ? a.sums_stride : a.start_stride);
    size_t c = 0;
    const auto slices_of = [&]<size_t Vectors>() {
      for (; c + 4 * Vectors <= vector; c += 4 * Vectors)
        walk<Tokens, Vectors>(values + first * a.vector + c, vector, a.columns + first, records, a.x, a.sums + c,
                              a.sums_stride, start ? start + c : nullptr, start_stride);
    };
    if constexpr (kWidest >= 8) slices_of.template operator()<8>();
    if constexpr (kWidest >= 4) slices_of.template operator()<4>();
    slices_of.template operator()<2>();
    slices_of.template operator()<1>();
    first += longest;
  } while (first < a.records);
}

inline void tile(const FloatTile& a) {
  with_type(a.values, a.weights, [&](auto* values) {
    switch (a.tokens) {
      case 1: return walk_slices<1>(a, values);
      case 2: return walk_slices<2>(a, values);
      case 3: return walk_slices<3>(a, values);
      case 4: return walk_slices<4>(a, values);
      case 5: return walk_slices<5>(a, values);
      default:
        if constexpr (kTileTokens >= 6) return walk_slices<6>(a, values);
    }
  });
}

// out[r][0 .. 4 Vectors) (+)= sum over tokens of x[t][columns[r]] * grad_y[t][..], for a few records at once.
template <size_t Records, size_t Vectors>
void gradient_block(const GradientTile& a, const uint16_t* columns, const float* grad_y, float* out) {
  const size_t vector = static_cast<size_t>(a.vector);
  Float4 acc[Records][Vectors];
  each<Records>([&]<size_t r>() {
    each<Vectors>([&]<size_t v>() { acc[r][v] = a.accumulate ? load4(out + r * vector + 4 * v) : splat4(0.0f); });
  });
  const float* x[Records];
  each<Records>([&]<size_t r>() { x[r] = a.x + columns[r]; });
  for (int64_t t = 0; t < a.tokens; ++t, grad_y += a.grad_y_stride) {
    Float4 slope[Vectors];
    each<Vectors>([&]<size_t v>() { slope[v] = load4(grad_y + 4 * v); });
    each<Records>([&]<size_t r>() {
      const Float4 value = splat4(x[r][t * a.x_stride]);
      each<Vectors>([&]<size_t v>() { acc[r][v] = madd4(value, slope[v], acc[r][v]); });
    });
  }
  each<Records>([&]<size_t r>() { each<Vectors>([&]<size_t v>() { store4(out + r * vector + 4 * v, acc[r][v]); }); });
}

template <size_t Vectors>
size_t gradient_slices(const GradientTile& a, size_t channel) {
  const size_t vector = static_cast<size_t>(a.vector);
  for (; channel + 4 * Vectors <= vector; channel += 4 * Vectors) {
    int64_t r = 0;
    float* out = a.out + channel;
    for (; r + 4 <= a.records; r += 4)
      gradient_block<4, Vectors>(a, a.columns + r, a.grad_y + channel, out + r * a.vector);
    for (; r < a.records; ++r) gradient_block<1, Vectors>(a, a.columns + r, a.grad_y + channel, out + r * a.vector);
  }
  return channel;
}

inline void gradient(const GradientTile& a) { gradient_slices<1>(a, gradient_slices<kGradientVectors>(a, 0)); }

// Stored weights are widened as they are loaded, which costs more than a float load: with a second tile it pays to
// widen them to memory first.
constexpr Kernel make_kernel(Isa isa, const char* name) {
  return {isa,  name,    "float32 bfloat16 float16 int8", 4, kTileTokens, tile_tokens, layout, pack_columns, widen_all,
          tile, gradient};
}

}  // namespace
}  // namespace sparsecore::shared_lists

// Row lists on four lanes, compiled by the NEON file and the two WebAssembly files.
//
// The sums of a channel, one lane per token, stay in registers while its list passes; per kept weight one broadcast and
// a row of the panel. Every sum is one chain in the order of the list, whatever the width, so a wide tile has as many
// independent chains as it has vectors.
//
//   NEON         up to 64 tokens: 16 sums, the panel of a block of 128 takes 32 KB
//   WebAssembly  up to 48 tokens: 12 sums + weight + panel vector = 14 of the 15 registers V8 has on x86; 24 KB
//
// Weights that are not float32 are widened, a list at a time, to a buffer on the stack.
#pragma once

#include "cpu/panel_lanes4.h"
#include "cpu/row_lists/row_lists.h"

namespace sparsecore::row_lists {
namespace {

#if defined(SPARSECORE_ARM)
constexpr size_t kMostVectors = 16;
#else
constexpr size_t kMostVectors = 12;
#endif
constexpr int kGradientLanes = 32;
constexpr int kLongestList = kPanelRows;

inline int granule(int64_t m) { return m <= 4 ? 4 : 8; }
inline int max_lanes(int32_t) { return 4 * kMostVectors; }

inline void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel) {
  pack_lanes(x, dtype, x_row_stride, tokens, columns, lanes, static_cast<float*>(panel));
}

// sums[0 .. 4 Vectors) (+)= values[i] * panel[offsets[i]] over one list. A function of its own, so that engines
// allocate registers for this loop alone.
template <size_t Vectors>
__attribute__((noinline)) void add_list(const float* values, const uint8_t* offsets, int32_t count, const float* panel,
                                        float* sums, bool accumulate) {
  constexpr size_t kLanes = 4 * Vectors;
  Float4 acc[Vectors];
  each<Vectors>([&]<size_t v>() { acc[v] = accumulate ? load4(sums + 4 * v) : splat4(0.0f); });
  for (; count > 0; --count, ++values, ++offsets) {
    const float* row = panel + *offsets * kLanes;
    const Float4 weight = splat4(*values);
    each<Vectors>([&]<size_t v>() { acc[v] = madd4(weight, load4(row + 4 * v), acc[v]); });
  }
  each<Vectors>([&]<size_t v>() { store4(sums + 4 * v, acc[v]); });
}

// A list as float32: where it lies, or widened to the buffer.
template <typename T>
inline const float* widened(const T* values, int32_t count, float* buffer) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return values;
  } else {
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) store4(buffer + i, load4(values + i));
    if (i < count) store4(buffer + i, load_some4(values + i, count - i));
    return buffer;
  }
}

template <size_t Vectors, typename T>
void add_lists(const Tile& tile, const T* values) {
  float buffer[kLongestList];
  for (int64_t o = 0; o < tile.lists.channels; ++o) {
    const int32_t start = tile.lists.starts[o], count = tile.lists.starts[o + 1] - start;
    add_list<Vectors>(widened(values + start, count, buffer), tile.lists.offsets + start, count,
                      static_cast<const float*>(tile.panel), tile.sums + o * tile.lanes, tile.accumulate);
  }
}

template <typename T>
void add_lists_of(const Tile& tile, const T* values) {
  const size_t vectors = static_cast<size_t>(tile.lanes) / 4;
  if (vectors == 1) return add_lists<1>(tile, values);
  each<kMostVectors / 2>([&]<size_t i>() {
    if (vectors == 2 * (i + 1)) add_lists<2 * (i + 1)>(tile, values);
  });
}

inline void tile(const Tile& tile) {
  with_type(tile.lists.values, tile.lists.weights, [&](auto* values) { add_lists_of(tile, values); });
}

// Places j, j + 4, j + 8 .. of a list go into part j of its sum.
inline void single(const SingleTile& tile) {
  with_type(tile.lists.values, tile.lists.weights, [&](auto* values) {
    for (int64_t o = 0; o < tile.lists.channels; ++o) {
      float* parts = tile.sums + o * kSingleLanes;
      int32_t i = tile.lists.starts[o];
      const int32_t end = tile.lists.starts[o + 1];
      const uint8_t* offsets = tile.lists.offsets;
      Float4 sum = tile.accumulate ? load4(parts) : splat4(0.0f);
      for (; i + 4 <= end; i += 4) sum = madd4(load4(values + i), gather4(tile.x, offsets + i), sum);
      if (i < end) {
        float x[4] = {};
        for (int32_t j = i; j < end; ++j) x[j - i] = tile.x[offsets[j]];
        sum = madd4(load_some4(values + i, end - i), load4(x), sum);
      }
      store4(parts, sum);
    }
  });
}

// Count (1 or 4) neighbouring gradients of a channel whose slopes are `grad`.
template <size_t Vectors, size_t Count>
inline void gradients_of(const float* x, const uint8_t* offsets, const Float4 (&grad)[Vectors], float* out,
                         bool accumulate) {
  Float4 sums[4];
  each<4>([&]<size_t j>() { sums[j] = splat4(0.0f); });
  each<Count>([&]<size_t j>() {
    const float* row = x + offsets[j] * 4 * Vectors;
    each<Vectors>([&]<size_t v>() { sums[j] = madd4(grad[v], load4(row + 4 * v), sums[j]); });
  });
  transpose4(sums[0], sums[1], sums[2], sums[3]);
  const Float4 total = add4(add4(sums[0], sums[1]), add4(sums[2], sums[3]));
  if constexpr (Count == 4) {
    store4(out, accumulate ? add4(load4(out), total) : total);
  } else {
    float lanes[4];
    store4(lanes, total);
    *out = accumulate ? *out + lanes[0] : lanes[0];
  }
}

template <size_t Vectors>
void gradient_lists(const GradientTile& tile) {
  for (int64_t o = 0; o < tile.channels; ++o) {
    Float4 grad[Vectors];
    each<Vectors>([&]<size_t v>() { grad[v] = load4(tile.grad + o * tile.lanes + 4 * v); });
    int32_t i = tile.starts[o];
    const int32_t end = tile.starts[o + 1];
    for (; i + 4 <= end; i += 4)
      gradients_of<Vectors, 4>(tile.x, tile.offsets + i, grad, tile.out + i, tile.accumulate);
    for (; i < end; ++i) gradients_of<Vectors, 1>(tile.x, tile.offsets + i, grad, tile.out + i, tile.accumulate);
  }
}

inline void gradient(const GradientTile& tile) {
  return tile.lanes == kGradientLanes ? gradient_lists<kGradientLanes / 4>(tile)
                                      : gradient_lists<kGradientLanes / 8>(tile);
}

constexpr Kernel make_kernel(Isa isa, const char* name) {
  return {
      isa,      name,  "float32 bfloat16 float16 int8", 4, granule, max_lanes, pack, tile, unpack_lanes, kGradientLanes,
      gradient, single};
}

}  // namespace
}  // namespace sparsecore::row_lists

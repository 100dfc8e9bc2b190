// Group lists on four lanes, compiled by the NEON file and the two WebAssembly files.
//
// The sums of a group, one lane per pixel, stay in registers while its list passes. Per record and column: a row of x,
// and one weight per row of the group, broadcast (NEON multiplies by lane). Every sum is one chain in the order of the
// list, so a tile has rows x vectors independent chains. Groups of more rows than fit are walked in passes.
//
//   registers of sums        rows 1    rows 2    rows 4    rows 8 and more
//   NEON, of 32              1 x 12    2 x 10    4 x 6     8 x 3
//   WebAssembly, of 15       1 x 8     2 x 4     4 x 2     4 x 2, in passes
//
// 15 is what V8 leaves on x86. Without a fused product one of them holds the product; with 4 x 2 sums there are 4
// weights, a row of x and it: 14.
#pragma once

#include "cpu/group_lists/group_lists.h"
#include "cpu/panel_lanes4.h"

namespace sparsecore::group_lists {
namespace {

#if defined(SPARSECORE_ARM)
constexpr int kRowsOfPass = 8;
constexpr size_t most_vectors(size_t rows) { return rows == 1 ? 12 : rows == 2 ? 10 : rows == 4 ? 6 : 3; }
#else
constexpr int kRowsOfPass = 4;
constexpr size_t most_vectors(size_t rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }
#endif
constexpr int kGradientLanes = 16;

// Narrow tiles are read in parts, so that a line of x is in the cache when its other half is needed.
constexpr int kNarrowest = 16;

inline int pass_of(int rows) { return rows < kRowsOfPass ? rows : kRowsOfPass; }
inline int max_lanes(int rows, int, bool) {
  const int lanes = 4 * static_cast<int>(most_vectors(pass_of(rows)));
  return lanes < kNarrowest ? kNarrowest : lanes;
}

// One list, for some neighbouring rows of its group and some neighbouring pixels.
template <typename Index>
struct List {
  const float* values;  // of the first row
  const Index* index;
  int32_t count;
  int32_t cols;
  size_t value_stride;  // from column to column: the rows of the format
  const float* x;       // at the first pixel
  size_t x_stride;
  float* sums;
  size_t sums_stride;
  const float* before;  // or null: from 0
  size_t before_stride;
  const float* bias;  // of the first row, or null
  float limits[2];    // -inf, inf where nothing is clamped
};

// sums[r][0 .. 4 Vectors) (+)= values[r] * x[column]. Blocks: records of more than one column.
template <size_t Rows, size_t Vectors, bool Blocks, typename Index>
__attribute__((always_inline)) inline void add_list(const List<Index>& list) {
  Float4 acc[Rows][Vectors];
  const size_t sums_stride = list.sums_stride, before_stride = list.before_stride;
  each<Rows>([&]<size_t r>() {
    each<Vectors>(
        [&]<size_t v>() { acc[r][v] = list.before ? load4(list.before + r * before_stride + 4 * v) : splat4(0.0f); });
  });
  const float *values = list.values, *x = list.x;
  const Index* index = list.index;
  const size_t value_stride = list.value_stride, x_stride = list.x_stride;
  const auto add_column = [&](const float* row) __attribute__((always_inline)) {
    if constexpr (Rows == 1) {
      const Float4 weight = splat4(*values);
      each<Vectors>([&]<size_t v>() { acc[0][v] = madd4(weight, load4(row + 4 * v), acc[0][v]); });
    } else {
      Float4 pixels[Vectors];
      each<Vectors>([&]<size_t v>() { pixels[v] = load4(row + 4 * v); });
      const Scalars<Rows> weights(values);
      each<Rows>([&]<size_t r>() {
        weights.next();
        each<Vectors>([&]<size_t v>() { acc[r][v] = weights.template madd<r>(pixels[v], acc[r][v]); });
      });
    }
    values += value_stride;
  };
  for (int32_t count = list.count; count > 0; --count, ++index) {
    if constexpr (Blocks) {
      const float* row = x + *index * list.cols * x_stride;
      for (int32_t j = 0; j < list.cols; ++j, row += x_stride) add_column(row);
    } else {
      add_column(x + *index * x_stride);
    }
  }
  const float* limits = list.limits;
  __asm__("" : "+r"(limits));  // else both wait in registers while the sums are made
  const Float4 low = splat4(limits[0]), high = splat4(limits[1]);
  each<Rows>([&]<size_t r>() {
    const Float4 bias = splat4(list.bias ? list.bias[r] : 0.0f);
    each<Vectors>(
        [&]<size_t v>() { store4(list.sums + r * sums_stride + 4 * v, min4(high, max4(low, add4(acc[r][v], bias)))); });
  });
}

// Not where the common case is.
template <size_t Rows, size_t Vectors, bool Blocks, typename Index>
__attribute__((noinline)) void add_list_apart(const List<Index>& list) {
  add_list<Rows, Vectors, Blocks>(list);
}

// What Finish says, where it is more than a bias and a clamp.
inline void finish_channel(const Finish& finish, int64_t channel, int lane, int lanes, float* sums) {
  const Float4 scale = splat4(finish.scale ? finish.scale[channel] : 1.0f);
  const Float4 bias = splat4(finish.bias ? finish.bias[channel] : 0.0f);
  const Float4 low = splat4(finish.low), high = splat4(finish.high);
  const float* residual = finish.residual ? finish.residual + channel * finish.residual_stride + lane : nullptr;
  for (int l = 0; l < lanes; l += 4) {
    Float4 y = add4(mul4(scale, load4(sums + l)), bias);
    if (residual) y = add4(y, load4(residual + l));
    if (finish.hard_swish) {
      const Float4 gate = min4(splat4(6.0f), max4(splat4(0.0f), add4(y, splat4(3.0f))));
      store4(sums + l, mul4(mul4(y, gate), splat4(1.0f / 6.0f)));
    } else {
      store4(sums + l, min4(high, max4(low, y)));
    }
  }
}

// The rows [channel, channel + Rows), of which the first `present` exist, at the pixels of the list.
template <size_t Rows, size_t Vectors, bool Blocks, typename Index>
__attribute__((always_inline)) inline void add_rows(const Tile& tile, List<Index>& list, int64_t channel,
                                                    int64_t present, int lane, bool simple) {
  constexpr int kLanes = 4 * Vectors;
  float* sums = tile.sums + channel * tile.sums_stride + lane;
  const float* before = tile.before ? tile.before + channel * tile.before_stride + lane : nullptr;
  if (present >= static_cast<int64_t>(Rows)) {
    list.sums = sums;
    list.sums_stride = static_cast<size_t>(tile.sums_stride);
    list.before = before;
    list.before_stride = static_cast<size_t>(tile.before_stride);
    list.bias = simple && tile.finish->bias ? tile.finish->bias + channel : nullptr;
    add_list<Rows, Vectors, Blocks>(list);
    if (simple || !tile.finish) return;
    for (int64_t r = 0; r < static_cast<int64_t>(Rows); ++r)
      finish_channel(*tile.finish, channel + r, lane, kLanes, sums + r * tile.sums_stride);
  } else {
    // The missing rows go to a buffer, and so do the others, for one loop serves all.
    float buffer[Rows * kLanes] = {};
    for (int64_t r = 0; r < present && before; ++r)
      std::memcpy(buffer + r * kLanes, before + r * tile.before_stride, kLanes * sizeof(float));
    List<Index> ragged = list;
    ragged.sums = buffer;
    ragged.sums_stride = kLanes;
    ragged.before = before ? buffer : nullptr;
    ragged.before_stride = kLanes;
    ragged.bias = nullptr;
    ragged.limits[0] = -__builtin_inff(), ragged.limits[1] = __builtin_inff();
    add_list_apart<Rows, Vectors, Blocks>(ragged);
    for (int64_t r = 0; r < present; ++r) {
      std::memcpy(sums + r * tile.sums_stride, buffer + r * kLanes, kLanes * sizeof(float));
      if (tile.finish) finish_channel(*tile.finish, channel + r, lane, kLanes, sums + r * tile.sums_stride);
    }
  }
}

// 4 Vectors pixels from `lane` on. Functions of their own, so that engines allocate registers for one tile at a time.
template <size_t Rows, size_t Vectors, bool Blocks, typename Index>
__attribute__((noinline)) void add_places(const Tile& tile, const Index* index, int lane) {
  const bool simple = tile.finish && !tile.finish->scale && !tile.finish->residual && !tile.finish->hard_swish;
  List<Index> list;
  list.cols = tile.cols;
  list.value_stride = static_cast<size_t>(tile.rows);
  list.x = tile.x + lane;
  list.x_stride = static_cast<size_t>(tile.x_stride);
  list.limits[0] = simple ? tile.finish->low : -__builtin_inff();
  list.limits[1] = simple ? tile.finish->high : __builtin_inff();
  const size_t record = static_cast<size_t>(tile.rows) * tile.cols;
  for (int64_t p = 0; p < tile.places; ++p) {
    const int32_t start = tile.starts[p] - tile.starts[0];
    list.count = tile.starts[p + 1] - tile.starts[p];
    for (int r = 0; r < tile.rows; r += Rows) {
      const int64_t channel = tile.order[p] * int64_t{tile.rows} + r, present = tile.channels - channel;
      if (present <= 0) break;
      list.index = index + start;
      list.values = tile.values + start * record + r;
      add_rows<Rows, Vectors, Blocks>(tile, list, channel, present, lane, simple);
    }
  }
}

template <size_t Rows, bool Blocks, typename Index>
void add_pixels(const Tile& tile, const Index* index) {
  constexpr int kLanes = 4 * most_vectors(Rows);
  int lane = 0;
  for (; lane + kLanes <= tile.lanes; lane += kLanes) add_places<Rows, most_vectors(Rows), Blocks>(tile, index, lane);
  each<most_vectors(Rows) - 1>([&]<size_t i>() {
    if (tile.lanes - lane == 4 * static_cast<int>(i + 1)) add_places<Rows, i + 1, Blocks>(tile, index, lane);
  });
}

// Calls body(const Index*) with the index as its own type.
template <typename Body>
inline void with_index(const void* index, bool wide, Body&& body) {
  return wide ? body(static_cast<const uint16_t*>(index)) : body(static_cast<const uint8_t*>(index));
}

template <size_t Rows>
void add_groups(const Tile& tile) {
  with_index(tile.index, tile.wide_index, [&](auto* index) {
    return tile.cols == 1 ? add_pixels<Rows, false>(tile, index) : add_pixels<Rows, true>(tile, index);
  });
}

inline void tile(const Tile& tile) {
  switch (pass_of(tile.rows)) {
    case 1: return add_groups<1>(tile);
    case 2: return add_groups<2>(tile);
    case 4: return add_groups<4>(tile);
#if defined(SPARSECORE_ARM)
    default: return add_groups<8>(tile);
#endif
  }
}

// Gradients of 4 neighbouring values, Rows rows of 4 / Rows columns; the slopes of the rows are in registers.
template <size_t Rows, size_t Vectors>
inline void gradients_of(const float* const (&x)[4 / Rows], const Float4 (&grad)[Rows][Vectors], float* out,
                         size_t count, bool accumulate) {
  Float4 sums[4];
  each<4>([&]<size_t i>() { sums[i] = splat4(0.0f); });
  each<4 / Rows>([&]<size_t c>() {
    each<Vectors>([&]<size_t v>() {
      const Float4 pixels = load4(x[c] + 4 * v);
      each<Rows>([&]<size_t r>() { sums[c * Rows + r] = madd4(grad[r][v], pixels, sums[c * Rows + r]); });
    });
  });
  transpose4(sums[0], sums[1], sums[2], sums[3]);
  const Float4 total = add4(add4(sums[0], sums[1]), add4(sums[2], sums[3]));
  if (count == 4) {
    store4(out, accumulate ? add4(load4(out), total) : total);
  } else {
    float lanes[4];
    store4(lanes, total);
    for (size_t i = 0; i < count; ++i) out[i] = accumulate ? out[i] + lanes[i] : lanes[i];
  }
}

template <size_t Rows, typename Index>
void gradient_lists(const GradientTile& tile, const Index* index) {
  constexpr size_t kVectors = kGradientLanes / 4, kColumns = 4 / Rows;
  for (int64_t p = 0; p < tile.places; ++p) {
    const int32_t begin = tile.starts[p] - tile.starts[0];
    // Columns of all records of the place follow each other.
    const int64_t columns = int64_t{tile.starts[p + 1] - tile.starts[p]} * tile.cols;
    for (int first = 0; first < tile.rows; first += Rows) {
      Float4 grad[Rows][kVectors];
      const float* slopes = tile.grad + (tile.order[p] * int64_t{tile.rows} + first) * tile.lanes;
      each<Rows>([&]<size_t r>() {
        each<kVectors>([&]<size_t v>() { grad[r][v] = load4(slopes + r * tile.lanes + 4 * v); });
      });
      float* out = tile.out + begin * int64_t{tile.cols} * tile.rows + first;
      for (int64_t c = 0; c < columns; c += kColumns) {
        const float* x[kColumns];
        const int64_t count = columns - c < static_cast<int64_t>(kColumns) ? columns - c : kColumns;
        for (size_t i = 0; i < kColumns; ++i) {
          const int64_t at = static_cast<int64_t>(i) < count ? c + i : c;  // what is missing is computed twice
          x[i] = tile.x + (index[begin + at / tile.cols] * int64_t{tile.cols} + at % tile.cols) * tile.lanes;
        }
        gradients_of<Rows, kVectors>(x, grad, out + c * tile.rows, count * Rows, tile.accumulate);
      }
    }
  }
}

inline void gradient(const GradientTile& tile) {
  with_index(tile.index, tile.wide_index, [&](auto* index) {
    return tile.rows == 1   ? gradient_lists<1>(tile, index)
           : tile.rows == 2 ? gradient_lists<2>(tile, index)
                            : gradient_lists<4>(tile, index);
  });
}

constexpr Kernel make_kernel(Isa isa, const char* name) {
  return {isa,       name,           "float32 bfloat16 float16 int8",
          4,         false,          max_lanes,
          tile,      pack_lanes,     unpack_lanes,
          widen_all, kGradientLanes, gradient};
}

}  // namespace
}  // namespace sparsecore::group_lists

// The loops over lists, compiled by the AVX2 and the AVX-512 file, each with its own registers.
//
// A tile is V rows of a group x W registers of pixels: V * W sums stay in registers while a list passes. A record costs
// W loads from x and V broadcast weights for its V * W products. Groups of more rows than V pass their list again. With
// one row there are two sets of sums, for even and odd records, added at the end: few chains of additions would show
// their latency.
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "cpu/group_lists/group_lists.h"

#define SPARSECORE_INLINE inline __attribute__((always_inline))

namespace sparsecore::group_lists {
namespace {

// L: lanes of a register. Index: of blocks of one column, which is the fast way, or void for all others. kParts: groups
// have more rows than V.
template <typename L, int V, int W, typename Index, bool kParts>
struct ListLoop {
  static constexpr bool kOneColumn = !std::is_void_v<Index>;
  using Place = std::conditional_t<kOneColumn, Index, uint8_t>;
  using F = typename L::F;
  using Mask = typename L::Mask;
  static constexpr int kSets = V == 1 && kOneColumn ? 2 : 1;
  // One or two rows: weights are loaded four at a time and spread from there by permutes, since broadcasts from memory
  // would compete with x for the load ports, which are the limit.
  static constexpr bool kSpread = V <= 2;
  static constexpr int kUnroll = kSpread ? 4 : L::roomy(V, W) ? 2 : 1;
  static constexpr int64_t kAhead = 1024;  // floats
  static constexpr int64_t kTileLanes = W * L::kLanes;
  static constexpr int kWord = 8, kMargin = 2 * kWord;  // records of a word of indices, and read after a list
  using Sums = F[kSets][V][W];

  // The last register of a tile may have fewer lanes than the others.
  static SPARSECORE_INLINE F load(const float* p, int w, Mask last) {
    return w + 1 < W ? L::load(p + w * L::kLanes) : L::load(p + w * L::kLanes, last);
  }

  static SPARSECORE_INLINE const float* at(const float* x, int64_t index, int64_t pitch) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + index * pitch);
  }

  // One column of one record; its weights one by one from memory.
  static SPARSECORE_INLINE void add(const float* values, const float* x, Mask last, F (&sums)[V][W]) {
    F column[W];
#pragma GCC unroll 10
    for (int w = 0; w < W; ++w) column[w] = load(x, w, last);
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) {
      const F value = L::splat(values + v);
#pragma GCC unroll 10
      for (int w = 0; w < W; ++w) sums[v][w] = L::madd(value, column[w], sums[v][w]);
    }
    L::settle(sums);
  }

  // The same with weights kFirst .. kFirst + V - 1 of four.
  template <int kFirst>
  static SPARSECORE_INLINE void add_of(F four, const float* x, Mask last, F (&sums)[V][W]) {
    const F first = L::template pick<kFirst>(four), second = V == 2 ? L::template pick<(kFirst + 1) % 4>(four) : first;
#pragma GCC unroll 10
    for (int w = 0; w < W; ++w) {
      const F column = load(x, w, last);
      sums[0][w] = L::madd(first, column, sums[0][w]);
      if constexpr (V == 2) sums[1][w] = L::madd(second, column, sums[1][w]);
    }
  }

  // Records kSlot .. 7 of the eight whose indices are the bytes of `word`, as far as the list goes. A jump that is not
  // taken costs nothing, so that any length leaves by one.
  template <int kSlot>
  static SPARSECORE_INLINE bool add_slots(F four, const float* values, uint64_t word, int64_t left, const float* x,
                                          int64_t pitch, Mask last, Sums& sums) {
    if constexpr (kSlot == kWord) {
      return true;
    } else {
      if (__builtin_expect(left <= kSlot, 0)) return false;
      if constexpr (kSlot * V % 4 == 0) four = L::four(values + kSlot * V);
      add_of<kSlot * V % 4>(four, at(x, word >> 8 * kSlot & 255, pitch), last, sums[kSlot % kSets]);
      return add_slots<kSlot + 1>(four, values, word, left, x, pitch, last, sums);
    }
  }

  // A list of which the first word of indices is at hand, with kMargin records to read after it.
  static SPARSECORE_INLINE void add_words(const float* values, const uint8_t* index, uint64_t word, int64_t left,
                                          const float* x, int64_t pitch, Mask last, Sums& sums) {
    for (;; left -= kWord, values += kWord * V) {
      index += kWord;
      const uint64_t following = word_at(index);
      if (!add_slots<0>(L::zero(), values, word, left, x, pitch, last, sums)) return;
      word = following;
    }
  }

  static SPARSECORE_INLINE uint64_t word_at(const uint8_t* index) {
    uint64_t word;
    __builtin_memcpy(&word, index, sizeof(word));
    return word;
  }

  // Moves `values` and `index` on to the next list.
  static SPARSECORE_INLINE void add_list(const float*& values, const Place*& index, int64_t left, int64_t rows,
                                         const float* x, int64_t pitch, Mask last, Sums& sums) {
    for (; left >= kUnroll; left -= kUnroll, index += kUnroll, values += kUnroll * rows) {
      if constexpr (kSpread) {
        // Four indices at once, for the same reason.
        uint32_t packed;
        __builtin_memcpy(&packed, index, 4);
        const float *x0 = at(x, packed & 255, pitch), *x1 = at(x, packed >> 8 & 255, pitch),
                    *x2 = at(x, packed >> 16 & 255, pitch), *x3 = at(x, packed >> 24, pitch);
        const F low = L::four(values), high = V == 2 ? L::four(values + 4) : low;
        add_of<0>(low, x0, last, sums[0]);
        add_of<V>(low, x1, last, sums[1 % kSets]);
        add_of<2 * V % 4>(high, x2, last, sums[2 % kSets]);
        add_of<3 * V % 4>(high, x3, last, sums[3 % kSets]);
      } else {
        // Processors fetch ahead within a page; large weights come from memory page after page.
        _mm_prefetch(reinterpret_cast<const char*>(values + kAhead), _MM_HINT_T0);
#pragma GCC unroll 2
        for (int i = 0; i < kUnroll; ++i) add(values + i * rows, at(x, index[i], pitch), last, sums[0]);
      }
    }
    if (kUnroll == 4 && (left & 2)) {
      add(values, at(x, index[0], pitch), last, sums[0]);
      add(values + rows, at(x, index[1], pitch), last, sums[1 % kSets]);
      index += 2, values += 2 * rows;
    }
    if (kUnroll > 1 && (left & 1)) {
      add(values, at(x, index[0], pitch), last, sums[0]);
      index += 1, values += rows;
    }
  }

  static SPARSECORE_INLINE void add_blocks(const Tile& tile, const float* value, int64_t begin, int64_t end,
                                           int64_t rows, const float* first, int64_t pitch, Mask last,
                                           F (&sums)[V][W]) {
    const int64_t cols = tile.cols;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block =
          tile.wide_index ? static_cast<const uint16_t*>(tile.index)[i] : static_cast<const uint8_t*>(tile.index)[i];
      const float* x = at(first, block * cols, pitch);
      for (int64_t j = 0; j < cols; ++j, value += rows, x = at(x, 1, pitch)) add(value, x, last, sums);
    }
  }

  static SPARSECORE_INLINE F finished(const Finish& finish, F sum, F scale, F bias, const float* residual, int w,
                                      Mask last) {
    sum = L::add(L::mul(sum, scale), bias);
    if (residual) sum = L::add(sum, load(residual, w, last));
    if (finish.hard_swish) {
      const F gate = L::min(L::splat(6.0f), L::max(L::splat(0.0f), L::add(sum, L::splat(3.0f))));
      return L::mul(L::mul(sum, gate), L::splat(1.0f / 6.0f));
    }
    // The bound is the first operand, so that a NaN in the sum passes.
    return L::min(L::splat(finish.high), L::max(L::splat(finish.low), sum));
  }

  static SPARSECORE_INLINE void store(const Finish* finish, int64_t channel, int64_t lane, float* out, Mask last,
                                      const F (&sums)[W]) {
    if (!finish) {
#pragma GCC unroll 10
      for (int w = 0; w < W; ++w) L::store(out + w * L::kLanes, sums[w], w + 1 < W ? L::all() : last);
      return;
    }
    if (!finish->scale && !finish->residual && !finish->hard_swish) {
      const F bias = L::splat(finish->bias ? finish->bias[channel] : 0.0f), low = L::splat(finish->low),
              high = L::splat(finish->high);
#pragma GCC unroll 10
      for (int w = 0; w < W; ++w)
        L::store(out + w * L::kLanes, L::min(high, L::max(low, L::add(sums[w], bias))), w + 1 < W ? L::all() : last);
      return;
    }
    const F scale = L::splat(finish->scale ? finish->scale[channel] : 1.0f),
            bias = L::splat(finish->bias ? finish->bias[channel] : 0.0f);
    const float* residual = finish->residual ? finish->residual + channel * finish->residual_stride + lane : nullptr;
#pragma GCC unroll 10
    for (int w = 0; w < W; ++w)
      L::store(out + w * L::kLanes, finished(*finish, sums[w], scale, bias, residual, w, last),
               w + 1 < W ? L::all() : last);
  }

  // `present` of the V rows exist, from channel `channel` on.
  static SPARSECORE_INLINE void load_sums(const float* before, int64_t stride, int64_t present, Mask last, Sums& sums) {
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 10
      for (int w = 0; w < W; ++w)
#pragma GCC unroll 2
        for (int set = 0; set < kSets; ++set) sums[set][v][w] = L::zero();
    if (!before) return;
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v)
      if (v < present)
#pragma GCC unroll 10
        for (int w = 0; w < W; ++w) sums[0][v][w] = load(before + v * stride, w, last);
  }

  static SPARSECORE_INLINE void store_sums(const Finish* finish, int64_t channel, int64_t lane, float* out,
                                           int64_t stride, int64_t present, Mask last, Sums& sums) {
#pragma GCC unroll 10
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
      for (int set = 1; set < kSets; ++set)
#pragma GCC unroll 10
        for (int w = 0; w < W; ++w) sums[0][v][w] = L::add(sums[0][v][w], sums[set][v][w]);
      if (v < present) store(finish, channel + v, lane, out + v * stride, last, sums[0][v]);
    }
  }

  // kRow: of several tiles.
  template <bool kRow>
  static __attribute__((noinline)) void run(const Tile& tile) {
    const Mask ragged = L::first(tile.lanes - ((kRow ? tile.tiles : 1) * W - 1) * L::kLanes);
    const int64_t rows = kParts ? tile.rows : V, stride = tile.sums_stride, channels = tile.channels,
                  pitch = tile.x_stride * static_cast<int64_t>(sizeof(float));
    const float *x = tile.x, *values = tile.values;
    const Place* index = static_cast<const Place*>(tile.index);
    const uint8_t* order = tile.order;
    const int32_t *starts = tile.starts, *last_start = starts + tile.places;
    const int64_t base = *starts;
    if constexpr (kSpread && kOneColumn && !kParts && !kRow) {
      const int32_t* last_word = last_start;
      while (last_word > starts && *last_word - base + kMargin > tile.readable) --last_word;
      uint64_t following = last_word > starts ? word_at(index) : 0;
      for (; starts < last_word; ++starts, ++order) {
        const int64_t count = starts[1] - starts[0], channel = *order * rows, present = V == 1 ? 1 : channels - channel;
        const uint64_t word = following;
        following = word_at(index + count);
        Sums sums;
        load_sums(tile.before ? tile.before + channel * tile.before_stride : nullptr, tile.before_stride, present,
                  ragged, sums);
        add_words(values, index, word, count, x, pitch, ragged, sums);
        index += count, values += count * V;
        store_sums(tile.finish, channel, 0, tile.sums + channel * stride, stride, present, ragged, sums);
      }
    }
    for (; starts < last_start; ++starts, ++order) {
      const int64_t count = starts[1] - starts[0];
      const float* value = values;
      const Place* place = index;
      for (int64_t part = 0; part < rows; part += V) {
        const int64_t channel = *order * rows + part;
        // A group of one row always exists.
        const int64_t present = V == 1 && !kParts ? 1 : channels - channel;
        if (kParts && present <= 0) break;
        const auto pass = [&](int64_t lane, Mask last) __attribute__((always_inline)) {
          float* out = tile.sums + channel * stride + lane;
          Sums sums;
          load_sums(tile.before ? tile.before + channel * tile.before_stride + lane : nullptr, tile.before_stride,
                    present, last, sums);
          if constexpr (kOneColumn) {
            value = values + part, place = index;
            add_list(value, place, count, rows, x + lane, pitch, last, sums);
          } else {
            const int64_t begin = *starts - base;
            add_blocks(tile, values + begin * rows * tile.cols + part, begin, begin + count, rows, x + lane, pitch,
                       last, sums[0]);
          }
          store_sums(tile.finish, channel, lane, out, stride, present, last, sums);
        };
        if constexpr (kRow)
          for (int64_t t = 0; t < tile.tiles; ++t) pass(t * kTileLanes, t + 1 < tile.tiles ? L::all() : ragged);
        else
          pass(0, ragged);
      }
      if constexpr (kOneColumn) {
        if (kParts) place = index + count, value = values + count * rows;
        index = place, values = value;
      }
    }
  }
};

template <typename L, int V, int W, typename Index, bool kParts>
void run_index(const Tile& tile) {
  if constexpr (V >= 4) {
    if (tile.tiles > 1) return ListLoop<L, V, W, Index, kParts>::template run<true>(tile);
  }
  ListLoop<L, V, W, Index, kParts>::template run<false>(tile);
}

template <typename L, int V, int W, bool kParts>
void run_tile(const Tile& tile) {
  // One and two rows read their indices as bytes (group_lists_depth gives them no wider ones).
  if constexpr (V >= 4) {
    if (tile.cols == 1 && tile.wide_index) return run_index<L, V, W, uint16_t, kParts>(tile);
  }
  if (tile.cols == 1 && !tile.wide_index) return run_index<L, V, W, uint8_t, kParts>(tile);
  ListLoop<L, V, W, void, kParts>::template run<false>(tile);
}

// Tiles of 1 .. W registers.
template <typename L, int V, int W, bool kParts = false>
void run_width(const Tile& tile) {
  if constexpr (W > 1) {
    if (tile.lanes <= tile.tiles * (W - 1) * L::kLanes) return run_width<L, V, W - 1, kParts>(tile);
  }
  run_tile<L, V, W, kParts>(tile);
}

// Gradient: L::kLanes values follow each other in memory, whatever their rows and columns; their products with x become
// one register of sums.
template <typename L>
struct GradientLoop {
  using F = typename L::F;

  static SPARSECORE_INLINE F product(const float* grad, const float* x, int lanes) {
    F sum = L::mul(L::load(grad), L::load(x));
    for (int l = L::kLanes; l < lanes; l += L::kLanes) sum = L::madd(L::load(grad + l), L::load(x + l), sum);
    return sum;
  }

  template <typename Index>
  static void run(const GradientTile& tile, const Index* index) {
    const int64_t rows = tile.rows, cols = tile.cols, record = rows * cols, base = tile.starts[0];
    for (int64_t p = 0; p < tile.places; ++p) {
      const float* grad = tile.grad + tile.order[p] * rows * tile.lanes;
      const int64_t end = (tile.starts[p + 1] - base) * record;
      int64_t i = tile.starts[p] - base, j = 0, r = 0;  // of the next value
      for (int64_t value = i * record; value < end; value += L::kLanes) {
        F sums[L::kLanes];
        const int64_t count = end - value < L::kLanes ? end - value : L::kLanes;
        for (int64_t s = 0; s < L::kLanes; ++s) {
          sums[s] = s < count ? product(grad + r * tile.lanes, tile.x + (index[i] * cols + j) * tile.lanes, tile.lanes)
                              : L::zero();
          if (++r < rows) continue;
          r = 0;
          if (++j < cols) continue;
          j = 0, ++i;
        }
        L::add_to(tile.out + value, L::reduce(sums), count, tile.accumulate);
      }
    }
  }

  static void run(const GradientTile& tile) {
    if (tile.wide_index)
      run(tile, static_cast<const uint16_t*>(tile.index));
    else
      run(tile, static_cast<const uint8_t*>(tile.index));
  }
};

}  // namespace
}  // namespace sparsecore::group_lists

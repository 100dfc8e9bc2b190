// The loops over lists, compiled by the AVX2 and the AVX-512 file, each with its own registers.
//
// Even and odd places of a list go into two sets of sums, which are added at its end. Weights are loaded four at a time
// into every quarter of a register and spread from there: broadcasts from memory would compete with the panel for the
// load ports, which are the limit. Narrow tiles work on several lists side by side, else the latency of the additions
// would show. Weights that are not float32 are widened, a list at a time, to a buffer on the stack.
#pragma once

#include <immintrin.h>

#include "cpu/row_lists/row_lists.h"

#define SPARSECORE_INLINE inline __attribute__((always_inline))

namespace sparsecore::row_lists {
namespace {

struct Lanes8 {
  using F = __m256;
  static constexpr int kLanes = 8;
  static F zero() { return _mm256_setzero_ps(); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F madd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F splat(const float* p) { return _mm256_broadcast_ss(p); }
  static F four(const float* p) { return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p)); }
  template <int I>
  static F pick(F four) {
    return _mm256_permute_ps(four, 0x55 * I);
  }
  // Lane j of the result is the sum of the lanes of sums[j].
  static SPARSECORE_INLINE F reduce(F (&sums)[8]) {
    for (int i = 0; i < 4; ++i)
      sums[i] = add(_mm256_unpacklo_ps(sums[2 * i], sums[2 * i + 1]), _mm256_unpackhi_ps(sums[2 * i], sums[2 * i + 1]));
    for (int i = 0; i < 2; ++i) {
      const __m256d a = _mm256_castps_pd(sums[2 * i]), b = _mm256_castps_pd(sums[2 * i + 1]);
      sums[i] = add(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    return add(_mm256_permute2f128_ps(sums[0], sums[1], 0x20), _mm256_permute2f128_ps(sums[0], sums[1], 0x31));
  }
  static SPARSECORE_INLINE void add_to(float* out, F sum, int64_t count, bool accumulate) {
    const __m256i lanes =
        _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    if (accumulate) sum = add(sum, _mm256_maskload_ps(out, lanes));
    _mm256_maskstore_ps(out, lanes, sum);
  }
};

struct Lanes4 {
  using F = __m128;
  static constexpr int kLanes = 4;
  static F zero() { return _mm_setzero_ps(); }
  static F load(const float* p) { return _mm_loadu_ps(p); }
  static void store(float* p, F a) { _mm_storeu_ps(p, a); }
  static F add(F a, F b) { return _mm_add_ps(a, b); }
  static F madd(F a, F b, F c) { return _mm_fmadd_ps(a, b, c); }
  static F splat(const float* p) { return _mm_broadcast_ss(p); }
  static F four(const float* p) { return _mm_loadu_ps(p); }
  template <int I>
  static F pick(F four) {
    return _mm_permute_ps(four, 0x55 * I);
  }
};

// A list as the inner loops read it.
struct List {
  const float* values;
  const uint8_t* offsets;
  int64_t count;
};

// L: lanes of a register, V: registers of a tile, R: lists side by side.
template <typename L, int V, int R>
struct ListLoop {
  using F = typename L::F;
  static constexpr int kWidth = V * L::kLanes;

  static SPARSECORE_INLINE void add_one(F value, uint8_t offset, const float* panel, F (&sums)[V]) {
    const float* x = panel + static_cast<int64_t>(offset) * kWidth;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[v] = L::madd(value, L::load(x + v * L::kLanes), sums[v]);
  }

  static SPARSECORE_INLINE void add_four(const List& list, int64_t i, const float* panel, F (&sums)[2][V]) {
    const F four = L::four(list.values + i);
    const uint8_t* offsets = list.offsets + i;
    add_one(L::template pick<0>(four), offsets[0], panel, sums[0]);
    add_one(L::template pick<1>(four), offsets[1], panel, sums[1]);
    add_one(L::template pick<2>(four), offsets[2], panel, sums[0]);
    add_one(L::template pick<3>(four), offsets[3], panel, sums[1]);
  }

  // In step as long as the shortest list lasts, then each to its end.
  template <int Lists>
  static SPARSECORE_INLINE void add_lists(const List (&lists)[Lists], const float* panel, float* out, bool accumulate) {
    F sums[Lists][2][V];
    int64_t shortest = lists[0].count;
#pragma GCC unroll 4
    for (int r = 0; r < Lists; ++r) {
      if (lists[r].count < shortest) shortest = lists[r].count;
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        sums[r][0][v] = accumulate ? L::load(out + r * kWidth + v * L::kLanes) : L::zero();
        sums[r][1][v] = L::zero();
      }
    }
    int64_t together = 0;
    for (; together + 4 <= shortest; together += 4)
#pragma GCC unroll 4
      for (int r = 0; r < Lists; ++r) add_four(lists[r], together, panel, sums[r]);
#pragma GCC unroll 4
    for (int r = 0; r < Lists; ++r) {
      const List& list = lists[r];
      int64_t i = together;
      if (Lists > 1)
        for (; i + 4 <= list.count; i += 4) add_four(list, i, panel, sums[r]);
      if ((list.count - i) & 2) {
        add_one(L::splat(list.values + i), list.offsets[i], panel, sums[r][0]);
        add_one(L::splat(list.values + i + 1), list.offsets[i + 1], panel, sums[r][1]);
        i += 2;
      }
      if (i < list.count) add_one(L::splat(list.values + i), list.offsets[i], panel, sums[r][0]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) L::store(out + r * kWidth + v * L::kLanes, L::add(sums[r][0][v], sums[r][1][v]));
    }
  }

  // W::widen(const T*, count, float*) widens a list; the buffer has room for kPanelRows floats.
  template <typename W, typename T>
  static void run(const Tile& tile) {
    alignas(64) float widened[R][kPanelRows];
    const T* values = static_cast<const T*>(tile.lists.values);
    const float* panel = static_cast<const float*>(tile.panel);
    const auto list = [&](int64_t o, int r) {
      const int64_t begin = tile.lists.starts[o], count = tile.lists.starts[o + 1] - begin;
      return List{W::widen(values + begin, count, widened[r]), tile.lists.offsets + begin, count};
    };
    int64_t o = 0;
    for (; o + R <= tile.lists.channels; o += R) {
      List lists[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) lists[r] = list(o + r, r);
      add_lists<R>(lists, panel, tile.sums + o * kWidth, tile.accumulate);
    }
    for (; o < tile.lists.channels; ++o) {
      const List lists[1] = {list(o, 0)};
      add_lists<1>(lists, panel, tile.sums + o * kWidth, tile.accumulate);
    }
  }

  template <typename W>
  static void run(const Tile& tile) {
    switch (tile.lists.weights) {
      case DType::kBFloat16: return run<W, BFloat16>(tile);
      case DType::kFloat16: return run<W, Float16>(tile);
      case DType::kInt8: return run<W, int8_t>(tile);
      default: return run<W, float>(tile);
    }
  }
};

// One token: four activations are collected from memory for every four weights, which is faster than a gather. The
// products of many lists go to a buffer first, as if they were one list, and are summed list by list afterwards: the
// ends of lists are mispredicted jumps, and so short loops meet them, not long ones.
SPARSECORE_INLINE __m128 load4(const float* p) { return _mm_loadu_ps(p); }
SPARSECORE_INLINE __m128 load4(const BFloat16* p) {
  const __m128i half = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(half), 16));
}
SPARSECORE_INLINE __m128 load4(const Float16* p) {
  return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
SPARSECORE_INLINE __m128 load4(const int8_t* p) { return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_loadu_si32(p))); }
SPARSECORE_INLINE __m128 load1(const float* p) { return _mm_load_ss(p); }
SPARSECORE_INLINE __m128 load1(const BFloat16* p) {
  return _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(p->bits) << 16));
}
SPARSECORE_INLINE __m128 load1(const Float16* p) { return _mm_cvtph_ps(_mm_cvtsi32_si128(p->bits)); }
SPARSECORE_INLINE __m128 load1(const int8_t* p) { return _mm_cvtsi32_ss(_mm_setzero_ps(), *p); }

SPARSECORE_INLINE __m128 collect4(const float* x, const uint8_t* offsets) {
  __m128 four = _mm_load_ss(x + offsets[0]);
  four = _mm_insert_ps(four, _mm_load_ss(x + offsets[1]), 0x10);
  four = _mm_insert_ps(four, _mm_load_ss(x + offsets[2]), 0x20);
  return _mm_insert_ps(four, _mm_load_ss(x + offsets[3]), 0x30);
}

template <typename T>
void multiply(const T* values, const uint8_t* offsets, int64_t count, const float* x, float* products) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm_store_ps(products + i, _mm_mul_ps(load4(values + i), collect4(x, offsets + i)));
    _mm_store_ps(products + i + 4, _mm_mul_ps(load4(values + i + 4), collect4(x, offsets + i + 4)));
  }
  for (; i < count; ++i) _mm_store_ss(products + i, _mm_mul_ss(load1(values + i), _mm_load_ss(x + offsets[i])));
}

template <typename T>
void run_single(const SingleTile& tile) {
  constexpr int64_t kProducts = 2048;  // 8 KB beside the activations of a block
  alignas(32) float products[kProducts];
  const __m256i places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const int32_t* starts = tile.lists.starts;
  for (int64_t o = 0; o < tile.lists.channels;) {
    int64_t end = o + 1;
    while (end < tile.lists.channels && starts[end + 1] - starts[o] <= kProducts) ++end;
    const int64_t begin = starts[o];
    multiply(static_cast<const T*>(tile.lists.values) + begin, tile.lists.offsets + begin, starts[end] - begin, tile.x,
             products);
    for (; o < end; ++o) {
      const float* list = products + (starts[o] - begin);
      const int64_t count = starts[o + 1] - starts[o];
      __m256 sum = _mm256_setzero_ps();
      int64_t i = 0;
      for (; i + 8 <= count; i += 8) sum = _mm256_add_ps(sum, _mm256_loadu_ps(list + i));
      const __m256i rest = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count - i)), places);
      sum = _mm256_add_ps(sum, _mm256_maskload_ps(list + i, rest));
      __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
      float* out = tile.sums + o * kSingleLanes;
      if (tile.accumulate) quarter = _mm_add_ps(quarter, _mm_loadu_ps(out));
      _mm_storeu_ps(out, quarter);
    }
  }
}

void single(const SingleTile& tile) {
  switch (tile.lists.weights) {
    case DType::kBFloat16: return run_single<BFloat16>(tile);
    case DType::kFloat16: return run_single<Float16>(tile);
    case DType::kInt8: return run_single<int8_t>(tile);
    default: return run_single<float>(tile);
  }
}

// Gradient: the slopes of a channel stay in V registers while its list passes; L::kLanes products at a time become one
// register of sums.
template <typename L, int V>
struct GradientLoop {
  using F = typename L::F;
  static constexpr int kWidth = V * L::kLanes;

  static SPARSECORE_INLINE F product(const F (&grad)[V], const float* x) {
    F sum = L::mul(grad[0], L::load(x));
#pragma GCC unroll 8
    for (int v = 1; v < V; ++v) sum = L::madd(grad[v], L::load(x + v * L::kLanes), sum);
    return sum;
  }

  static void run(const GradientTile& tile) {
    for (int64_t o = 0; o < tile.channels; ++o) {
      F grad[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) grad[v] = L::load(tile.grad + o * kWidth + v * L::kLanes);
      const int64_t end = tile.starts[o + 1];
      for (int64_t i = tile.starts[o]; i < end; i += L::kLanes) {
        F sums[L::kLanes];
        const int64_t count = end - i < L::kLanes ? end - i : L::kLanes;
        if (count == L::kLanes) {
#pragma GCC unroll 16
          for (int j = 0; j < L::kLanes; ++j) sums[j] = product(grad, tile.x + tile.offsets[i + j] * kWidth);
        } else {
          // Places past the end repeat the last one, and are not stored.
#pragma GCC unroll 16
          for (int j = 0; j < L::kLanes; ++j)
            sums[j] = product(grad, tile.x + tile.offsets[j < count ? i + j : end - 1] * kWidth);
        }
        L::add_to(tile.out + i, L::reduce(sums), count, tile.accumulate);
      }
    }
  }
};

}  // namespace
}  // namespace sparsecore::row_lists

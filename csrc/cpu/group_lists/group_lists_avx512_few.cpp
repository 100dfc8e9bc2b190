// Few pixels: rows of a group are the lanes instead, and a pixel is broadcast. A tile of one pixel of a group of 8 rows
// costs one product of 8 lanes for a record, where lanes of pixels would take 8 products. The last pixel of a plane of
// 7 x 7 and a layer of few tokens are computed so, with the same bits: a sum is one chain in the order of its list.
//
// Four places of the window run side by side, as long as all of them have records: a chain alone would wait for its
// additions.
#include <immintrin.h>

#include "cpu/group_lists/group_lists.h"

#define SPARSECORE_INLINE inline __attribute__((always_inline))

namespace sparsecore::group_lists::avx512 {
namespace {

struct Rows4 {
  using F = __m128;
  static constexpr int kRows = 4;
  static F load(const float* p) { return _mm_loadu_ps(p); }
  static void store(float* p, F a) { _mm_storeu_ps(p, a); }
  static F splat(float a) { return _mm_set1_ps(a); }
  static F madd(F a, F b, F c) { return _mm_fmadd_ps(a, b, c); }
};
struct Rows8 {
  using F = __m256;
  static constexpr int kRows = 8;
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
  static F splat(float a) { return _mm256_set1_ps(a); }
  static F madd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
};
struct Rows16 {
  using F = __m512;
  static constexpr int kRows = 16;
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F splat(float a) { return _mm512_set1_ps(a); }
  static F madd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
};

float clamp(float value, float low, float high) {
  value = value < low ? low : value;  // NaN passes
  return value > high ? high : value;
}

// R: rows in a register, P: pixels of the tile, kBytes: uint8 indices of blocks of one column.
template <typename R, int P, bool kBytes>
struct FewLoop {
  using F = typename R::F;
  static constexpr int kPlaces = 4;

  const Tile& tile;
  const int64_t rows, cols;

  SPARSECORE_INLINE void add(const float* values, const float* x, F (&sums)[P]) const {
    const F value = R::load(values);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sums[p] = R::madd(value, R::splat(x[p]), sums[p]);
  }

  SPARSECORE_INLINE void add_record(int64_t i, int64_t part, F (&sums)[P]) const {
    if constexpr (kBytes) {
      add(tile.values + i * rows + part, tile.x + static_cast<const uint8_t*>(tile.index)[i] * tile.x_stride, sums);
    } else {
      const int64_t block =
          tile.wide_index ? static_cast<const uint16_t*>(tile.index)[i] : static_cast<const uint8_t*>(tile.index)[i];
      for (int64_t j = 0; j < cols; ++j)
        add(tile.values + (i * cols + j) * rows + part, tile.x + (block * cols + j) * tile.x_stride, sums);
    }
  }

  // Channels [channel, channel + R::kRows) that exist; a pixel's sums go through memory one by one.
  void load_sums(int64_t channel, F (&sums)[P]) const {
    for (int p = 0; p < P; ++p) {
      alignas(64) float column[R::kRows] = {};
      if (tile.accumulate)
        for (int64_t r = 0; r < R::kRows && channel + r < tile.channels; ++r)
          column[r] = tile.sums[(channel + r) * tile.sums_stride + p];
      sums[p] = R::load(column);
    }
  }

  void store_sums(int64_t channel, const F (&sums)[P]) const {
    for (int p = 0; p < P; ++p) {
      alignas(64) float column[R::kRows];
      R::store(column, sums[p]);
      for (int64_t r = 0; r < R::kRows && channel + r < tile.channels; ++r)
        tile.sums[(channel + r) * tile.sums_stride + p] =
            tile.finish ? finished(*tile.finish, channel + r, p, column[r]) : column[r];
    }
  }

  static float finished(const Finish& finish, int64_t channel, int pixel, float sum) {
    sum = sum * (finish.scale ? finish.scale[channel] : 1.0f) + (finish.bias ? finish.bias[channel] : 0.0f);
    if (finish.residual) sum += finish.residual[channel * finish.residual_stride + pixel];
    if (finish.hard_swish) return sum * clamp(sum + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f);
    return clamp(sum, finish.low, finish.high);
  }

  template <int kCount>
  SPARSECORE_INLINE void run_places(int64_t place) const {
    for (int64_t part = 0; part < rows; part += R::kRows) {
      F sums[kCount][P];
      int64_t begin[kCount], count[kCount], shortest = INT64_MAX;
#pragma GCC unroll 4
      for (int g = 0; g < kCount; ++g) {
        begin[g] = tile.starts[place + g] - tile.starts[0];
        count[g] = tile.starts[place + g + 1] - tile.starts[place + g];
        shortest = count[g] < shortest ? count[g] : shortest;
        load_sums(tile.order[place + g] * rows + part, sums[g]);
      }
      for (int64_t i = 0; i < shortest; ++i)
#pragma GCC unroll 4
        for (int g = 0; g < kCount; ++g) add_record(begin[g] + i, part, sums[g]);
#pragma GCC unroll 4
      for (int g = 0; g < kCount; ++g) {
        for (int64_t i = shortest; i < count[g]; ++i) add_record(begin[g] + i, part, sums[g]);
        store_sums(tile.order[place + g] * rows + part, sums[g]);
      }
    }
  }

  void run() const {
    int64_t place = 0;
    for (; place + kPlaces <= tile.places; place += kPlaces) run_places<kPlaces>(place);
    for (; place < tile.places; ++place) run_places<1>(place);
  }
};

template <typename R, int P>
void run_pixels(const Tile& tile) {
  if constexpr (P > 1) {
    if (tile.lanes < P) return run_pixels<R, P - 1>(tile);
  }
  if (tile.cols == 1 && !tile.wide_index)
    FewLoop<R, P, true>{tile, tile.rows, 1}.run();
  else
    FewLoop<R, P, false>{tile, tile.rows, tile.cols}.run();
}

}  // namespace

int few_lanes(int rows) { return rows >= 8 ? 4 : rows == 4 ? 2 : 0; }

void tile_of_few(const Tile& tile) {
  switch (tile.rows) {
    case 4: return run_pixels<Rows4, 2>(tile);
    case 8: return run_pixels<Rows8, 4>(tile);
    default: return run_pixels<Rows16, 4>(tile);
  }
}

}  // namespace sparsecore::group_lists::avx512

// Few pixels: rows of a group are the lanes instead, and a pixel is broadcast. A tile of one pixel of a group of 8 rows
// costs one product of 8 lanes for a record, where lanes of pixels would take 8 products. The last pixel of a plane of
// 7 x 7 and a layer of few tokens are computed so, with the same bits: a sum is one chain in the order of its list.
//
// Some places of the window run side by side, as long as all of them have records: a chain alone would wait for its
// additions.
#include <immintrin.h>

#include <type_traits>

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

// Channels [channel, channel + R::kRows) that exist; a pixel's sums go through memory one by one. By value: an array
// whose address is known elsewhere would not stay in registers. Not inline: a copy for each sum of each tile would take
// compilers half a minute.
template <typename R>
__attribute__((noinline)) typename R::F load_sum(const Tile& tile, int64_t channel, int p) {
  alignas(64) float column[R::kRows] = {};
  if (tile.before)
    for (int64_t r = 0; r < R::kRows && channel + r < tile.channels; ++r)
      column[r] = tile.before[(channel + r) * tile.before_stride + p];
  return R::load(column);
}

template <typename Rows>
SPARSECORE_INLINE void finish_rows(const Finish& finish, int64_t channel, Rows rows, int pixel, float* column) {
  if (finish.scale)
    for (int64_t r = 0; r < rows; ++r) column[r] *= finish.scale[channel + r];
  if (finish.bias)
    for (int64_t r = 0; r < rows; ++r) column[r] += finish.bias[channel + r];
  if (finish.residual)
    for (int64_t r = 0; r < rows; ++r) column[r] += finish.residual[(channel + r) * finish.residual_stride + pixel];
  if (finish.hard_swish)
    for (int64_t r = 0; r < rows; ++r) column[r] = column[r] * clamp(column[r] + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f);
  else
    for (int64_t r = 0; r < rows; ++r) column[r] = clamp(column[r], finish.low, finish.high);
}

// Where `rows` is a constant, compilers finish all of them at once.
template <typename Rows>
SPARSECORE_INLINE void store_rows(const Tile& tile, Rows rows, int64_t channel, int p, float* column) {
  if (tile.finish) finish_rows(*tile.finish, channel, rows, p, column);
  float* out = tile.sums + channel * tile.sums_stride + p;
  for (int64_t r = 0; r < rows; ++r, out += tile.sums_stride) *out = column[r];
}

template <typename R>
__attribute__((noinline)) void store_sum(const Tile& tile, int64_t channel, int p, typename R::F sum) {
  alignas(64) float column[R::kRows];
  R::store(column, sum);
  const int64_t present = tile.channels - channel;
  if (present >= R::kRows)
    store_rows(tile, std::integral_constant<int64_t, R::kRows>(), channel, p, column);
  else
    store_rows(tile, present, channel, p, column);
}

// R: rows in a register, P: pixels of the tile. Index: of blocks of one column, or void for all others.
template <typename R, int P, typename Index>
struct FewLoop {
  using F = typename R::F;
  static constexpr bool kOneColumn = !std::is_void_v<Index>;
  static constexpr int kPlaces = 4;
  // Floats from a list to the one that follows four later, if dense. Weights are read once for the few pixels, from
  // far.
  static constexpr int64_t kAhead = 8 * 1024;

  const Tile& tile;
  const int64_t rows, cols;

  static SPARSECORE_INLINE void add(const float* values, const float* x, F (&sums)[P]) {
    const F value = R::load(values);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sums[p] = R::madd(value, R::splat(x[p]), sums[p]);
  }

  // The records of one place, from its first on.
  struct List {
    const float* values;
    const void* index;
  };
  List list_of(int64_t place, int64_t part) const {
    const int64_t begin = tile.starts[place] - tile.starts[0];
    const auto* index = static_cast<const char*>(tile.index);
    return {tile.values + begin * rows * cols + part, index + begin * (tile.wide_index ? 2 : 1)};
  }

  // Record i; `pitch` from one column of x to the next, in floats.
  static SPARSECORE_INLINE void add_record(const List& list, int64_t i, int64_t rows, int64_t cols, bool wide,
                                           const float* x, int64_t pitch, F (&sums)[P]) {
    if constexpr (kOneColumn) {
      add(list.values + i * rows, x + static_cast<const Index*>(list.index)[i] * pitch, sums);
    } else {
      const int64_t block =
          wide ? static_cast<const uint16_t*>(list.index)[i] : static_cast<const uint8_t*>(list.index)[i];
      for (int64_t j = 0; j < cols; ++j) add(list.values + (i * cols + j) * rows, x + (block * cols + j) * pitch, sums);
    }
  }

  template <int kCount>
  void run_places(int64_t place) const {
    const int64_t height = kOneColumn && R::kRows < 16 ? R::kRows : rows, width = cols, pitch = tile.x_stride;
    const float* x = tile.x;
    const bool wide = tile.wide_index;
    for (int64_t part = 0; part < rows; part += R::kRows) {
      F sums[kCount][P];
      List lists[kCount];
      int64_t count[kCount], shortest = INT64_MAX;
#pragma GCC unroll 4
      for (int g = 0; g < kCount; ++g) {
        lists[g] = list_of(place + g, part);
        count[g] = tile.starts[place + g + 1] - tile.starts[place + g];
        shortest = count[g] < shortest ? count[g] : shortest;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
          sums[g][p] = load_sum<R>(tile, tile.order[place + g] * rows + part, p);
        }
      }
      for (int64_t i = 0; i < shortest; ++i)
#pragma GCC unroll 4
        for (int g = 0; g < kCount; ++g) {
          _mm_prefetch(reinterpret_cast<const char*>(lists[g].values + i * height + kAhead), _MM_HINT_T1);
          add_record(lists[g], i, height, width, wide, x, pitch, sums[g]);
        }
#pragma GCC unroll 4
      for (int g = 0; g < kCount; ++g) {
        for (int64_t i = shortest; i < count[g]; ++i) {
          add_record(lists[g], i, height, width, wide, x, pitch, sums[g]);
        }
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
          store_sum<R>(tile, tile.order[place + g] * rows + part, p, sums[g][p]);
        }
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
  if (tile.cols > 1)
    FewLoop<R, P, void>{tile, tile.rows, tile.cols}.run();
  else if (tile.wide_index)
    FewLoop<R, P, uint16_t>{tile, tile.rows, 1}.run();
  else
    FewLoop<R, P, uint8_t>{tile, tile.rows, 1}.run();
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

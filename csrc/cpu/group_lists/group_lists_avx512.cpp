// Group lists on AVX-512: sixteen pixels a register, thirty-two registers, masks for the last one of a tile.
#include "cpu/group_lists/group_lists_x86.h"
#include "cpu/row_lists/row_lists.h"
#include "cpu/row_lists/transpose_avx512.h"

namespace sparsecore::group_lists::avx512 {
namespace {

struct Lanes16 {
  using F = __m512;
  using Mask = __mmask16;
  static constexpr int kLanes = 16;
  static Mask all() { return 0xffff; }
  static Mask first(int count) { return count >= 16 ? 0xffff : static_cast<Mask>((1u << count) - 1); }
  static F zero() { return _mm512_setzero_ps(); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const float* p, Mask lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
  static void store(float* p, F a, Mask lanes) { _mm512_mask_storeu_ps(p, lanes, a); }
  static F splat(const float* p) { return _mm512_set1_ps(*p); }
  static F splat(float a) { return _mm512_set1_ps(a); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F madd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F four(const float* p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
  template <int I>
  static F pick(F four) {
    return _mm512_permute_ps(four, 0x55 * I);
  }
  // Whether V x W sums and a column leave registers for the record after it.
  static constexpr bool roomy(int v, int w) { return v * w + w < 30; }
  template <int V, int W>
  static SPARSECORE_INLINE void settle(F (&)[V][W]) {}
  // Lane j of the result is the sum of the lanes of sums[j].
  static SPARSECORE_INLINE F reduce(F (&sums)[16]) {
    for (int i = 0; i < 8; ++i)
      sums[i] = add(_mm512_unpacklo_ps(sums[2 * i], sums[2 * i + 1]), _mm512_unpackhi_ps(sums[2 * i], sums[2 * i + 1]));
    for (int i = 0; i < 4; ++i) {
      const __m512d a = _mm512_castps_pd(sums[2 * i]), b = _mm512_castps_pd(sums[2 * i + 1]);
      sums[i] = add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    // Register i now holds sums 4 i .. 4 i + 3 of each quarter.
    for (int i = 0; i < 2; ++i)
      sums[i] = add(_mm512_shuffle_f32x4(sums[2 * i], sums[2 * i + 1], 0x88),
                    _mm512_shuffle_f32x4(sums[2 * i], sums[2 * i + 1], 0xdd));
    return add(_mm512_shuffle_f32x4(sums[0], sums[1], 0x88), _mm512_shuffle_f32x4(sums[0], sums[1], 0xdd));
  }
  static SPARSECORE_INLINE void add_to(float* out, F sum, int64_t count, bool accumulate) {
    const Mask lanes = first(static_cast<int>(count));
    if (accumulate) sum = add(sum, load(out, lanes));
    store(out, sum, lanes);
  }
};

void tile(const Tile& tile) {
  if (tile.lanes <= few_lanes(tile.rows)) return tile_of_few(tile);
  switch (tile.rows) {
    case 1: return run_width<Lanes16, 1, 10>(tile);
    case 2: return run_width<Lanes16, 2, 8>(tile);
    case 4: return run_width<Lanes16, 4, 6>(tile);
    case 8:
      return tile.lanes <= 48 * tile.tiles ? run_width<Lanes16, 8, 3>(tile) : run_width<Lanes16, 4, 6, true>(tile);
    default:
      return tile.lanes <= 48 * tile.tiles ? run_width<Lanes16, 8, 3, true>(tile)
                                           : run_width<Lanes16, 4, 6, true>(tile);
  }
}

// One or two rows: the beginning and end of a list cost as much as some records, whatever the width, so that a tile is
// as wide as leaves two sets of sums and the weights in registers, and its panel in the level 2 cache if need be. Wider
// groups are limited by registers: 8 rows x 3 spend the fewest loads on a product, 4 x 6 twice the list of a group of
// 8, but write y in longer runs.
int max_lanes(int rows, int depth, bool write_bound) {
  if (rows >= 8 && !write_bound) return 48;
  if (rows >= 4) return 96;
  const int registers = 160 * 1024 / (64 * depth), most = rows == 1 ? 10 : 8;
  return 16 * (registers < 1 ? 1 : registers > most ? most : registers);
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, float* panel) {
  row_lists::avx512::kKernel.pack(x, dtype, x_row_stride, tokens, columns, lanes, panel);
}

template <typename T>
void widen_as(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) _mm512_storeu_ps(to + i, row_lists::load16(from + i, 0xffff));
  const __mmask16 rest = row_lists::first(count - i);
  _mm512_mask_storeu_ps(to + i, rest, row_lists::load16(from + i, rest));
}

void widen(const void* from, DType dtype, int64_t count, float* to) {
  switch (dtype) {
    case DType::kBFloat16: return widen_as(static_cast<const BFloat16*>(from), count, to);
    case DType::kFloat16: return widen_as(static_cast<const Float16*>(from), count, to);
    case DType::kInt8: return widen_as(static_cast<const int8_t*>(from), count, to);
    default: return widen_as(static_cast<const float*>(from), count, to);
  }
}

}  // namespace

const Kernel kKernel = {Isa::kAvx512,
                        "avx512::group_lists",
                        "float32 bfloat16 float16 int8",
                        16,
                        true,
                        max_lanes,
                        tile,
                        pack,
                        row_lists::avx512::unpack,
                        widen,
                        64,
                        GradientLoop<Lanes16>::run,
                        few_lanes,
                        true};

}  // namespace sparsecore::group_lists::avx512

// Row lists with bfloat16 weights and activations on cores whose vdpbf16ps is fast: two places of a list at a time.
//
//   sums[lane] += w[i] * x[offset i][lane] + w[i + 1] * x[offset i + 1][lane]        products exact, sums float32
//
// The two rows of the panel are interleaved on the way, one shuffle for 16 products more than float32 needs; in return
// a row takes half the loads and half of the level 1 cache. A panel row holds its tokens in groups of 32:
//
//   quarter q of a register: tokens 4 q .. 4 q + 3, then 16 + 4 q .. 16 + 4 q + 3
//
// so that interleaving the low and the high halves of the quarters gives tokens 0 .. 15 and 16 .. 31 in order. A last
// place without a partner is interleaved with zeros, not with a zero weight, which an infinity would turn into NaN.
#include <immintrin.h>

#include "cpu/row_lists/row_lists.h"
#include "cpu/row_lists/transpose_avx512.h"
#include "sparsecore/cpu.h"

namespace sparsecore::row_lists::avx512_bf16 {
namespace {

constexpr int kGroup = 32;

void pack(const void* x, DType, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel) {
  const BFloat16* from = static_cast<const BFloat16*>(x);
  uint16_t* to = static_cast<uint16_t*>(panel);
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  for (int t = 0; t < lanes; t += kGroup)
    for (int c = 0; c < columns; c += 16) {
      const __mmask16 present = first(columns - c);
      __m256i halves[2][16];
      for (int half = 0; half < 2; ++half) {
        __m512 r[16];
        const int row = t + 16 * half;
        for (int i = 0; i < 16; ++i)
          r[i] = row + i < tokens ? load16(from + (row + i) * x_row_stride + c, present) : _mm512_setzero_ps();
        transpose16(r);
        for (int i = 0; i < 16; ++i)  // exact: the lower sixteen bits are zero
          halves[half][i] = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(r[i]), 16));
      }
      for (int i = 0; i < 16 && c + i < columns; ++i) {
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(halves[0][i]), halves[1][i], 1);
        _mm512_storeu_si512(to + static_cast<int64_t>(c + i) * lanes + t, _mm512_permutexvar_epi64(order, both));
      }
    }
}

// G: groups of 32 tokens.
template <int G>
struct PairLoop {
  static constexpr int kWidth = G * kGroup;

  // Places i and i + 1, the weights of both in every 32 bits of `weights`; or place i alone.
  template <bool Alone = false>
  static inline __attribute__((always_inline)) void add_pair(__m512i weights, const uint16_t* x, const uint16_t* next,
                                                             __m512 (&sums)[2 * G]) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const __m512i a = _mm512_loadu_si512(x + g * kGroup),
                    b = Alone ? _mm512_setzero_si512() : _mm512_loadu_si512(next + g * kGroup);
      const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
      sums[2 * g] = _mm512_dpbf16_ps(sums[2 * g], (__m512bh)low, (__m512bh)weights);
      sums[2 * g + 1] = _mm512_dpbf16_ps(sums[2 * g + 1], (__m512bh)high, (__m512bh)weights);
    }
  }

  static inline __attribute__((always_inline)) void add_list(const uint16_t* values, const uint8_t* offsets,
                                                             int64_t count, const uint16_t* panel, float* out,
                                                             bool accumulate) {
    const auto row = [&](int64_t i) { return panel + static_cast<int64_t>(offsets[i]) * kWidth; };
    __m512 even[2 * G], odd[2 * G];
#pragma GCC unroll 8
    for (int v = 0; v < 2 * G; ++v) {
      even[v] = accumulate ? _mm512_loadu_ps(out + 16 * v) : _mm512_setzero_ps();
      odd[v] = _mm512_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      const __m512i four = _mm512_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(values + i)));
      add_pair(_mm512_shuffle_epi32(four, _MM_PERM_AAAA), row(i), row(i + 1), even);
      add_pair(_mm512_shuffle_epi32(four, _MM_PERM_BBBB), row(i + 2), row(i + 3), odd);
    }
    if ((count - i) & 2) {
      add_pair(_mm512_set1_epi32(values[i] | static_cast<int>(static_cast<uint32_t>(values[i + 1]) << 16)), row(i),
               row(i + 1), even);
      i += 2;
    }
    if (i < count) add_pair<true>(_mm512_set1_epi32(values[i]), row(i), nullptr, odd);
#pragma GCC unroll 8
    for (int v = 0; v < 2 * G; ++v) _mm512_storeu_ps(out + 16 * v, _mm512_add_ps(even[v], odd[v]));
  }

  static void run(const Tile& tile) {
    const uint16_t* values = static_cast<const uint16_t*>(tile.lists.values);
    const uint16_t* panel = static_cast<const uint16_t*>(tile.panel);
    for (int64_t o = 0; o < tile.lists.channels; ++o) {
      const int64_t begin = tile.lists.starts[o], count = tile.lists.starts[o + 1] - begin;
      add_list(values + begin, tile.lists.offsets + begin, count, panel, tile.sums + o * kWidth, tile.accumulate);
    }
  }
};

void tile(const Tile& tile) {
  switch (tile.lanes) {
    case 32: return PairLoop<1>::run(tile);
    case 64: return PairLoop<2>::run(tile);
    default: return PairLoop<3>::run(tile);
  }
}

// A panel of 32 KB, at most three groups: a fourth gains nothing.
int max_lanes(int32_t block) {
  constexpr int kPanelHalves = 32 * 1024 / 2;
  const int lanes = kPanelHalves / block / kGroup * kGroup;
  return lanes < 96 ? lanes : 96;
}

bool serves(const LinearIo& io) {
  constexpr int64_t kFewTokens = 16;  // below, half of a tile or more would be empty
  return io.dtype == DType::kBFloat16 && io.weight_dtype == DType::kBFloat16 && io.m > kFewTokens && fast_bf16_dot();
}

}  // namespace

const Kernel kKernel = {Isa::kAvx512Bf16,
                        "avx512_bf16::row_lists",
                        "bfloat16",
                        2,
                        [](int64_t) { return kGroup; },
                        max_lanes,
                        pack,
                        tile,
                        avx512::unpack,
                        0,
                        nullptr,
                        nullptr,
                        serves};

}  // namespace sparsecore::row_lists::avx512_bf16

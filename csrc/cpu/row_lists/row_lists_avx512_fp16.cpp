// Row lists on AVX512-FP16: one to four registers of 32 tokens, see row_lists_half.h.
#include <immintrin.h>

#include "cpu/row_lists/row_lists_half.h"

namespace sparsecore::row_lists::avx512_fp16 {
namespace {

struct Lanes32 {
  using Vec = __m512h;
  using Four = __m512i;
  static constexpr int kLanes = 32;
  static Vec zero() { return _mm512_setzero_ph(); }
  static Vec load(const uint16_t* p) { return _mm512_castsi512_ph(_mm512_loadu_si512(p)); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ph(a, b); }
  static Vec madd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ph(a, b, c); }
  static Four four(const uint32_t* pairs) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs)));
  }
  template <int I>
  static Vec pick(Four four) {
    return _mm512_castsi512_ph(_mm512_shuffle_epi32(four, static_cast<_MM_PERM_ENUM>(0x55 * I)));
  }
  static void add_widened(Vec a, float* sums, bool accumulate) {
    const __m512i bits = _mm512_castph_si512(a);
    __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits)),
           high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1));
    if (accumulate) {
      low = _mm512_add_ps(low, _mm512_loadu_ps(sums));
      high = _mm512_add_ps(high, _mm512_loadu_ps(sums + 16));
    }
    _mm512_storeu_ps(sums, low);
    _mm512_storeu_ps(sums + 16, high);
  }

  static __m256i half16(const Float16* p, __mmask16 lanes) { return _mm256_maskz_loadu_epi16(lanes, p); }
  static __m256i half16(const float* p, __mmask16 lanes) { return narrow16(_mm512_maskz_loadu_ps(lanes, p)); }
  static __m256i half16(const BFloat16* p, __mmask16 lanes) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p));
    return narrow16(_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
  }
  static __m256i half16(const int8_t* p, __mmask16 lanes) {
    return narrow16(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, p))));
  }
  static __m256i narrow16(__m512 a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  template <typename T>
  static void narrow(const T* values, int64_t count, uint32_t* pairs) {
    for (int64_t i = 0; i < count; i += 16) {
      const __mmask16 lanes = count - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (count - i)) - 1);
      const __m512i half = _mm512_cvtepu16_epi32(half16(values + i, lanes));
      _mm512_store_si512(pairs + i, _mm512_or_si512(half, _mm512_slli_epi32(half, 16)));
    }
  }
};

void tile(const Tile& tile) {
  switch (tile.lanes) {
    case 32: return HalfLoop<Lanes32, 1>::run(tile);
    case 64: return HalfLoop<Lanes32, 2>::run(tile);
    case 96: return HalfLoop<Lanes32, 3>::run(tile);
    default: return HalfLoop<Lanes32, 4>::run(tile);
  }
}

// A panel of 32 KB, as on AVX-512, at two bytes a lane.
int max_lanes(int32_t block) {
  constexpr int kPanelHalves = 32 * 1024 / 2;
  const int lanes = kPanelHalves / block / 32 * 32;
  return lanes < 128 ? lanes : 128;
}

bool serves(const LinearIo& io) {
  constexpr int64_t kFewTokens = 16;  // below, half of a tile or more would be empty
  const bool all_half = io.dtype == DType::kFloat16 && io.weight_dtype == DType::kFloat16;
  return (io.compute == Compute::kFloat16 || all_half) && io.m > kFewTokens;
}

}  // namespace

const Kernel kKernel = {Isa::kAvx512Fp16,
                        "avx512_fp16::row_lists",
                        "float32 bfloat16 float16 int8",
                        2,
                        [](int64_t) { return 32; },
                        max_lanes,
                        avx512::pack_half,
                        tile,
                        avx512::unpack,
                        0,
                        nullptr,
                        nullptr,
                        serves};

}  // namespace sparsecore::row_lists::avx512_fp16

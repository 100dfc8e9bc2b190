// Four float lanes: the vocabulary that the NEON and the WebAssembly files share. Loads widen the storage types, stores
// narrow them (round to nearest even, NaN stays NaN), as narrow.h does for one value.
//
// Everything sits in an anonymous namespace, so that a file compiled with wider flags keeps its own copy. madd() is one
// rounding on NEON and under relaxed SIMD where the engine fuses, and two roundings elsewhere.
#pragma once

#include <cstring>

#include "cpu/arch.h"
#include "cpu/each.h"
#include "sparsecore/types.h"

#if defined(SPARSECORE_ARM)
#include <arm_neon.h>
#elif defined(SPARSECORE_WASM)
#include <wasm_simd128.h>
#endif

namespace sparsecore {
namespace {

#if defined(SPARSECORE_ARM)

using Float4 = float32x4_t;

inline Float4 splat4(float value) { return vdupq_n_f32(value); }
inline Float4 load4(const float* p) { return vld1q_f32(p); }
inline Float4 load4(const BFloat16* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16)); }
inline Float4 load4(const Float16* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))); }
inline Float4 load4(const int8_t* p) {
  uint32_t bytes;
  std::memcpy(&bytes, p, 4);
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bytes)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}
inline Float4 load_integers4(const int32_t* p) { return vcvtq_f32_s32(vld1q_s32(p)); }
inline void store4(float* p, Float4 value) { vst1q_f32(p, value); }
inline void store4(BFloat16* p, Float4 value) {
  const uint32x4_t bits = vreinterpretq_u32_f32(value);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  vst1_u16(&p->bits, vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), rounded, quiet), 16));
}
inline void store4(Float16* p, Float4 value) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(value))); }

inline Float4 add4(Float4 a, Float4 b) { return vaddq_f32(a, b); }
inline Float4 sub4(Float4 a, Float4 b) { return vsubq_f32(a, b); }
inline Float4 mul4(Float4 a, Float4 b) { return vmulq_f32(a, b); }
inline Float4 div4(Float4 a, Float4 b) { return vdivq_f32(a, b); }
inline Float4 madd4(Float4 a, Float4 b, Float4 c) { return vfmaq_f32(c, a, b); }  // a * b + c
inline Float4 min4(Float4 a, Float4 b) { return vminq_f32(a, b); }                // NaN wins
inline Float4 max4(Float4 a, Float4 b) { return vmaxq_f32(a, b); }
inline Float4 abs4(Float4 a) { return vabsq_f32(a); }
inline Float4 copy_sign4(Float4 magnitude, Float4 sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
inline Float4 round4(Float4 a) { return vrndnq_f32(a); }
// x at four places.
template <typename Index>
inline Float4 gather4(const float* x, const Index* places) {
  Float4 lanes = vld1q_dup_f32(x + places[0]);
  lanes = vld1q_lane_f32(x + places[1], lanes, 1);
  lanes = vld1q_lane_f32(x + places[2], lanes, 2);
  return vld1q_lane_f32(x + places[3], lanes, 3);
}
// Four rows become four columns.
inline void transpose4(Float4& a, Float4& b, Float4& c, Float4& d) {
  const float64x2_t ab_even = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
  const float64x2_t cd_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d)), cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
  a = vreinterpretq_f32_f64(vzip1q_f64(ab_even, cd_even));
  b = vreinterpretq_f32_f64(vzip1q_f64(ab_odd, cd_odd));
  c = vreinterpretq_f32_f64(vzip2q_f64(ab_even, cd_even));
  d = vreinterpretq_f32_f64(vzip2q_f64(ab_odd, cd_odd));
}
// 2^n for whole n in [-126, 127].
inline Float4 power_of_two4(Float4 n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}

#elif defined(SPARSECORE_WASM)

using Float4 = v128_t;

inline Float4 splat4(float value) { return wasm_f32x4_splat(value); }
inline Float4 load4(const float* p) { return wasm_v128_load(p); }
inline Float4 load4(const BFloat16* p) { return wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16); }
inline Float4 load4(const Float16* p) {
  const v128_t half = wasm_u32x4_load16x4(p);
  const v128_t sign = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_const_splat(0x8000)), 16);
  const v128_t shifted = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_const_splat(0x7fff)), 13);
  const v128_t exponent = wasm_v128_and(shifted, wasm_i32x4_const_splat(0x0f800000));
  const v128_t rebias = wasm_i32x4_const_splat(112 << 23);
  const v128_t normal = wasm_i32x4_add(shifted, rebias);
  // Infinity and NaN move to the top exponent; a denormal becomes 2^-14 + fraction, and the 2^-14 goes again.
  const v128_t extra = wasm_v128_and(wasm_i32x4_eq(exponent, wasm_i32x4_const_splat(0x0f800000)), rebias);
  const v128_t offset = wasm_f32x4_const_splat(6.103515625e-05f);
  const v128_t tiny = wasm_f32x4_sub(wasm_i32x4_add(normal, wasm_i32x4_const_splat(1 << 23)), offset);
  const v128_t is_tiny = wasm_i32x4_eq(exponent, wasm_i32x4_const_splat(0));
  return wasm_v128_or(sign, wasm_v128_bitselect(tiny, wasm_i32x4_add(normal, extra), is_tiny));
}
inline Float4 load4(const int8_t* p) {
  return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p))));
}
inline Float4 load_integers4(const int32_t* p) { return wasm_f32x4_convert_i32x4(wasm_v128_load(p)); }
inline void store4(float* p, Float4 value) { wasm_v128_store(p, value); }
inline void store_low16(void* p, v128_t value) {
  wasm_v128_store64_lane(p, wasm_i8x16_shuffle(value, value, 0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13), 0);
}
inline void store4(BFloat16* p, Float4 value) {
  const v128_t odd = wasm_v128_and(wasm_u32x4_shr(value, 16), wasm_i32x4_const_splat(1));
  const v128_t rounded = wasm_i32x4_add(wasm_i32x4_add(value, wasm_i32x4_const_splat(0x7fff)), odd);
  const v128_t quiet = wasm_v128_or(value, wasm_i32x4_const_splat(0x400000));
  store_low16(p, wasm_u32x4_shr(wasm_v128_bitselect(rounded, quiet, wasm_f32x4_eq(value, value)), 16));
}
inline void store4(Float16* p, Float4 value) {
  const v128_t sign = wasm_v128_and(wasm_u32x4_shr(value, 16), wasm_i32x4_const_splat(0x8000));
  const v128_t bits = wasm_v128_and(value, wasm_i32x4_const_splat(0x7fffffff));
  const v128_t odd = wasm_v128_and(wasm_u32x4_shr(bits, 13), wasm_i32x4_const_splat(1));
  const v128_t rebased = wasm_i32x4_add(bits, wasm_i32x4_const_splat(0xfff - (112 << 23)));
  const v128_t normal = wasm_u32x4_shr(wasm_i32x4_add(rebased, odd), 13);
  // Below 2^-14 the sum with 0.5 rounds at the last place of a half.
  const v128_t half = wasm_f32x4_const_splat(0.5f);
  const v128_t tiny = wasm_i32x4_sub(wasm_f32x4_add(bits, half), half);
  const v128_t fraction = wasm_v128_and(wasm_u32x4_shr(bits, 13), wasm_i32x4_const_splat(0x3ff));
  const v128_t nan = wasm_v128_or(fraction, wasm_i32x4_const_splat(0x7e00));
  v128_t result = wasm_v128_bitselect(tiny, normal, wasm_i32x4_lt(bits, wasm_i32x4_const_splat(0x38800000)));
  result = wasm_v128_bitselect(wasm_i32x4_const_splat(0x7c00), result,
                               wasm_i32x4_ge(bits, wasm_i32x4_const_splat(0x477ff000)));
  result = wasm_v128_bitselect(nan, result, wasm_i32x4_gt(bits, wasm_i32x4_const_splat(0x7f800000)));
  store_low16(p, wasm_v128_or(sign, result));
}

inline Float4 add4(Float4 a, Float4 b) { return wasm_f32x4_add(a, b); }
inline Float4 sub4(Float4 a, Float4 b) { return wasm_f32x4_sub(a, b); }
inline Float4 mul4(Float4 a, Float4 b) { return wasm_f32x4_mul(a, b); }
inline Float4 div4(Float4 a, Float4 b) { return wasm_f32x4_div(a, b); }
inline Float4 madd4(Float4 a, Float4 b, Float4 c) {
#if defined(__wasm_relaxed_simd__)
  return wasm_f32x4_relaxed_madd(a, b, c);
#else
  return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
#endif
}
// The second operand comes back unless the first is on the wanted side of it: a NaN in `b` passes.
inline Float4 min4(Float4 a, Float4 b) { return wasm_f32x4_pmin(b, a); }
inline Float4 max4(Float4 a, Float4 b) { return wasm_f32x4_pmax(b, a); }
inline Float4 abs4(Float4 a) { return wasm_f32x4_abs(a); }
inline Float4 copy_sign4(Float4 magnitude, Float4 sign) {
  return wasm_v128_bitselect(sign, magnitude, wasm_i32x4_const_splat(INT32_MIN));
}
inline Float4 round4(Float4 a) { return wasm_f32x4_nearest(a); }
template <typename Index>
inline Float4 gather4(const float* x, const Index* places) {
  Float4 lanes = wasm_v128_load32_zero(x + places[0]);
  lanes = wasm_v128_load32_lane(x + places[1], lanes, 1);
  lanes = wasm_v128_load32_lane(x + places[2], lanes, 2);
  return wasm_v128_load32_lane(x + places[3], lanes, 3);
}
inline void transpose4(Float4& a, Float4& b, Float4& c, Float4& d) {
  const v128_t ab_low = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), ab_high = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7);
  const v128_t cd_low = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), cd_high = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
  a = wasm_i64x2_shuffle(ab_low, cd_low, 0, 2);
  b = wasm_i64x2_shuffle(ab_low, cd_low, 1, 3);
  c = wasm_i64x2_shuffle(ab_high, cd_high, 0, 2);
  d = wasm_i64x2_shuffle(ab_high, cd_high, 1, 3);
}
inline Float4 power_of_two4(Float4 n) {
  return wasm_i32x4_shl(wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_const_splat(127)), 23);
}

#endif

#if defined(SPARSECORE_WASM)
// Loads stay on their side of it and no instruction is made. Without it the compiler lifts all broadcasts of a tile to
// the top of the loop, and the sums spill.
inline void keep_order() { __asm__ volatile("" ::: "memory"); }
#endif

// One to Count neighbouring floats, each to be multiplied with whole vectors. NEON loads them side by side and
// multiplies by lane; WebAssembly broadcasts each where it is used.
template <size_t Count>
class Scalars {
#if defined(SPARSECORE_ARM)
 public:
  explicit Scalars(const float* p) {
    each<Count / 4>([&]<size_t i>() { quads_[i] = vld1q_f32(p + 4 * i); });
    constexpr size_t kRest = Count % 4;
    if constexpr (kRest >= 2) quads_[Count / 4] = vcombine_f32(vld1_f32(p + Count / 4 * 4), vdup_n_f32(0.0f));
    if constexpr (kRest == 3) quads_[Count / 4] = vld1q_lane_f32(p + Count - 1, quads_[Count / 4], 2);
    if constexpr (kRest == 1) quads_[Count / 4] = vld1q_dup_f32(p + Count - 1);
  }
  // vector * scalar[Index] + sum
  template <size_t Index>
  Float4 madd(Float4 vector, Float4 sum) const {
    return vfmaq_laneq_f32(sum, vector, quads_[Index / 4], Index % 4);
  }
  void next() const {}

 private:
  Float4 quads_[(Count + 3) / 4];
#else
 public:
  explicit Scalars(const float* p) : p_(p) {}
  template <size_t Index>
  Float4 madd(Float4 vector, Float4 sum) const {
    return madd4(splat4(p_[Index]), vector, sum);
  }
  void next() const { keep_order(); }

 private:
  const float* p_;
#endif
};

}  // namespace
}  // namespace sparsecore

// Quantising tokens on four lanes, by the rule of quantise.h; shared by the NEON and the WebAssembly int8 files.
#pragma once

#include "cpu/panel_lanes4.h"
#include "cpu/quantise.h"

namespace sparsecore::shared_lists {
namespace {

#if defined(SPARSECORE_ARM)
using Int4 = int32x4_t;
inline Int4 zero_int4() { return vdupq_n_s32(0); }
inline Int4 load_int4(const int32_t* p) { return vld1q_s32(p); }
inline void store_int4(int32_t* p, Int4 value) { vst1q_s32(p, value); }
inline Int4 magnitude_bits(Float4 x) { return vreinterpretq_s32_f32(vabsq_f32(x)); }
inline Int4 max_int4(Int4 a, Int4 b) { return vmaxq_s32(a, b); }
inline Int4 nearest_int4(Float4 x) { return vcvtnq_s32_f32(x); }  // ties to even; NaN becomes 0
inline Float4 to_float4(Int4 x) { return vcvtq_f32_s32(x); }
#elif defined(SPARSECORE_WASM)
using Int4 = v128_t;
inline Int4 zero_int4() { return wasm_i32x4_const_splat(0); }
inline Int4 load_int4(const int32_t* p) { return wasm_v128_load(p); }
inline void store_int4(int32_t* p, Int4 value) { wasm_v128_store(p, value); }
inline Int4 magnitude_bits(Float4 x) { return wasm_f32x4_abs(x); }
inline Int4 max_int4(Int4 a, Int4 b) { return wasm_i32x4_max(a, b); }
inline Int4 nearest_int4(Float4 x) { return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(x)); }
inline Float4 to_float4(Int4 x) { return wasm_f32x4_convert_i32x4(x); }
#endif

template <typename T>
TokenScale scale_of(const T* row, int64_t k) {
  Int4 largest = zero_int4();
  int64_t c = 0;
  for (; c + 4 <= k; c += 4) largest = max_int4(largest, magnitude_bits(load4(row + c)));
  if (c < k) largest = max_int4(largest, magnitude_bits(load_some4(row + c, k - c)));
  int32_t lanes[4], result = 0;
  store_int4(lanes, largest);
  for (const int32_t lane : lanes) result = lane > result ? lane : result;
  return token_scale(static_cast<uint32_t>(result));
}

}  // namespace
}  // namespace sparsecore::shared_lists

// int8 products on NEON: SDOT adds four signed products to each of 4 lanes. Half a row of sums, 32 pixels, is eight
// registers; two rows share the activations. Lanes keep their order.
#include <arm_neon.h>

#include "cpu/group_lists/dot.h"
#include "cpu/narrow.h"

namespace sparsecore::group_lists::neon_dot {
namespace {

constexpr int kHalf = kDotLanes / 2;
constexpr int kRegisters = kHalf / 4;

float32x4_t load(const float* p) { return vld1q_f32(p); }
float32x4_t load(const BFloat16* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16));
}
float32x4_t load(const Float16* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
}

template <typename T>
uint32_t largest_of(const T* x, int64_t count) {
  uint32x4_t found = vdupq_n_u32(0);
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) found = vmaxq_u32(found, vreinterpretq_u32_f32(vabsq_f32(load(x + i))));
  if (i < count) {
    T rest[4] = {};
    for (int64_t j = i; j < count; ++j) rest[j - i] = x[j];
    found = vmaxq_u32(found, vreinterpretq_u32_f32(vabsq_f32(load(rest))));
  }
  return vmaxvq_u32(found);
}

uint32_t largest(const void* x, DType dtype, int64_t count) {
  switch (dtype) {
    case DType::kBFloat16: return largest_of(static_cast<const BFloat16*>(x), count);
    case DType::kFloat16: return largest_of(static_cast<const Float16*>(x), count);
    default: return largest_of(static_cast<const float*>(x), count);
  }
}

int16x4_t quantise4(const float* x, const float* inverse) {
  const float32x4_t scaled = vmulq_f32(vld1q_f32(x), vld1q_f32(inverse)), low = vdupq_n_f32(-127.0f);
  // Not greater, or not a number: the bound.
  const float32x4_t above = vbslq_f32(vcgtq_f32(scaled, low), scaled, low);
  return vmovn_s32(vcvtnq_s32_f32(vminq_f32(above, vdupq_n_f32(127.0f))));
}

int8x16_t quantise16(const float* x, const float* inverse) {
  const int16x8_t low = vcombine_s16(quantise4(x, inverse), quantise4(x + 4, inverse + 4)),
                  high = vcombine_s16(quantise4(x + 8, inverse + 8), quantise4(x + 12, inverse + 12));
  return vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

// Quads of four rows of 16 bytes, four pixels a register.
inline void zip_quads(int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d, int8x16_t* quads) {
  const int16x8_t ab_low = vreinterpretq_s16_s8(vzip1q_s8(a, b)), ab_high = vreinterpretq_s16_s8(vzip2q_s8(a, b)),
                  cd_low = vreinterpretq_s16_s8(vzip1q_s8(c, d)), cd_high = vreinterpretq_s16_s8(vzip2q_s8(c, d));
  quads[0] = vreinterpretq_s8_s16(vzip1q_s16(ab_low, cd_low));
  quads[1] = vreinterpretq_s8_s16(vzip2q_s16(ab_low, cd_low));
  quads[2] = vreinterpretq_s8_s16(vzip1q_s16(ab_high, cd_high));
  quads[3] = vreinterpretq_s8_s16(vzip2q_s16(ab_high, cd_high));
}

void quantise(const float* x, const float* inverse, int columns, bool together, uint8_t* panel) {
  int8_t* to = reinterpret_cast<int8_t*>(panel);
  for (int c = 0; c < columns; c += together ? 4 : 1)
    for (int lane = 0; lane < kDotLanes; lane += 16) {
      const float* from = x + c * kDotLanes + lane;
      if (!together) {
        vst1q_s8(to + c * kDotLanes + lane, quantise16(from, inverse + lane));
        continue;
      }
      int8x16_t quads[4];
      zip_quads(quantise16(from, inverse + lane), quantise16(from + kDotLanes, inverse + lane),
                quantise16(from + 2 * kDotLanes, inverse + lane), quantise16(from + 3 * kDotLanes, inverse + lane),
                quads);
      for (int j = 0; j < 4; ++j) vst1q_s8(to + c * kDotLanes + lane * 4 + 16 * j, quads[j]);
    }
}

// kRows rows of every place from row `first` on, over the pixels from `lane` on.
template <int kRows, bool kTogether>
void rows_of(const DotTile& a, int first, int lane) {
  const int8_t* panel = reinterpret_cast<const int8_t*>(a.panel);
  for (int64_t p = 0; p < a.places; ++p) {
    const int64_t channel = int64_t{a.order[p]} * a.rows + first;
    int32_t* out = a.sums + channel * kDotLanes + lane;
    int32x4_t sums[kRows][kRegisters];
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < kRegisters; ++j)
        sums[r][j] = a.accumulate ? vld1q_s32(out + r * kDotLanes + 4 * j) : vdupq_n_s32(a.start[channel + r]);
    for (int64_t q = a.starts[p]; q < a.starts[p + 1]; ++q) {
      int8x16_t x[kRegisters];
      if constexpr (kTogether) {
        const int8_t* from = panel + (int64_t{a.columns[q]} * kDotLanes + lane) * 4;
        for (int j = 0; j < kRegisters; ++j) x[j] = vld1q_s8(from + 16 * j);
      } else {
        const uint16_t* columns = a.columns + q * 4;
        for (int j = 0; j < kRegisters; j += 4) {
          const auto sixteen = [&](int i) { return vld1q_s8(panel + int64_t{columns[i]} * kDotLanes + lane + 4 * j); };
          zip_quads(sixteen(0), sixteen(1), sixteen(2), sixteen(3), x + j);
        }
      }
      for (int r = 0; r < kRows; ++r) {
        const int8x16_t w = vreinterpretq_s8_s32(vdupq_n_s32(a.weights[q * a.rows + first + r]));
        for (int j = 0; j < kRegisters; ++j) sums[r][j] = vdotq_s32(sums[r][j], x[j], w);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < kRegisters; ++j) vst1q_s32(out + r * kDotLanes + 4 * j, sums[r][j]);
  }
}

template <bool kTogether>
void tile_rows(const DotTile& a) {
  for (int lane = 0; lane < kDotLanes; lane += kHalf) {
    if (a.rows == 1)
      rows_of<1, kTogether>(a, 0, lane);
    else
      for (int first = 0; first < a.rows; first += 2) rows_of<2, kTogether>(a, first, lane);
  }
}

void tile(const DotTile& a) { a.together ? tile_rows<true>(a) : tile_rows<false>(a); }

void finish(const DotFinish& a) {
  for (int64_t c = 0; c < a.channels; ++c)
    for (int lane = 0; lane < kDotLanes; lane += 4) {
      int32_t* at = a.sums + c * kDotLanes + lane;
      float32x4_t value =
          vmulq_f32(vcvtq_f32_s32(vld1q_s32(at)), vmulq_n_f32(vld1q_f32(a.lane_scale + lane), a.scale[c]));
      if (a.bias) value = vaddq_f32(value, vdupq_n_f32(a.bias[c]));
      if (a.residual) value = vaddq_f32(value, vld1q_f32(a.residual + c * kDotLanes + lane));
      vst1q_f32(reinterpret_cast<float*>(at), value);
    }
}

}  // namespace

const DotKernel kInt8 = {Isa::kNeonDot, "neon_dot::group_lists_int8", 0, largest, quantise, tile, finish};

}  // namespace sparsecore::group_lists::neon_dot

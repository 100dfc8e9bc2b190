// Scalar widening and narrowing of the storage types; round to nearest even, NaN stays NaN. Only for scalar files and
// portable drivers: instruction-set files use their own instructions.
#pragma once

#include <cmath>
#include <cstring>

#include "sparsecore/types.h"

namespace sparsecore {

namespace {

inline float widen(float value) { return value; }
inline float widen(int8_t value) { return value; }
inline float widen(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline float widen(Float16 value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16, exponent = (value.bits >> 10) & 31u,
                 fraction = value.bits & 1023u;
  uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | (fraction << 13);
  } else if (exponent) {
    bits = sign | ((exponent + 112) << 23) | (fraction << 13);
  } else {
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -magnitude : magnitude;
  }
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline void narrow(float value, float* out) { *out = value; }
inline void narrow(float value, BFloat16* out) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    out->bits = static_cast<uint16_t>((bits >> 16) | 0x40u);
    return;
  }
  out->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline void narrow(float value, Float16* out) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {
    const uint32_t rebased = magnitude - 0x38000000u;
    half = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
  } else {
    float absolute;
    std::memcpy(&absolute, &magnitude, 4);
    half = static_cast<uint32_t>(std::nearbyint(std::ldexp(absolute, 24)));
  }
  out->bits = static_cast<uint16_t>(sign | half);
}

}  // namespace

}  // namespace sparsecore

// The number formats of the tensor cores, as bits and as values.
//
// decode is exact: every value of every format here is a float. encode rounds to nearest, ties to even. A format has
// E exponent and M mantissa bits, bias 2^(E-1) - 1, gradual underflow, and one of two rules for what lies above:
//   IEEE        the largest exponent means infinity (mantissa 0) or NaN; overflow becomes infinity
//   saturating  cvt's .satfinite, for both 8-bit formats: overflow and infinity become the largest finite value
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace cuda_emulation {

template <int kExponentBits, int kMantissaBits>
struct IeeeFormat {
  static constexpr int bits = 1 + kExponentBits + kMantissaBits;
  static constexpr int bias = (1 << (kExponentBits - 1)) - 1;
  static constexpr uint32_t mantissa_mask = (1u << kMantissaBits) - 1;
  static constexpr uint32_t exponent_mask = (1u << kExponentBits) - 1;

  static float decode(uint32_t word) {
    const uint32_t sign = (word >> (bits - 1) & 1) << 31;
    const uint32_t exponent = word >> kMantissaBits & exponent_mask, mantissa = word & mantissa_mask;
    if (exponent == exponent_mask) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << (23 - kMantissaBits));
    if (exponent != 0) {
      return std::bit_cast<float>(sign | (exponent + 127 - bias) << 23 | mantissa << (23 - kMantissaBits));
    }
    const float magnitude = std::ldexp(static_cast<float>(mantissa), 1 - bias - kMantissaBits);
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }

  static uint32_t encode(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value), sign = word >> 31 << (bits - 1);
    const uint32_t infinity = exponent_mask << kMantissaBits;
    if (std::isnan(value)) return infinity | mantissa_mask;
    const uint32_t magnitude = round_magnitude(std::fabs(value));
    return sign | (magnitude < infinity ? magnitude : infinity);
  }

  // The magnitude in units of the format: exponent and mantissa as one number, which overflow carries onwards.
  static uint32_t round_magnitude(float magnitude) {
    if (magnitude == 0) return 0;
    if (std::isinf(magnitude)) return exponent_mask << kMantissaBits;
    int exponent;
    std::frexp(magnitude, &exponent);
    exponent = exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;
    const double scaled = std::ldexp(static_cast<double>(magnitude), kMantissaBits - exponent);
    const uint64_t units = static_cast<uint64_t>(std::nearbyint(scaled));
    // A normal number's leading bit counts into the exponent field: exponent + bias - 1, and 1 from the leading bit.
    return static_cast<uint32_t>((static_cast<uint64_t>(exponent + bias - 1) << kMantissaBits) + units);
  }
};

using Bf16 = IeeeFormat<8, 7>;
using Fp16 = IeeeFormat<5, 10>;

struct Fp8E5M2 : IeeeFormat<5, 2> {
  static uint32_t encode_saturating(float value) {
    const uint32_t sign = std::bit_cast<uint32_t>(value) >> 31 << 7;
    if (std::isnan(value)) return 0x7f;
    const uint32_t magnitude = round_magnitude(std::fabs(value));
    return sign | (magnitude > 0x7b ? 0x7b : magnitude);
  }
};

// No infinity: the largest exponent is an ordinary one, and only its last mantissa is NaN. The largest value is 448.
struct Fp8E4M3 {
  static constexpr int bits = 8;
  static float decode(uint32_t word) {
    if ((word & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
    const float magnitude = (word & 0x78) == 0 ? std::ldexp(static_cast<float>(word & 7), -9)
                                               : std::ldexp(static_cast<float>(8 + (word & 7)), (word >> 3 & 15) - 10);
    return word & 0x80 ? -magnitude : magnitude;
  }
  static uint32_t encode_saturating(float value) {
    const uint32_t sign = std::bit_cast<uint32_t>(value) >> 31 << 7;
    if (std::isnan(value)) return 0x7f;
    const uint32_t magnitude = std::isinf(value) ? 0x7e : IeeeFormat<4, 3>::round_magnitude(std::fabs(value));
    return sign | (magnitude > 0x7e ? 0x7e : magnitude);
  }
};

// The tensor cores look at the sign, 8 exponent and 10 mantissa bits.
struct Tf32 {
  static constexpr int bits = 32;
  static float decode(uint32_t word) { return std::bit_cast<float>(word & 0xffffe000u); }
};

struct Int8 {
  static constexpr int bits = 8;
  static int32_t decode(uint32_t word) { return static_cast<int8_t>(word & 0xff); }
};

}  // namespace cuda_emulation

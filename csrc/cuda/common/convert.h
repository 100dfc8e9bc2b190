// Element types to float and back, alone and packed into registers. Widening is exact; narrowing rounds to nearest,
// ties to even, and stays in range for 8-bit floats (what is too large becomes the largest value). In a packed register
// the first value has the low bits. 8-bit floats need sm_89.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/device.h"
#include "cuda/common/elements.h"

namespace sparsecore::ptx {

SC_DEVICE float to_float(BFloat16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }
SC_DEVICE float to_float(Float16 value) {
#if SC_EMULATED
  return cuda_emulation::Fp16::decode(value.bits);
#else
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#endif
}
SC_DEVICE float to_float(float value) { return value; }

// Two values from one register: all of it for a 16-bit type, its low half for an 8-bit type (through fp16, which holds
// every value of both formats).
template <class T>
SC_DEVICE float2 unpack2(uint32_t packed) {
  if constexpr (sizeof(T) == 2) {
    return {to_float(T{static_cast<uint16_t>(packed)}), to_float(T{static_cast<uint16_t>(packed >> 16)})};
  } else {
#if SC_EMULATED
    using Format = typename Element<T>::Format;
    return {Format::decode(packed & 0xff), Format::decode(packed >> 8 & 0xff)};
#else
    uint32_t halves = 0;
    if constexpr (kInstructionsMissing<T>) {
      __trap();
    } else if constexpr (std::is_same_v<T, Float8E4M3>) {
      asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(packed)));
    } else {
      static_assert(std::is_same_v<T, Float8E5M2>, "unpack2 has no such element type");
      asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(packed)));
    }
    return unpack2<Float16>(halves);
#endif
  }
}

// Two values into one register of a 16-bit type, or into the low half of one of an 8-bit type.
template <class T>
SC_DEVICE uint32_t pack2(float first, float second) {
#if SC_EMULATED
  using Format = typename Element<T>::Format;
  if constexpr (sizeof(T) == 2) {
    return Format::encode(first) | Format::encode(second) << 16;
  } else {
    return Format::encode_saturating(first) | Format::encode_saturating(second) << 8;
  }
#else
  if constexpr (kInstructionsMissing<T>) {
    __trap();
    return 0;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
    return packed;
  } else if constexpr (std::is_same_v<T, Float16>) {
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
    return packed;
  } else if constexpr (std::is_same_v<T, Float8E4M3>) {
    uint16_t packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(second), "f"(first));
    return packed;
  } else {
    static_assert(std::is_same_v<T, Float8E5M2>, "pack2 has no such element type");
    uint16_t packed;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(second), "f"(first));
    return packed;
  }
#endif
}

template <class T>
SC_DEVICE T from_float(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return T{static_cast<uint16_t>(pack2<T>(value, 0.0f))};
  } else {
    return T{static_cast<uint8_t>(pack2<T>(value, 0.0f))};
  }
}

}  // namespace sparsecore::ptx

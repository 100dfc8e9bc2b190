// Element types of the tensor cores, what each is summed in, and what the emulator calls it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/device.h"
#include "sparsecore/types.h"
#if SC_EMULATED
#include "cuda/emulation/instructions/number_formats.h"
#endif

namespace sparsecore {

// Storage only, the 8-bit formats of OCP: E4M3 has no infinity and one NaN (0x7f, either sign), E5M2 is a short fp16.
struct Float8E4M3 {
  uint8_t bits;
};
struct Float8E5M2 {
  uint8_t bits;
};
// A float of which the tensor cores read the upper 19 bits.
struct TFloat32 {
  uint32_t bits;
};

#if SC_EMULATED
template <class T>
struct Element {};
template <>
struct Element<BFloat16> {
  using Format = cuda_emulation::Bf16;
};
template <>
struct Element<Float16> {
  using Format = cuda_emulation::Fp16;
};
template <>
struct Element<TFloat32> {
  using Format = cuda_emulation::Tf32;
};
template <>
struct Element<int8_t> {
  using Format = cuda_emulation::Int8;
};
template <>
struct Element<Float8E4M3> {
  using Format = cuda_emulation::Fp8E4M3;
};
template <>
struct Element<Float8E5M2> {
  using Format = cuda_emulation::Fp8E5M2;
};
#endif

// What products of T are summed in.
template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, int8_t>, int32_t, float>;

// Kernels are compiled for every architecture of their file, and for 8-bit floats chosen only from sm_89 on: before it,
// their instructions become a trap.
template <class T>
constexpr bool kInstructionsMissing = false;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
template <>
inline constexpr bool kInstructionsMissing<Float8E4M3> = true;
template <>
inline constexpr bool kInstructionsMissing<Float8E5M2> = true;
#endif

}  // namespace sparsecore

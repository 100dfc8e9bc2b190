// mma.sync: D (16 x 8) = A (16 x k) B (k x 8) + D by one warp, k = 32 bytes: 16 of 16-bit types, 32 of 8-bit ones, 8 of
// tf32. A is row major, B column major (k contiguous); fragments.h says which lane holds what. 8-bit floats need sm_89.
#pragma once

#include <type_traits>

#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#if SC_EMULATED
#include "cuda/emulation/instructions/mma.h"
#endif

namespace sparsecore::ptx {

template <class T>
SC_DEVICE void mma(Accumulator<T> (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if SC_EMULATED
  cuda_emulation::mma<typename Element<T>::Format>(d, a, b);
#else
#define SC_MMA(SHAPE_AND_TYPES, SUM)                                                                        \
  asm volatile("mma.sync.aligned." SHAPE_AND_TYPES " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
               : SUM(d[0]), SUM(d[1]), SUM(d[2]), SUM(d[3])                                                 \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (kInstructionsMissing<T>) {
    __trap();
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    SC_MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "+f");
  } else if constexpr (std::is_same_v<T, Float16>) {
    SC_MMA("m16n8k16.row.col.f32.f16.f16.f32", "+f");
  } else if constexpr (std::is_same_v<T, TFloat32>) {
    SC_MMA("m16n8k8.row.col.f32.tf32.tf32.f32", "+f");
  } else if constexpr (std::is_same_v<T, int8_t>) {
    SC_MMA("m16n8k32.row.col.s32.s8.s8.s32", "+r");
  } else if constexpr (std::is_same_v<T, Float8E4M3>) {
    SC_MMA("m16n8k32.row.col.f32.e4m3.e4m3.f32", "+f");
  } else {
    SC_MMA("m16n8k32.row.col.f32.e5m2.e5m2.f32", "+f");
  }
#undef SC_MMA
#endif
}

}  // namespace sparsecore::ptx

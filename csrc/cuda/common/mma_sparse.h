// mma.sp::ordered_metadata: D (16 x 8) = A (16 x k, 2:4 sparse) B (k x 8) + D by one warp, k = 64 logical bytes: 32 of
// 16-bit types, 64 of 8-bit ones. A holds the stored half, `metadata` each stored element's place in its group of four,
// ascending; fragments.h says which lane brings which word. 16-bit types: `kSelector` 0 or 1 chooses the lanes whose
// words count, so that one word per lane feeds two instructions. 8-bit types: 0. 8-bit floats need sm_89.
#pragma once

#include <type_traits>

#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#if SC_EMULATED
#include "cuda/emulation/instructions/mma.h"
#endif

namespace sparsecore::ptx {

template <class T, int kSelector>
SC_DEVICE void mma_sparse(Accumulator<T> (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata) {
  static_assert(kSelector == 0 || (kSelector == 1 && sizeof(T) == 2), "the selector is 0, or 1 for 16-bit types");
#if SC_EMULATED
  cuda_emulation::mma_sparse<typename Element<T>::Format>(d, a, b, metadata, kSelector);
#else
#define SC_MMA_SPARSE(SHAPE_AND_TYPES, SUM)                                                              \
  asm volatile("mma.sp::ordered_metadata.sync.aligned." SHAPE_AND_TYPES                                  \
               " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, %13;"                \
               : SUM(d[0]), SUM(d[1]), SUM(d[2]), SUM(d[3])                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), \
                 "r"(metadata), "n"(kSelector))
  if constexpr (kInstructionsMissing<T>) {
    __trap();
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    SC_MMA_SPARSE("m16n8k32.row.col.f32.bf16.bf16.f32", "+f");
  } else if constexpr (std::is_same_v<T, Float16>) {
    SC_MMA_SPARSE("m16n8k32.row.col.f32.f16.f16.f32", "+f");
  } else if constexpr (std::is_same_v<T, int8_t>) {
    SC_MMA_SPARSE("m16n8k64.row.col.s32.s8.s8.s32", "+r");
  } else if constexpr (std::is_same_v<T, Float8E4M3>) {
    SC_MMA_SPARSE("m16n8k64.row.col.f32.e4m3.e4m3.f32", "+f");
  } else {
    static_assert(std::is_same_v<T, Float8E5M2>, "mma_sparse has no such element type");
    SC_MMA_SPARSE("m16n8k64.row.col.f32.e5m2.e5m2.f32", "+f");
  }
#undef SC_MMA_SPARSE
#endif
}

}  // namespace sparsecore::ptx

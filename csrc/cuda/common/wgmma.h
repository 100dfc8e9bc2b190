// wgmma: D (64 x n) = A (64 x k) B (k x n) + D by a warpgroup, k = 32 bytes, n = 8, 16, 32, 64, 128 or 256,
// asynchronously.
//
// D is n / 2 registers per thread. A is in shared memory (a descriptor) or in registers (16 rows per warp), B in shared
// memory; both K-major unless said otherwise, which 16-bit types alone may be. With `accumulate` false D is not read.
//
//   wgmma_fence(d);          // after registers of D or A were written, before the first wgmma
//   for each step of k:  wgmma<T>(d, a, b, true);
//   wgmma_commit();          // closes a group
//   wgmma_wait<pending>(d);  // until at most so many groups are unfinished; only then touch D or A
//
// Shared operands are read through the async proxy: what cp.async or stores wrote needs fence_proxy_async_shared() and
// a barrier. sm_90a.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#include "cuda/common/matrix_descriptor.h"
#if SC_EMULATED
#include "cuda/emulation/instructions/wgmma.h"
#else
#include "cuda/common/wgmma_operands.h"
#endif

namespace sparsecore::ptx {

#if !SC_EMULATED
// Keeps what is done to these registers on its side of the asm statements before and after.
template <class T, int kCount>
SC_DEVICE void hold(T (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      asm volatile("" : "+f"(registers[i])::"memory");
    } else {
      asm volatile("" : "+r"(registers[i])::"memory");
    }
  }
}
#endif

// Names the registers (arrays of D, arrays of A) that were written, so that their writes stay in front of it.
template <class... Registers>
SC_DEVICE void wgmma_fence(Registers&... registers) {
#if SC_EMULATED
  cuda_emulation::wgmma_fence();
#else
  (hold(registers), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

SC_DEVICE void wgmma_commit() {
#if SC_EMULATED
  cuda_emulation::wgmma_commit();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Names the registers that are free afterwards, so that their uses stay behind it.
template <int kPending, class... Registers>
SC_DEVICE void wgmma_wait(Registers&... registers) {
#if SC_EMULATED
  cuda_emulation::wgmma_wait(kPending);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  (hold(registers), ...);
#endif
}

template <class T, Major kMajorA = Major::kK, Major kMajorB = Major::kK, int kRegisters>
SC_DEVICE void wgmma(Accumulator<T> (&d)[kRegisters], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(sizeof(T) == 2 || (kMajorA == Major::kK && kMajorB == Major::kK), "8-bit operands are K-major");
#if SC_EMULATED
  cuda_emulation::wgmma<typename Element<T>::Format>(d, a, b, accumulate, kMajorA == Major::kMN, kMajorB == Major::kMN);
#else
  constexpr int kTransposeA = kMajorA == Major::kMN, kTransposeB = kMajorB == Major::kMN;
#define SC_ROW(N, REGISTERS, A, B, ACCUMULATE, TRANSPOSE_A, TRANSPOSE_B, K_AND_TYPES, SUM, IMMEDIATES)     \
  if constexpr (kRegisters == REGISTERS) {                                                                 \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, " ACCUMULATE                          \
                 ", 0;\n"                                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" #N K_AND_TYPES " {" SC_PLACES_##REGISTERS             \
                 "}, " A ", " B ", accumulate" IMMEDIATES(TRANSPOSE_A, TRANSPOSE_B) ";\n}"                 \
                 : SC_SUMS_##REGISTERS(SUM, 0)                                                             \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(kTransposeA), "n"(kTransposeB)); \
  }
#define SC_ROWS(K_AND_TYPES, SUM, IMMEDIATES)                                      \
  SC_ROW(8, 4, "%4", "%5", "%6", "%7", "%8", K_AND_TYPES, SUM, IMMEDIATES)         \
  SC_ROW(16, 8, "%8", "%9", "%10", "%11", "%12", K_AND_TYPES, SUM, IMMEDIATES)     \
  SC_ROW(32, 16, "%16", "%17", "%18", "%19", "%20", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(64, 32, "%32", "%33", "%34", "%35", "%36", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(128, 64, "%64", "%65", "%66", "%67", "%68", K_AND_TYPES, SUM, IMMEDIATES) \
  SC_ROW(256, 128, "%128", "%129", "%130", "%131", "%132", K_AND_TYPES, SUM, IMMEDIATES)
  SC_ROWS_OF_TYPE("k16", "k32", SC_IMMEDIATES_16_A_B)
#undef SC_ROW
#undef SC_ROWS
#endif
}

template <class T, Major kMajorB = Major::kK, int kRegisters>
SC_DEVICE void wgmma(Accumulator<T> (&d)[kRegisters], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  static_assert(sizeof(T) == 2 || kMajorB == Major::kK, "8-bit operands are K-major");
#if SC_EMULATED
  cuda_emulation::wgmma<typename Element<T>::Format>(d, a, b, accumulate, kMajorB == Major::kMN);
#else
  constexpr int kTransposeB = kMajorB == Major::kMN;
#define SC_ROW(N, REGISTERS, A, B, ACCUMULATE, TRANSPOSE_B, K_AND_TYPES, SUM, IMMEDIATES)                 \
  if constexpr (kRegisters == REGISTERS) {                                                                \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, " ACCUMULATE                         \
                 ", 0;\n"                                                                                 \
                 "wgmma.mma_async.sync.aligned.m64n" #N K_AND_TYPES " {" SC_PLACES_##REGISTERS            \
                 "}, {" A "}, " B ", accumulate" IMMEDIATES(TRANSPOSE_B) ";\n}"                           \
                 : SC_SUMS_##REGISTERS(SUM, 0)                                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), \
                   "n"(kTransposeB));                                                                     \
  }
#define SC_ROWS(K_AND_TYPES, SUM, IMMEDIATES)                                              \
  SC_ROW(8, 4, "%4, %5, %6, %7", "%8", "%9", "%10", K_AND_TYPES, SUM, IMMEDIATES)          \
  SC_ROW(16, 8, "%8, %9, %10, %11", "%12", "%13", "%14", K_AND_TYPES, SUM, IMMEDIATES)     \
  SC_ROW(32, 16, "%16, %17, %18, %19", "%20", "%21", "%22", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(64, 32, "%32, %33, %34, %35", "%36", "%37", "%38", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(128, 64, "%64, %65, %66, %67", "%68", "%69", "%70", K_AND_TYPES, SUM, IMMEDIATES) \
  SC_ROW(256, 128, "%128, %129, %130, %131", "%132", "%133", "%134", K_AND_TYPES, SUM, IMMEDIATES)
  SC_ROWS_OF_TYPE("k16", "k32", SC_IMMEDIATES_16_B)
#undef SC_ROW
#undef SC_ROWS
#endif
}

}  // namespace sparsecore::ptx

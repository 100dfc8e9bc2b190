// wgmma.sp: D (64 x n) = A (64 x k, 2:4 sparse) B (k x n) + D by a warpgroup, k = 64 logical bytes. A holds the stored
// half, in shared memory or in registers; `metadata` and `kSelector` are those of mma_sparse, for each warp's 16 rows.
// Everything else is as in wgmma.h. sm_90a.
#pragma once

#include "cuda/common/wgmma.h"

namespace sparsecore::ptx {

template <class T, int kSelector, Major kMajorA = Major::kK, Major kMajorB = Major::kK, int kRegisters>
SC_DEVICE void wgmma_sparse(Accumulator<T> (&d)[kRegisters], uint64_t a, uint64_t b, uint32_t metadata,
                            bool accumulate) {
  static_assert(sizeof(T) == 2 || (kMajorA == Major::kK && kMajorB == Major::kK), "8-bit operands are K-major");
  static_assert(kSelector == 0 || (kSelector == 1 && sizeof(T) == 2), "the selector is 0, or 1 for 16-bit types");
#if SC_EMULATED
  cuda_emulation::wgmma_sparse<typename Element<T>::Format>(d, a, b, metadata, kSelector, accumulate,
                                                            kMajorA == Major::kMN, kMajorB == Major::kMN);
#else
  constexpr int kTransposeA = kMajorA == Major::kMN, kTransposeB = kMajorB == Major::kMN;
#define SC_ROW(N, REGISTERS, A, B, METADATA, SELECTOR, ACCUMULATE, TRANSPOSE_A, TRANSPOSE_B, K_AND_TYPES, SUM,         \
               IMMEDIATES)                                                                                             \
  if constexpr (kRegisters == REGISTERS) {                                                                             \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, " ACCUMULATE                                      \
                 ", 0;\n"                                                                                              \
                 "wgmma.mma_async.sp.sync.aligned.m64n" #N K_AND_TYPES " {" SC_PLACES_##REGISTERS                      \
                 "}, " A ", " B ", " METADATA ", " SELECTOR ", accumulate" IMMEDIATES(TRANSPOSE_A, TRANSPOSE_B) ";\n}" \
                 : SC_SUMS_##REGISTERS(SUM, 0)                                                                         \
                 : "l"(a), "l"(b), "r"(metadata), "n"(kSelector), "r"(static_cast<int>(accumulate)), "n"(kTransposeA), \
                   "n"(kTransposeB));                                                                                  \
  }
#define SC_ROWS(K_AND_TYPES, SUM, IMMEDIATES)                                                    \
  SC_ROW(8, 4, "%4", "%5", "%6", "%7", "%8", "%9", "%10", K_AND_TYPES, SUM, IMMEDIATES)          \
  SC_ROW(16, 8, "%8", "%9", "%10", "%11", "%12", "%13", "%14", K_AND_TYPES, SUM, IMMEDIATES)     \
  SC_ROW(32, 16, "%16", "%17", "%18", "%19", "%20", "%21", "%22", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(64, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%38", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(128, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%70", K_AND_TYPES, SUM, IMMEDIATES) \
  SC_ROW(256, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%134", K_AND_TYPES, SUM, IMMEDIATES)
  SC_ROWS_OF_TYPE("k32", "k64", SC_IMMEDIATES_16_A_B)
#undef SC_ROW
#undef SC_ROWS
#endif
}

template <class T, int kSelector, Major kMajorB = Major::kK, int kRegisters>
SC_DEVICE void wgmma_sparse(Accumulator<T> (&d)[kRegisters], const uint32_t (&a)[4], uint64_t b, uint32_t metadata,
                            bool accumulate) {
  static_assert(sizeof(T) == 2 || kMajorB == Major::kK, "8-bit operands are K-major");
  static_assert(kSelector == 0 || (kSelector == 1 && sizeof(T) == 2), "the selector is 0, or 1 for 16-bit types");
#if SC_EMULATED
  cuda_emulation::wgmma_sparse<typename Element<T>::Format>(d, a, b, metadata, kSelector, accumulate,
                                                            kMajorB == Major::kMN);
#else
  constexpr int kTransposeB = kMajorB == Major::kMN;
#define SC_ROW(N, REGISTERS, A, B, METADATA, SELECTOR, ACCUMULATE, TRANSPOSE_B, K_AND_TYPES, SUM, IMMEDIATES) \
  if constexpr (kRegisters == REGISTERS) {                                                                    \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, " ACCUMULATE                             \
                 ", 0;\n"                                                                                     \
                 "wgmma.mma_async.sp.sync.aligned.m64n" #N K_AND_TYPES " {" SC_PLACES_##REGISTERS             \
                 "}, {" A "}, " B ", " METADATA ", " SELECTOR ", accumulate" IMMEDIATES(TRANSPOSE_B) ";\n}"   \
                 : SC_SUMS_##REGISTERS(SUM, 0)                                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(metadata), "n"(kSelector),         \
                   "r"(static_cast<int>(accumulate)), "n"(kTransposeB));                                      \
  }
#define SC_ROWS(K_AND_TYPES, SUM, IMMEDIATES)                                                            \
  SC_ROW(8, 4, "%4, %5, %6, %7", "%8", "%9", "%10", "%11", "%12", K_AND_TYPES, SUM, IMMEDIATES)          \
  SC_ROW(16, 8, "%8, %9, %10, %11", "%12", "%13", "%14", "%15", "%16", K_AND_TYPES, SUM, IMMEDIATES)     \
  SC_ROW(32, 16, "%16, %17, %18, %19", "%20", "%21", "%22", "%23", "%24", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(64, 32, "%32, %33, %34, %35", "%36", "%37", "%38", "%39", "%40", K_AND_TYPES, SUM, IMMEDIATES)  \
  SC_ROW(128, 64, "%64, %65, %66, %67", "%68", "%69", "%70", "%71", "%72", K_AND_TYPES, SUM, IMMEDIATES) \
  SC_ROW(256, 128, "%128, %129, %130, %131", "%132", "%133", "%134", "%135", "%136", K_AND_TYPES, SUM, IMMEDIATES)
  SC_ROWS_OF_TYPE("k32", "k64", SC_IMMEDIATES_16_B)
#undef SC_ROW
#undef SC_ROWS
#endif
}

}  // namespace sparsecore::ptx

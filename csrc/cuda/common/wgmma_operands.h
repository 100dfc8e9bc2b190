// Operand lists of wgmma's asm statements: n / 2 accumulator registers, the places of what follows them, and what the
// element type decides. Only wgmma.h and wgmma_sparse.h include this.
#pragma once

#define SC_PLACES_4 "%0, %1, %2, %3"
#define SC_PLACES_8 \
  SC_PLACES_4       \
  ", %4, %5, %6, %7"
#define SC_PLACES_16 \
  SC_PLACES_8        \
  ", %8, %9, %10, %11, %12, %13, %14, %15"
#define SC_PLACES_32 \
  SC_PLACES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SC_PLACES_64                                                                 \
  SC_PLACES_32                                                                       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SC_PLACES_128                                                                            \
  SC_PLACES_64                                                                                   \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// Registers i .. i + count - 1 of the array d as in-and-out operands.
#define SC_SUMS_4(SUM, i) SUM(d[i]), SUM(d[i + 1]), SUM(d[i + 2]), SUM(d[i + 3])
#define SC_SUMS_8(SUM, i) SC_SUMS_4(SUM, i), SC_SUMS_4(SUM, i + 4)
#define SC_SUMS_16(SUM, i) SC_SUMS_8(SUM, i), SC_SUMS_8(SUM, i + 8)
#define SC_SUMS_32(SUM, i) SC_SUMS_16(SUM, i), SC_SUMS_16(SUM, i + 16)
#define SC_SUMS_64(SUM, i) SC_SUMS_32(SUM, i), SC_SUMS_32(SUM, i + 32)
#define SC_SUMS_128(SUM, i) SC_SUMS_64(SUM, i), SC_SUMS_64(SUM, i + 64)

// What ends an instruction: signs of A and B and, for 16-bit types, which of them are transposed.
#define SC_IMMEDIATES_FLOAT8(...) ", 1, 1"
#define SC_IMMEDIATES_INT8(...) ""
#define SC_IMMEDIATES_16_A_B(TRANSPOSE_A, TRANSPOSE_B) ", 1, 1, " TRANSPOSE_A ", " TRANSPOSE_B
#define SC_IMMEDIATES_16_B(TRANSPOSE_B) ", 1, 1, " TRANSPOSE_B

// The rows of an instruction, SC_ROWS(k and types, constraint of sums, immediates), for the element type T, with k of
// 16-bit and of 8-bit types.
#define SC_ROWS_OF_TYPE(K_16, K_8, IMMEDIATES_16)                                   \
  if constexpr (std::is_same_v<T, BFloat16>) {                                      \
    SC_ROWS(K_16 ".f32.bf16.bf16", "+f", IMMEDIATES_16)                             \
  } else if constexpr (std::is_same_v<T, Float16>) {                                \
    SC_ROWS(K_16 ".f32.f16.f16", "+f", IMMEDIATES_16)                               \
  } else if constexpr (std::is_same_v<T, int8_t>) {                                 \
    SC_ROWS(K_8 ".s32.s8.s8", "+r", SC_IMMEDIATES_INT8)                             \
  } else if constexpr (std::is_same_v<T, Float8E4M3>) {                             \
    SC_ROWS(K_8 ".f32.e4m3.e4m3", "+f", SC_IMMEDIATES_FLOAT8)                       \
  } else {                                                                          \
    static_assert(std::is_same_v<T, Float8E5M2>, "wgmma has no such element type"); \
    SC_ROWS(K_8 ".f32.e5m2.e5m2", "+f", SC_IMMEDIATES_FLOAT8)                       \
  }

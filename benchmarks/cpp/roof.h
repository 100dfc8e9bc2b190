// The machine's limits, measured: products per second out of registers and out of the level 1 cache, bytes per second
// of streaming reads and of copies.
#pragma once

#include <cstdint>

#include "sparsecore/types.h"

namespace bench {

// Runs `rounds` rounds of independent products that stay in registers; the result keeps them from being left out.
using Spin = float (*)(int64_t rounds);

struct Peak {
  const char* name;     // "fma_float32", "fma_loaded_float32", "dot_bfloat16", "dot_int8", "fma_float16"
  sparsecore::Isa isa;  // best first among rows of one name
  int64_t operations;   // of a round; a product and its sum are two
  Spin spin;
};

// Rows of this build, best first. Returns how many.
int peaks(const Peak** rows);

// GFLOP/s (int8: Gop/s) of the best row for current_isa(), with the threads of the pool; 0 where there is none.
double peak_gflops(const char* name);

// GB/s of reading 1 GiB once, with the threads of the pool; the best of a few ways to walk it.
double read_gb_per_s();

// Nanoseconds until a word that one processor wrote is seen by another: less behind one cache than behind two, and a
// virtual machine may be moved from one to the other.
double handover_ns();

// GB/s, reads and writes counted, of copying half of so many bytes onto the other half again and again.
double copy_gb_per_s(int64_t bytes);

// fma_loaded_float32: one operand of every product comes from this much of the level 1 cache.
constexpr int64_t kLoadedFloats = 4096;

namespace scalar {
float fma_float32(int64_t rounds);
constexpr int64_t kFmaFloat32 = 16 * 2;
}  // namespace scalar
namespace avx2 {
float fma_float32(int64_t rounds);
constexpr int64_t kFmaFloat32 = 12 * 8 * 2;
float fma_loaded_float32(int64_t rounds);
}  // namespace avx2
namespace avx512 {
float fma_float32(int64_t rounds);
constexpr int64_t kFmaFloat32 = 16 * 16 * 2;
float fma_loaded_float32(int64_t rounds);
}  // namespace avx512
namespace avx512_vnni {
float dot_int8(int64_t rounds);
constexpr int64_t kDotInt8 = 16 * 64 * 2;
}  // namespace avx512_vnni
namespace avx512_bf16 {
float dot_bfloat16(int64_t rounds);
constexpr int64_t kDotBFloat16 = 16 * 32 * 2;
}  // namespace avx512_bf16
namespace avx512_fp16 {
float fma_float16(int64_t rounds);
constexpr int64_t kFmaFloat16 = 16 * 32 * 2;
}  // namespace avx512_fp16
namespace neon {
float fma_float32(int64_t rounds);
constexpr int64_t kFmaFloat32 = 16 * 4 * 2;
}  // namespace neon

}  // namespace bench

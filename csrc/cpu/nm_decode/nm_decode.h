// Private side of nm_decode: what a kernel file provides, and the table that chooses among them.
//
// A tile is 16 output channels side by side. For each slot s of group g the kernel takes 16 weights and 16 codes, picks
// x[g * m + code] for every channel, and multiplies:
//
//   sums[t, c] = sum over slots s of values[s, c] * x[t, (s / n_kept) * m + code(s, c)]
//
// A code may hold any value of its bits: the window x[g * m .. g * m + 31] is always readable.
#pragma once

#include "sparsecore/nm_decode.h"

namespace sparsecore::nm_decode {

constexpr int kTile = 16;
constexpr int kMaxTokens = 8;  // tokens of one pass over the weight
constexpr int kWindow = 32;    // floats readable from the start of each group

struct Tile {
  const void* values;     // [slots, 16]
  const uint32_t* codes;  // [words, 16]
  const float* x;         // [tokens, x_stride]
  int64_t x_stride;
  int64_t groups;
  int32_t n_kept, m, bits, per_word;
  float* sums;  // [tokens, sums_stride], 16 written per token
  int64_t sums_stride;
};

// Runs one tile for 1, 2, 4 or 8 tokens. A slot's sum has one order whatever the number of tokens.
using TileFunction = void (*)(const Tile& tile, int tokens);

struct Kernel {
  Isa isa;
  const char* name;
  TileFunction f32, bf16, f16, i8;
};

const Kernel& kernel();

struct Layout {
  int64_t tiles, groups, slots, words;
  int32_t bits, per_word;
};
Layout layout_of(const NMDecode& weight, int64_t n, int64_t k);

namespace scalar {
extern const Kernel kKernel;
}  // namespace scalar
namespace avx2 {
extern const Kernel kKernel;
}  // namespace avx2
namespace avx512 {
extern const Kernel kKernel;
}  // namespace avx512
namespace neon {
extern const Kernel kKernel;
}  // namespace neon
namespace wasm {
extern const Kernel kKernel;
}  // namespace wasm
namespace wasm_relaxed {
extern const Kernel kKernel;
}  // namespace wasm_relaxed

}  // namespace sparsecore::nm_decode

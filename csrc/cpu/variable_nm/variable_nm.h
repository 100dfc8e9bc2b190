// Private side of variable_nm: what a kernel file provides, and the table that chooses among them.
//
// A tile is a block row: 16 outputs side by side. With x[t, b, i] input 16 b + i of token t,
//
//   sums[t, c] = sum over N in 2, 4, 8  sum over blocks b of N  sum over slots s < N  values[s, c] * x[t, b, index(s,
//   c)]
//              + sum over dense blocks b                        sum over slots s < 16 values[s, c] * x[t, b, s]
#pragma once

#include "sparsecore/variable_nm.h"

namespace sparsecore::variable_nm {

constexpr int kBlock = 16;
constexpr int kKinds = 4;  // N = 2, 4, 8, 16
constexpr int kKept[kKinds] = {2, 4, 8, 16};
constexpr int kMaxTokens = 8;  // tokens of one pass over the weight

struct Tile {
  const void* values;              // [slots, 16], those of this block row
  const uint8_t* indices;          // [pairs, 16]
  const int32_t* columns[kKinds];  // blocks of each N, ascending
  int64_t counts[kKinds];
  const float* x;  // [tokens, x_stride]
  int64_t x_stride;
  float* sums;  // [tokens, sums_stride], 16 written per token
  int64_t sums_stride;
};

// Runs one tile for 1, 2, 4 or 8 tokens. An output's sum has one order whatever the number of tokens.
using TileFunction = void (*)(const Tile& tile, int tokens);

struct Kernel {
  Isa isa;
  const char* name;
  TileFunction f32, bf16, f16, i8;
};

const Kernel& kernel();

// What a run of codes says of the arrays. Codes are walked at every call, so without branches, many at once.
struct Sizes {
  int64_t slots;
  int64_t pairs;  // of slots with indices
  bool sound;     // every code is 0, 2, 4, 8 or 16
};

inline Sizes sizes_of(const uint8_t* codes, int64_t count) {
  uint32_t slots = 0, dense = 0;
  uint8_t wrong = 0;
  for (int64_t b = 0; b < count; ++b) {
    slots += codes[b];
    dense += codes[b] >> 4;
    wrong |= (codes[b] & (codes[b] - 1)) | (codes[b] & 0b11100001);  // two bits, or one that no code has
  }
  return {slots, (int64_t{slots} - kBlock * int64_t{dense}) / 2, wrong == 0};
}

// 0 to 3 for a code of a block that is not empty, -1 for 0, -2 for what is no code.
inline int kind_of(uint8_t code) {
  switch (code) {
    case 0: return -1;
    case 2: return 0;
    case 4: return 1;
    case 8: return 2;
    case 16: return 3;
    default: return -2;
  }
}

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

}  // namespace sparsecore::variable_nm

// Private side of bitmap_decode: what a kernel file provides, and the table that chooses among them.
//
// A row's values stand in order; bit j of word w says whether column 64 w + j is kept. A kernel multiplies one row with
// up to eight tokens:
//
//   sums[t * sums_stride] = sum over kept columns c of value(c) * x[t, c]
//
// x is padded with zeros to whole words.
#pragma once

#include "sparsecore/bitmap_decode.h"

namespace sparsecore::bitmap_decode {

constexpr int kMaxTokens = 8;  // tokens of one pass over the weight

struct Row {
  const void* values;
  const uint64_t* bitmap;  // [words]
  int64_t words;
  const float* x;  // [tokens, x_stride]
  int64_t x_stride;
  float* sums;
  int64_t sums_stride;
};

// Runs one row for 1, 2, 4 or 8 tokens. A sum has one order whatever the number of tokens.
using RowFunction = void (*)(const Row& row, int tokens);

struct Kernel {
  Isa isa;
  const char* name;
  RowFunction f32, bf16, f16, i8;
};

const Kernel& kernel();

namespace scalar {
void row_f32(const Row& row, int tokens);
void row_bf16(const Row& row, int tokens);
void row_f16(const Row& row, int tokens);
void row_i8(const Row& row, int tokens);
}  // namespace scalar
namespace avx2 {
void row_f32(const Row& row, int tokens);
void row_bf16(const Row& row, int tokens);
void row_f16(const Row& row, int tokens);
void row_i8(const Row& row, int tokens);
}  // namespace avx2
namespace avx512 {
void row_f32(const Row& row, int tokens);
void row_bf16(const Row& row, int tokens);
void row_f16(const Row& row, int tokens);
void row_i8(const Row& row, int tokens);
}  // namespace avx512
namespace neon {
void row_f32(const Row& row, int tokens);
void row_bf16(const Row& row, int tokens);
void row_f16(const Row& row, int tokens);
void row_i8(const Row& row, int tokens);
}  // namespace neon
namespace wasm {
void row_f32(const Row& row, int tokens);
void row_bf16(const Row& row, int tokens);
void row_f16(const Row& row, int tokens);
void row_i8(const Row& row, int tokens);
}  // namespace wasm
namespace wasm_relaxed {
void row_f32(const Row& row, int tokens);
void row_bf16(const Row& row, int tokens);
void row_f16(const Row& row, int tokens);
void row_i8(const Row& row, int tokens);
}  // namespace wasm_relaxed

}  // namespace sparsecore::bitmap_decode

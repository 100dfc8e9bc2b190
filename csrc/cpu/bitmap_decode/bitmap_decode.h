// Private side of bitmap_decode: what a kernel file provides, and the table that chooses among them.
//
// A row's values stand in order; bit j of word w says whether column 64 w + j is kept. A kernel multiplies up to
// kMaxRows neighbouring rows with up to kMaxTokens tokens:
//
//   sums[t * sums_stride + r] = sum over kept columns c of value(r, c) * x[t, c]
//
// x is padded with zeros to whole words. The driver has counted the bits of every row: they are as many as its values.
#pragma once

#include "sparsecore/bitmap_decode.h"

namespace sparsecore::bitmap_decode {

constexpr int kMaxTokens = 8;  // tokens of one pass over the weight
constexpr int kMaxRows = 4;
constexpr int kRoom = 16;

struct Rows {
  const void* values;      // of all rows of the weight
  const int32_t* starts;   // [rows + 1] the first value of each of these rows
  const uint64_t* bitmap;  // [rows, words]
  int64_t words;
  int rows;        // 1 .. kMaxRows
  bool room;       // whether kRoom values past the last of these rows may be read as well
  const float* x;  // [tokens, x_stride]
  int64_t x_stride;
  float* sums;
  int64_t sums_stride;
};

// Runs for 1, 2, 4 or 8 tokens. A sum has one order whatever the number of tokens and rows.
using RowsFunction = void (*)(const Rows& rows, int tokens);

struct Kernel {
  Isa isa;
  const char* name;
  int64_t (*count)(const uint64_t* words, int64_t count);  // set bits
  RowsFunction f32, bf16, f16, i8;
};

const Kernel& kernel();

// Sizes and row_ptr alone: they ascend from 0 to nnz. The bits of a row are counted just before it is multiplied.
Status check_starts(const BitmapDecode& weight, int64_t n, int64_t k);

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

}  // namespace sparsecore::bitmap_decode

// Shared lists, private side: what a micro-kernel is, and who has one.
//
// The portable driver (shared_lists_linear.cpp, shared_lists_dot.cpp) cuts tokens into tiles and groups into blocks of
// records, and calls a micro-kernel per (group, block of records, tile of tokens):
//
//   sums[t][v] (+)= sum over records r of values[r][v] * x[t][columns[r]]
//
// Lanes are the channels v of the group; x[t][c] is broadcast. Records are added in order, one chain per output, so an
// output has the same bits wherever its tile starts, however long its blocks are and whoever computes it.
// A new instruction set writes one file with the functions below and adds its rows in dispatch.cpp.
#pragma once

#include "sparsecore/shared_lists.h"

namespace sparsecore::shared_lists {

// Where a tile finds column c of token t.
enum class Layout {
  kColumns,  // x[c * tokens + t]        a copy made by pack_columns, as wide as the tile
  kRows,     // x[t * token_stride + c]  the caller's array where it is float32, else rows widened by `widen`
};

struct FloatTile {
  const void* values;       // [records, vector], not aligned
  DType weights;            // of values
  const uint16_t* columns;  // [records], already checked against k
  int64_t records;          // may be 0
  const float* x;           // see Layout
  int64_t token_stride;     // for kRows
  int tokens;               // 1 .. tile_tokens(vector)
  int vector;               // a multiple of min_vector
  float* sums;              // [tokens, sums_stride]
  int64_t sums_stride;
  const float* start;  // sums begin at start[t * start_stride + v]; null: at 0
  int64_t start_stride;
  // Where not null: memory that later calls read, to be brought in while this one computes, `prefetch_step` bytes (at
  // most 128) for every record; it may lie past the end of the weights. May be ignored.
  const char* prefetch;
  int64_t prefetch_step;
};

// Gradient of the values of one group over one block of tokens:
//   out[r][v] (+)= sum over tokens of x[t][columns[r]] * grad_y[t][v]
struct GradientTile {
  const float* x;       // [tokens, x_stride]
  const float* grad_y;  // [tokens, grad_y_stride], `vector` channels of it
  int64_t x_stride, grad_y_stride;
  int64_t tokens;
  const uint16_t* columns;  // [records]
  int64_t records;
  int vector;
  float* out;  // [records, vector]
  bool accumulate;
};

// float32 arithmetic for every weight type.
struct Kernel {
  Isa isa;
  const char* name;
  const char* weights;  // for people: "float32 bfloat16 float16 int8"
  int min_vector;       // takes vectors that are multiples of it
  int widen_above;      // weights that are not float32 are widened to scratch memory, a block of records at a
                        // time, where a task has more tokens than this; below, `tile` gets them as stored
  int (*tile_tokens)(int vector);
  Layout (*layout)(int vector);
  // x [tokens, k] -> panel [k, tokens] float; tokens <= tile_tokens.
  void (*pack_columns)(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, float* panel);
  void (*widen)(const void* from, DType dtype, int64_t count, float* to);
  void (*tile)(const FloatTile&);
  void (*gradient)(const GradientTile&);
};

// Dot products of `depth` kept columns at a time, each step one 32-bit lane: bfloat16 pairs (float sums), int8 quads or
// pairs (int32 sums). The last step of a group is padded with zero weights.
//
//   panel       [k, kDotTokens]               x, transposed: bfloat16, or quantised x + offset in 32 / depth bits; a
//                                             kernel may order the tokens of a row as its `gather` likes them
//   steps       [ceil(records / depth), kDotTokens, depth]   the kept columns of a group, side by side
//   interleaved [ceil(records / depth), vector, depth]       its weights in the same order
constexpr int kDotTokens = 32;

struct DotTile {
  const void* interleaved;
  const void* steps;  // of the first token of the tile; a step is kDotTokens lanes long
  int64_t count;      // of steps
  int tokens;         // 1 .. tile_tokens(vector)
  int vector;
  void* sums;  // float or int32 [tokens, sums_stride]
  int64_t sums_stride;
  bool accumulate;       // start from what sums holds, else from `start`
  const int32_t* start;  // [vector], or null: 0
};

struct DotKernel {
  Isa isa;
  const char* name;
  DType weights;        // kBFloat16 (activations bfloat16) or kInt8 (any activations, Compute::kInt8)
  bool needs_fast_dot;  // only where sparsecore::fast_bf16_dot()
  int min_vector;
  int min_tokens;  // below, the float kernel is faster
  int depth;
  int offset;  // added to quantised activations: 128 where they are uint8
  int (*tile_tokens)(int vector);
  // x [tokens, k], tokens <= kDotTokens; missing tokens may hold anything finite. int8: token_scale [tokens] is
  // written, see quantise.h for the exact rule.
  void (*pack)(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, void* panel,
               float* token_scale);
  void (*interleave)(const void* values, int64_t records, int vector, void* interleaved);
  void (*gather)(const void* panel, const uint16_t* columns, int64_t records, void* steps);
  void (*tile)(const DotTile&);
};

// The best rows for current_isa(). Null from dot_kernel: use the float kernel.
const Kernel& float_kernel(int vector);
const DotKernel* dot_kernel(const LinearIo& io, int vector);

// Shapes and list starts; columns are checked group by group, just before they are used.
Status check_lists(const SharedLists& weight, int64_t n, int64_t k);
bool columns_inside(const uint16_t* columns, int64_t count, int64_t k);

Status run_float(const LinearIo& io, const SharedLists& weight, const Kernel& kernel);
Status run_dot(const LinearIo& io, const SharedLists& weight, const DotKernel& kernel);

// How a call is cut into tasks: tokens x groups, groups by records.
struct Grid {
  int64_t token_parts, group_parts;
  int64_t first_token(int64_t part, int64_t m) const { return part * m / token_parts; }
  int64_t first_group(int64_t part, const int32_t* group_ptr, int64_t groups) const;
};
Grid choose_grid(int64_t m, int64_t groups, int64_t token_block);

namespace scalar {
extern const Kernel kKernel;
extern const DotKernel kInt8;
}  // namespace scalar
namespace avx2 {
extern const Kernel kKernel;
extern const DotKernel kInt8;
}  // namespace avx2
namespace avx512 {
extern const Kernel kKernel;
}
namespace avx512_vnni {
extern const DotKernel kInt8;
}
namespace avx512_bf16 {
extern const DotKernel kBFloat16;
}
namespace neon {
extern const Kernel kKernel;
}
namespace neon_dot {
extern const DotKernel kInt8;
}
namespace wasm {
extern const Kernel kKernel;
extern const DotKernel kInt8;
}  // namespace wasm
namespace wasm_relaxed {
extern const Kernel kKernel;
}

}  // namespace sparsecore::shared_lists

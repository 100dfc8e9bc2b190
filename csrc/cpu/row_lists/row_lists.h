// Row lists, private side: what a micro-kernel is, and who has one.
//
// The portable driver (row_lists_linear.cpp) cuts tokens into tiles whose tokens lie side by side ("lanes") and the
// input into the blocks of the format. For every tile it packs the activations of one block, transposed, and calls the
// micro-kernel over many channels:
//
//   panel[c][lane] = x[token of lane][block * size + c]
//   sums[o][lane] (+)= sum over i in list(o) of values[i] * panel[offsets[i]][lane]
//
// A weight is broadcast, a lane is a token. The order of a sum depends on the list alone, never on the width of the
// tile, so an output has the same bits wherever its token falls and whoever computes it.
// The panel always has kPanelRows rows of memory, so that no offset leaves it; rows past the block hold anything.
// A new instruction set writes one file with the functions below and adds its row in dispatch.cpp.
#pragma once

#include "sparsecore/row_lists.h"

namespace sparsecore::row_lists {

constexpr int kPanelRows = 256;  // as many as a uint8 offset can name
constexpr int kMaxLanes = 128;   // no kernel has more
constexpr int kSinglePadding = 256;
constexpr int kSingleLanes = 4;

// The lists of some channels in one block: channel o has the places starts[o] .. starts[o + 1]. They are checked: they
// ascend, stay inside the arrays, and no list is longer than the block.
struct Lists {
  const void* values;  // the whole array
  DType weights;       // of values
  const uint8_t* offsets;
  const int32_t* starts;  // [channels + 1]
  int64_t channels;
};

struct Tile {
  Lists lists;
  const void* panel;  // [kPanelRows, lanes], 64-byte aligned, element type as pack writes it
  int lanes;          // a width that granule() and max_lanes() allow
  float* sums;        // [channels, lanes]
  bool accumulate;    // start from what sums holds, not from 0
};

// One token without a panel: its activations, float32, with kSinglePadding floats of memory behind the last column.
// The sum of a channel stays split into kSingleLanes parts, which the driver adds up at the end, in order.
struct SingleTile {
  Lists lists;
  const float* x;  // at the first column of the block
  float* sums;     // [channels, kSingleLanes]
  bool accumulate;
};

// Gradient of the values over a tile of tokens, panels as Tile has them (float32), missing tokens zero:
//   out[i] (+)= sum over lanes of grad[o][lane] * x[offsets[i]][lane]      i in list(o)
struct GradientTile {
  const uint8_t* offsets;
  const int32_t* starts;
  int64_t channels;
  const float* x;     // [kPanelRows, lanes]
  const float* grad;  // [channels, lanes]
  int lanes;          // gradient_lanes, or half of it, a quarter and so on down to 16, where that holds all tokens
  float* out;
  bool accumulate;
};

struct Kernel {
  Isa isa;
  const char* name;
  const char* weights;  // for people: "float32 bfloat16 float16 int8"
  int panel_element;    // bytes: 4, or 2 where `pack` and `tile` agree on a panel of 16-bit types
  // Lanes come in multiples of granule(m) and at most max_lanes(block) of them, itself a multiple of every granule.
  int (*granule)(int64_t m);
  int (*max_lanes)(int32_t block);
  // x [tokens, columns] -> panel [columns, lanes], tokens <= lanes <= tokens + granule; the missing tokens are 0.
  void (*pack)(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel);
  void (*tile)(const Tile&);
  // sums [channels, lanes] -> rows [tokens, rows_stride], tokens <= lanes; writes nothing past `channels`.
  void (*unpack)(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride);
  int gradient_lanes;  // most lanes of a GradientTile: a power of two; 0: no gradient, the next row of the table serves
  void (*gradient)(const GradientTile&);
  void (*single)(const SingleTile&);          // for m == 1; null: `tile` serves
  bool (*serves)(const LinearIo&) = nullptr;  // the calls this row is for; null: all
};

// The best rows for current_isa().
const Kernel& linear_kernel(const LinearIo& io);
const Kernel& gradient_kernel();

// Everything but the offsets: shapes, and list starts as Lists promises them.
Status check_lists(const RowLists& weight, int64_t n, int64_t k);

// How a call is cut into tasks: tokens x channels, channels so that the parts hold equally many weights.
struct Grid {
  int64_t token_parts, channel_parts;
  int64_t first_channel(int64_t part, const RowLists& weight, int64_t n, int64_t k) const;
};

namespace scalar {
extern const Kernel kKernel;
}
namespace avx2 {
extern const Kernel kKernel;
}
namespace avx512 {
extern const Kernel kKernel;
// Shared with avx512_fp16: `pack` into a float16 panel, and `unpack`.
void pack_half(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel);
void unpack(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride);
}  // namespace avx512
namespace avx512_bf16 {
extern const Kernel kKernel;
}
namespace avx512_fp16 {
extern const Kernel kKernel;
}
namespace neon {
extern const Kernel kKernel;
}
namespace wasm {
extern const Kernel kKernel;
}
namespace wasm_relaxed {
extern const Kernel kKernel;
}

}  // namespace sparsecore::row_lists

// Group lists, private side: what a micro-kernel is, and who has one.
//
// The portable driver (group_lists_conv.cpp) cuts the pixels (or tokens) of a call into tiles whose pixels lie side by
// side ("lanes"), and the input into the panels of the format. For every tile and panel it calls the micro-kernel over
// the groups of some windows:
//
//   sums[channel][lane] (+)= sum over records i of the channel's group, columns j of a record, in that order:
//                              values[i][j][row of the channel] * x[cols * index[i] + j][lane]
//
// A weight is broadcast, a lane is a pixel. x is read where the planes lie, or from a panel that the driver packed.
// The order of a sum depends on the list alone, never on the width of the tile, so an output has the same bits wherever
// its pixel falls and whoever computes it; a kernel that keeps several partial sums keeps as many at every width.
// A new instruction set writes one file with the functions below and adds its row in dispatch.cpp.
#pragma once

#include "sparsecore/group_lists.h"

namespace sparsecore::group_lists {

constexpr int kMostGradientLanes = 64;

// What the last panel of a tile does to its sums:
//   y = clamp(scale[c] * sum + bias[c] + residual[c][lane], low, high), then y * clamp(y + 3, 0, 6) / 6 if hard_swish.
// Other activations are the driver's. NaN passes through clamp.
struct Finish {
  const float* scale;     // [channels] or null: 1
  const float* bias;      // [channels] or null: 0
  const float* residual;  // channel c at residual + c * residual_stride, or null
  int64_t residual_stride;
  float low, high;  // -inf, inf where nothing is clamped
  bool hard_swish;
};

// Some places of one window in one panel. Arrays begin at the first record of the first place: place p has the records
// starts[p] - starts[0] .. starts[p + 1] - starts[0]. So many as `readable` may be read, at least one past the last,
// but no index past the last followed. Everything was checked: starts ascend, every index is inside the panel, order
// inside the window.
struct Tile {
  const float* values;    // [records, cols, rows], widened by the driver
  const void* index;      // uint8, or uint16 where wide_index
  const int32_t* starts;  // [places + 1]
  const uint8_t* order;   // [places], the group of each place inside the window
  int64_t places;
  int64_t readable;
  bool wide_index;
  int rows, cols;
  int64_t channels;  // of the window: channel order[p] * rows + r is skipped where it is not below
  const float* x;    // column c of the panel at x + c * x_stride
  int64_t x_stride;
  int lanes;      // 1 .. tiles * max_lanes; a multiple of `vector` where the kernel has no masks
  int tiles = 1;  // that lie side by side, of equally many registers: a list passes all of them before the next list
  float* sums;    // channel c of the window at sums + c * sums_stride
  int64_t sums_stride;
  const float* before;  // what the sums start from, channel c at before + c * before_stride; may be sums. Null: from 0
  int64_t before_stride;
  const Finish* finish;  // null before the last panel; its arrays begin at the window's first channel
};

// Gradient of the values over a tile of pixels; lanes without a pixel are zero in both:
//   out[i][j][r] (+)= sum over lanes of grad[order[p] * rows + r][lane] * x[cols * index[i] + j][lane]     i of place p
struct GradientTile {
  float* out;  // [records, cols, rows], from the first place's first record on, as values above
  const void* index;
  const int32_t* starts;
  const uint8_t* order;
  int64_t places;
  bool wide_index;
  int rows, cols;
  const float* x;     // [columns of the panel, lanes]
  const float* grad;  // [rows of every group of the window, lanes]
  int lanes;          // gradient_lanes, or half of it, a quarter and so on down to 16, where that holds all pixels
  bool accumulate;
};

struct Kernel {
  Isa isa;
  const char* name;
  const char* weights;  // for people: "float32 bfloat16 float16 int8"
  int vector;           // lanes of a register: tiles begin at multiples of it
  bool masks;           // `tile` takes any number of lanes, and touches no other
  // The widest tile for such a weight, a multiple of vector. `write_bound`: lists are short, and a register of y is a
  // cache line.
  int (*max_lanes)(int rows, int depth, bool write_bound);
  void (*tile)(const Tile&);
  // x [tokens, columns] -> panel [columns, lanes], lanes a multiple of vector; missing tokens become 0.
  void (*pack)(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, float* panel);
  // sums [channels, lanes] -> rows [tokens, rows_stride], tokens <= lanes; writes nothing past `channels`.
  void (*unpack)(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride);
  void (*widen)(const void* from, DType dtype, int64_t count, float* to);
  int gradient_lanes;  // most lanes of a GradientTile: a power of two, 16 .. kMostGradientLanes
  void (*gradient)(const GradientTile&);
  // A tile of at most so many lanes costs less than a register of pixels: the last pixels of an image are then a tile
  // of their own. Null: none; only for kernels with masks.
  int (*few_lanes)(int rows) = nullptr;
  bool side_by_side = false;  // `tile` takes more than one tile
};

// The best row for current_isa().
const Kernel& kernel();

// A place in the packed arrays of one panel.
struct Panel {
  int64_t first_column;
  int columns;            // as k has them, at most depth
  int blocks;             // ceil(columns / cols)
  const int32_t* starts;  // [groups + 1]
  const uint8_t* order;   // [groups]
};

// The sizes of a weight [n, k].
struct Layout {
  int64_t n, k, groups, panels, windows;
  bool wide_index;
  Layout(const GroupLists& weight, int64_t n, int64_t k);
};
Panel panel_of(const GroupLists& weight, const Layout& layout, int64_t panel);

// Patterns and shapes the format allows.
bool good_pattern(int32_t rows, int32_t cols, int32_t depth, int32_t window);
bool good_shape(int64_t n, int64_t k);

// True where every index of the groups of windows [window_begin, window_end) is inside its panel.
bool indices_inside(const GroupLists& weight, const Layout& layout, int64_t window_begin, int64_t window_end);

// Windows [0, windows) in `parts` runs of about equally many records.
int64_t first_window(const GroupLists& weight, const Layout& layout, int64_t part, int64_t parts);

namespace scalar {
extern const Kernel kKernel;
}
namespace avx2 {
extern const Kernel kKernel;
}
namespace avx512 {
extern const Kernel kKernel;
int few_lanes(int rows);
void tile_of_few(const Tile& tile);  // of at most few_lanes(rows) lanes
}  // namespace avx512
namespace neon {
extern const Kernel kKernel;
}
namespace wasm {
extern const Kernel kKernel;
}
namespace wasm_relaxed {
extern const Kernel kKernel;
}

}  // namespace sparsecore::group_lists

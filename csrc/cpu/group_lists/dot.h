// Group lists by int8 products, private side: weights and activations in int8, exact int32 sums.
//
// Four columns make a quad, one 32-bit lane of products. Lists are made anew for every call: the records of a place,
// columns one after the other, four at a time, the last quad filled up with zero weights.
//
//   panel, apart      [columns, kDotLanes]          q + offset of one column, a byte a pixel
//   panel, together   [columns / 4, kDotLanes, 4]   where four columns of a block always make a quad (cols a multiple
//   of 4) sums[row][lane] (+)= sum over quads, j in 0..3 of weight[quad][row][j] * (q + offset)[column j of the
//   quad][lane]
//
// A kernel may order the lanes of a row of sums, and of a quad of a panel that is together, as it likes; its own
// `finish` undoes that. Sums are integers: their order does not matter.
#pragma once

#include "cpu/group_lists/group_lists.h"

namespace sparsecore::group_lists {

constexpr int kDotLanes = 64;

// The places of one window in one panel.
struct DotTile {
  const int32_t* weights;   // [quads, rows]: four int8 of one row side by side
  const uint16_t* columns;  // [quads, 4] columns of the panel; [quads], in quads, where it is together
  const int32_t* starts;    // [places + 1], in quads
  const uint8_t* order;     // [places], the group of each place inside the window
  int64_t places;
  int rows;
  bool together;
  const uint8_t* panel;
  int32_t* sums;  // [groups of the window, rows, kDotLanes]
  bool accumulate;
  const int32_t* start;  // [groups of the window, rows]: sums begin here where they do not accumulate
};

// y[c][lane] = float(sums[c][lane]) * (lane_scale[lane] * scale[c]) + bias[c] + residual[c][lane], in this order, each
// step rounded. In place: y are the bytes of sums.
struct DotFinish {
  int32_t* sums;  // [channels, kDotLanes]
  int64_t channels;
  const float* lane_scale;  // [kDotLanes]
  const float* scale;       // [channels]
  const float* bias;        // [channels] or null
  const float* residual;    // [channels, kDotLanes] or null
};

struct DotKernel {
  Isa isa;
  const char* name;
  int offset;  // added to quantised activations: 128 where they are uint8
  // The largest of the bits of |x[i]| as integers (quantise.h).
  uint32_t (*largest)(const void* x, DType dtype, int64_t count);
  // x [columns, kDotLanes] -> panel; q = round(x * inverse[lane]), ties to even, cut to [-127, 127], NaN to -127.
  // columns is a multiple of 4 where the panel is together.
  void (*quantise)(const float* x, const float* inverse, int columns, bool together, uint8_t* panel);
  void (*tile)(const DotTile&);
  void (*finish)(const DotFinish&);
};

const DotKernel& dot_kernel();

// A convolution whose arguments were checked. per_pixel: pixels are tokens, each with its own scale.
Status run_dot(const ConvIo& io, const GroupLists& weight, int64_t k, bool per_pixel);

namespace scalar {
extern const DotKernel kInt8;
}
namespace avx2 {
extern const DotKernel kInt8;
}
namespace avx512_vnni {
extern const DotKernel kInt8;
}
namespace neon_dot {
extern const DotKernel kInt8;
}

}  // namespace sparsecore::group_lists

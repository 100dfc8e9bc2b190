// Group lists: `rows` neighbouring output channels (a group) keep the same blocks of `cols` neighbouring inputs.
// Unstructured weights are 1 x 1, Group(r, c) is r x c. Made for kernels whose lanes are pixels or tokens.
//
//   groups   = ceil(n / rows)    channels past n in the last group are stored as zeros
//   panels   = ceil(k / depth)   the input is cut into panels of `depth` columns, a multiple of cols; a panel is what a
//                                kernel keeps in a near cache. Columns past k are stored as zeros
//   windows  = ceil(groups / window)   in every panel the groups of a window are sorted by length, longest first, so
//                                      that neighbouring loops have the same trip count
//   order    uint8 [panels, groups]       place i of a panel holds group  i / window * window + order[panel][i]
//   starts   int32 [panels, groups + 1]   place i has the records starts[panel][i] .. starts[panel][i + 1];
//                                         starts[p][groups] == starts[p + 1][0], and the last entry is `records`
//   index    uint8, or uint16 where depth / cols > 256   [records + 1]
//                                block of the panel: its first column is panel * depth + cols * index. Strictly
//                                ascending inside a list
//   values   [records + 1, cols, rows]   the weights of a record, column by column
//
// The last record of `index` and `values` is zero padding, which software pipelines may read.
//
// bytes = (records + 1) * (rows * cols * size_of(values) + size_of(index)) + panels * (5 * groups + 4)
#pragma once

#include "sparsecore/linear.h"
#include "sparsecore/planes.h"
#include "sparsecore/row_lists.h"

namespace sparsecore {

struct GroupLists {
  const void* values = nullptr;
  const void* index = nullptr;
  const uint8_t* order = nullptr;
  const int32_t* starts = nullptr;
  int64_t records = 0;
  int32_t rows = 1, cols = 1;  // 1, 2, 4, 8, 16 or 32
  int32_t depth = 128;         // a multiple of 16 and of cols, 16..65536
  int32_t window = 128;        // groups, 1..256
};

constexpr int64_t group_lists_index_bytes(int32_t cols, int32_t depth) { return depth / cols > 256 ? 2 : 1; }

// What is fastest for a weight of this shape and density (kept / all). Windows are also what threads share a layer by.
SPARSECORE_API int32_t group_lists_depth(int32_t rows, int32_t cols, int64_t k, double density);
SPARSECORE_API int32_t group_lists_window(int32_t rows, int64_t n);

// Cheap (starts and order): enough for a kernel to stay inside its buffers, given that every index is below
// depth / cols, which the kernels check panel by panel or make harmless. Called by every operator itself.
SPARSECORE_API Status group_lists_check(const GroupLists& weight, int64_t n, int64_t k);
// Everything: order a permutation of each window, indices ascending and inside k, padding zero. `where` (may be null)
// receives the record, or the place, of the first offence.
SPARSECORE_API Status group_lists_validate(const GroupLists& weight, int64_t n, int64_t k, int64_t* where);

// `mask` [groups, ceil(k / cols)]: 1 where the block is kept. `dense` [n, k] contiguous; zeros under the mask are kept.
SPARSECORE_API int64_t group_lists_count(const uint8_t* mask, int64_t groups, int64_t blocks);
// Fills the four arrays, sized as above, from the mask; weight gives rows, cols, depth and window.
SPARSECORE_API Status group_lists_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                       int32_t rows, int32_t cols, int32_t depth, int32_t window, void* values,
                                       void* index, uint8_t* order, int32_t* starts);
// `dense` [n, k] is overwritten, zeros included. The weight must be valid.
SPARSECORE_API Status group_lists_unpack(const GroupLists& weight, DType dtype, int64_t n, int64_t k, void* dense);
// The transposed matrix [k, n], which has cols x rows blocks: record i of it is record source[i] of `weight`,
// transposed. Arrays are sized as a packing of [k, n] with `depth_t` and `window_t`; source [records].
SPARSECORE_API Status group_lists_transpose(const GroupLists& weight, int64_t n, int64_t k, int32_t depth_t,
                                            int32_t window_t, void* index_t, uint8_t* order_t, int32_t* starts_t,
                                            int32_t* source);

// y = activation(scale * W x + bias), x [m, k] and y [m, n] as LinearIo has them. Compute::kInt8 quantises x per token,
// as shared_lists_linear does.
SPARSECORE_API Status group_lists_linear(const LinearIo& io, const GroupLists& weight);
// out [records + 1, cols, rows], float32; what belongs to no weight (padding, columns past k) is 0.
SPARSECORE_API Status group_lists_weight_grad(const WeightGradIo& io, const GroupLists& weight);

// A convolution, the weight [out_channels, kernel_h * kernel_w * channels] with columns (tap, channel):
//   y[o, p] = activation(scale[o] * sum over kept (tap, c) of w[o, tap * channels + c] * x[c, p shifted by tap]
//                        + bias[o] + residual[o, p])
// Nothing is unfolded in memory beyond one panel of a tile of pixels; 1x1 convolutions of float32 planes with stride 1
// read x where it lies.
struct ConvIo {
  const void* x = nullptr;
  void* y = nullptr;
  const void* residual = nullptr;  // like y, or null; may be y itself
  const void* bias = nullptr;      // [out_channels] or null, of type bias_dtype
  const float* weight_scale = nullptr;
  int64_t images = 1, channels = 0, out_channels = 0;
  int64_t x_image_stride = 0, x_stride = 0;  // in elements; x_stride between planes (kChw) or pixels (kHwc)
  int64_t y_image_stride = 0, y_stride = 0;
  int64_t residual_image_stride = 0, residual_stride = 0;
  ImageLayout x_layout = ImageLayout::kChw, y_layout = ImageLayout::kChw;  // the residual lies like y
  Window window;
  DType dtype = DType::kFloat32;  // of x, y and residual
  DType bias_dtype = DType::kFloat32;
  DType weight_dtype = DType::kFloat32;
  Activation activation = Activation::kNone;
  // kInt8 wants int8 weights and quantises x, symmetric, with exact int32 sums. Where x_scale is 0 every image has a
  // scale of its own, and one that holds an infinity or a NaN gives NaN. Otherwise all have x_scale, values past 127 of
  // it are cut off, infinities too, and a NaN counts as -127.
  Compute compute = Compute::kFloat32;
  float x_scale = 0;
  bool padded = false;  // planes of x, y and residual, where they are kChw: see kPlaneLanes
};
SPARSECORE_API Status group_lists_conv(const ConvIo& io, const GroupLists& weight);

// Gradient of the kept values of a convolution: grad_y as y, x as x of ConvIo, float32 sums.
struct ConvGradIo {
  const void* grad_y = nullptr;
  const void* x = nullptr;
  float* out = nullptr;  // [records + 1, cols, rows]
  int64_t images = 1, channels = 0, out_channels = 0;
  int64_t x_image_stride = 0, x_stride = 0, grad_y_image_stride = 0, grad_y_stride = 0;
  ImageLayout layout = ImageLayout::kChw;  // of both
  Window window;
  DType dtype = DType::kFloat32;
};
SPARSECORE_API Status group_lists_conv_weight_grad(const ConvGradIo& io, const GroupLists& weight);

}  // namespace sparsecore

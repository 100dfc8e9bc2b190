// The dense operators on planes: what drivers and kernels of this family share.
//
// A driver (depthwise.cpp, stem.cpp, pool.cpp, whole_planes.cpp) checks, cuts the work into tasks and calls a kernel
// on some rows of some planes of one image. No output depends on how the work was cut. Element (r, c) of a plane is at
// r * width + c. planes_scalar.cpp says what each kernel computes.
#pragma once

#include "sparsecore/planes.h"

namespace sparsecore::planes {

// Rows [row_begin, row_end) of the outputs of some planes.
struct DepthwiseRows {
  const float* x;  // the planes, all of their rows
  float* y;
  const float* weight;  // [planes, kernel_h * kernel_w]
  const float* bias;    // [planes] or null
  int64_t planes, x_stride, y_stride;
  const Window* window;
  int64_t row_begin, row_end;
  Activation activation;
  void* scratch;  // depthwise_scratch() bytes, or null for none
};

// Rows [row_begin, row_end) of all output planes of one image.
struct StemRows {
  const float* x;
  float* y;
  const float* weight;  // [out_channels, kernel_h * kernel_w * channels]
  const float* bias;    // [out_channels] or null
  int64_t channels, out_channels, x_stride, y_stride;
  ImageLayout x_layout;
  const Window* window;
  int64_t row_begin, row_end;
  Activation activation;
  void* scratch;  // stem_scratch() bytes, or null for none
};

struct PoolRows {
  const float* x;  // one plane
  float* y;
  const Window* window;
  int64_t row_begin, row_end;
  Pool pool;
  float* row;  // pool_scratch() bytes, or null for none
};

// y[i] = activation(factor * x[i] + addend[i]), i < count; no addend where it is null.
struct Line {
  const float* x;
  const float* addend;
  float factor;
  float* y;
  int64_t count;
  Activation activation;
};

// y[o] = activation(bias[o] + sum over k of weight[o, k] * x[k])
struct DenseRows {
  const float* x;
  const float* weight;  // [n, k]
  const float* bias;    // [n] or null
  float* y;
  int64_t n, k;
  Activation activation;
};

struct Kernel {
  Isa isa;
  const char* name;
  void (*depthwise)(const DepthwiseRows&);
  size_t (*depthwise_scratch)(const Window&);
  void (*stem)(const StemRows&);
  size_t (*stem_scratch)(const Window&, int64_t channels, int64_t out_channels);
  void (*pool)(const PoolRows&);
  size_t (*pool_scratch)(const Window&);
  float (*sum)(const float* x, int64_t count);
  void (*line)(const Line&);
  void (*dense)(const DenseRows&);
};

// The best row of the table for current_isa().
const Kernel& kernel();

// Planes of `area` elements `stride` apart, images `image_stride` apart, that may be touched up to whole kPlaneLanes
// where they are padded: kOk if none of this overlaps.
Status check_planes(int64_t images, int64_t channels, int64_t area, int64_t image_stride, int64_t stride, bool padded);

// Calls body(image, plane_begin, plane_end, row_begin, row_end) for parts of [images, planes, rows] that are about
// equal and enough for all threads: planes apart where there are enough of them, rows apart otherwise.
struct Cut {
  int64_t images, planes, rows;
  int64_t plane_parts, row_parts;

  Cut(int64_t images, int64_t planes, int64_t rows);
  int64_t tasks() const { return images * plane_parts * row_parts; }
};
template <typename Body>
void run_task(const Cut& cut, int64_t task, Body&& body) {
  const int64_t row = task % cut.row_parts, plane = task / cut.row_parts % cut.plane_parts,
                image = task / cut.row_parts / cut.plane_parts;
  body(image, plane * cut.planes / cut.plane_parts, (plane + 1) * cut.planes / cut.plane_parts,
       row * cut.rows / cut.row_parts, (row + 1) * cut.rows / cut.row_parts);
}

namespace scalar {
extern const Kernel kKernel;
}
namespace avx2 {
extern const Kernel kKernel;
}
namespace avx512 {
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

}  // namespace sparsecore::planes

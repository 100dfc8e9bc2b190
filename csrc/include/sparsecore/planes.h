// Images and the dense operators that keep a network in channel-major layout between its sparse convolutions.
//
// An image is [channels, height, width]; rows of a plane follow each other without gaps, planes are `x_stride` elements
// apart. Sums are float32. Every operator fuses bias and activation; none reads or writes outside what it is told.
#pragma once

#include "sparsecore/types.h"

namespace sparsecore {

enum class ImageLayout : int32_t {
  kChw = 0,  // planes: element (c, p) at c * stride + p
  kHwc = 1,  // pixels: element (c, p) at p * stride + c
};

// Planes whose buffers say `padded` may be read and written up to the next multiple of this many elements: kernels then
// use whole registers. What is read there may be anything, and is never mixed into a result that counts.
constexpr int64_t kPlaneLanes = 16;

// Kernel, stride, padding, dilation and both sizes of a convolution or a pooling window. Padding below and to the right
// follows from the output size.
struct Window {
  int64_t height = 0, width = 0;          // of x
  int64_t out_height = 0, out_width = 0;  // of y
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0;
  int64_t dilation_h = 1, dilation_w = 1;
};
// Positive sizes, no window wholly outside x, products that fit.
SPARSECORE_API Status check_window(const Window& window);

// y[c, p] = activation(bias[c] + sum over taps of weight[c, tap] * x[c, p shifted by tap])
struct DepthwiseIo {
  const float* x = nullptr;       // [images, channels, height * width]
  float* y = nullptr;             // [images, channels, out_height * out_width]
  const float* weight = nullptr;  // [channels, kernel_h * kernel_w]
  const float* bias = nullptr;    // [channels] or null
  int64_t images = 1, channels = 0;
  int64_t x_image_stride = 0, x_stride = 0, y_image_stride = 0, y_stride = 0;
  Window window;
  Activation activation = Activation::kNone;
  bool padded = false;  // planes of x and y, see kPlaneLanes
};
// Fast for 3x3 and 5x5 with stride 1 or 2 and dilation 1; every other window is computed by plain loops.
SPARSECORE_API Status depthwise_conv(const DepthwiseIo& io);

// A dense convolution of few input channels, the first layer of an image network: y is CHW.
//   y[o, p] = activation(bias[o] + sum over taps and c of weight[o, tap * channels + c] * x[c, p shifted by tap])
struct StemIo {
  const float* x = nullptr;  // CHW or HWC
  float* y = nullptr;        // CHW
  const float* weight = nullptr;
  const float* bias = nullptr;
  int64_t images = 1, channels = 0, out_channels = 0;
  int64_t x_image_stride = 0, x_stride = 0, y_image_stride = 0, y_stride = 0;
  ImageLayout x_layout = ImageLayout::kChw;
  Window window;
  Activation activation = Activation::kNone;
  bool padded = false;  // planes of y (and of x where it is CHW)
};
SPARSECORE_API Status stem_conv(const StemIo& io);

// Pooling over windows; an average counts the elements inside x (count_include_pad false), a maximum ignores the rest.
enum class Pool : int32_t { kAverage = 0, kMaximum = 1, kAverageWithPadding = 2 };
struct PoolIo {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t images = 1, channels = 0;
  int64_t x_image_stride = 0, x_stride = 0, y_image_stride = 0, y_stride = 0;
  Window window;
  Pool pool = Pool::kAverage;
};
SPARSECORE_API Status pool_planes(const PoolIo& io);

// Whole planes and vectors of one value per channel.
struct PlanesIo {
  const float* x = nullptr;   // [channels, pixels], planes x_stride apart
  const float* x2 = nullptr;  // the second operand where there is one, like x
  float* y = nullptr;
  int64_t channels = 0, pixels = 0;
  int64_t x_stride = 0, x2_stride = 0, y_stride = 0;
  Activation activation = Activation::kNone;
  bool padded = false;
};
// y[c] = mean over pixels of x[c, :]; y is [channels], dense.
SPARSECORE_API Status average_planes(const PlanesIo& io);
// y[c, p] = activation(x[c, p] + x2[c, p])
SPARSECORE_API Status add_planes(const PlanesIo& io);
// y[c, p] = activation(x[c, p] * x2[c]); x2 is [channels], dense. May work in place.
SPARSECORE_API Status scale_planes(const PlanesIo& io);
// y[c, p] = activation(x[c, p]). May work in place.
SPARSECORE_API Status activate_planes(const PlanesIo& io);

// Squeeze and excite: y = x * gate(W2 act(W1 mean(x) + b1) + b2), with dense W1 [squeezed, channels] and
// W2 [channels, squeezed]. May work in place. No memory is asked for beyond scratch().
struct SqueezeExciteIo {
  PlanesIo planes;  // x, y; x2 and activation are not used
  const float* weight1 = nullptr;
  const float* bias1 = nullptr;
  const float* weight2 = nullptr;
  const float* bias2 = nullptr;
  int64_t squeezed = 0;
  Activation inner = Activation::kRelu, gate = Activation::kSigmoid;
};
SPARSECORE_API Status squeeze_excite(const SqueezeExciteIo& io);

}  // namespace sparsecore

// Image tensors [N, C, H, W] as the kernels take them: planes (contiguous tensors and slices of channels) or pixels
// (channels_last).
#pragma once

#include "sparsecore/planes.h"
#include "torch/tensors.h"

namespace sparsecore {

struct Image {
  Tensor tensor;  // keeps a copy alive where one was needed
  ImageLayout layout = ImageLayout::kChw;
  int64_t image_stride = 0, stride = 0;
};

// Whether a tensor lies in this layout; fills `image` if so.
bool lies_as(const Tensor& t, ImageLayout layout, Image& image);
// The tensor as it lies, planes before pixels, or a copy as planes.
Image as_image(const Tensor& t);
// The tensor in this layout, copied where it lies otherwise.
Image as_image(const Tensor& t, ImageLayout layout);
Tensor empty_image(int64_t images, int64_t channels, const Window& w, ScalarType type, ImageLayout layout);

// A CPU tensor of four dimensions.
void require_image(const char* function, const char* name, const Tensor& t);

using Sizes = std::vector<int64_t>;
// kernel, stride and dilation are [vertical, horizontal]; padding is [top, left, bottom, right].
Window window_of(const char* function, const Tensor& input, const Sizes& kernel, const Sizes& stride,
                 const Sizes& padding, const Sizes& dilation);

}  // namespace sparsecore

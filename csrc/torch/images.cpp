#include "torch/images.h"

#include <torch/headeronly/util/Exception.h>

namespace sparsecore {
namespace {

// Whether the pixels of a plane follow each other `step` apart, whatever the strides of dimensions of size 1 say.
bool pixels_follow(const Tensor& t, int64_t step) {
  const int64_t height = t.size(2), width = t.size(3);
  return (width <= 1 || t.stride(3) == step) && (height <= 1 || t.stride(2) == width * step);
}

torch::headeronly::MemoryFormat format_of(ImageLayout layout) {
  return layout == ImageLayout::kChw ? torch::headeronly::MemoryFormat::Contiguous
                                     : torch::headeronly::MemoryFormat::ChannelsLast;
}

}  // namespace

bool lies_as(const Tensor& t, ImageLayout layout, Image& image) {
  const int64_t images = t.size(0), channels = t.size(1), height = t.size(2), width = t.size(3);
  image.tensor = t;
  image.layout = layout;
  if (layout == ImageLayout::kChw) {
    image.stride = channels > 1 ? t.stride(1) : height * width;
    if (!pixels_follow(t, 1) || image.stride < height * width) return false;
    image.image_stride = images > 1 ? t.stride(0) : channels * image.stride;
  } else {
    image.stride = width > 1 ? t.stride(3) : height > 1 ? t.stride(2) : channels;
    if ((channels > 1 && t.stride(1) != 1) || !pixels_follow(t, image.stride) || image.stride < channels) return false;
    image.image_stride = images > 1 ? t.stride(0) : height * width * image.stride;
  }
  return image.image_stride > 0 || images <= 1 || t.numel() == 0;
}

Image as_image(const Tensor& t) {
  Image image;
  if (lies_as(t, ImageLayout::kChw, image) || lies_as(t, ImageLayout::kHwc, image)) return image;
  lies_as(torch::stable::contiguous(t), ImageLayout::kChw, image);
  return image;
}

Image as_image(const Tensor& t, ImageLayout layout) {
  Image image;
  if (!lies_as(t, layout, image)) lies_as(torch::stable::contiguous(t, format_of(layout)), layout, image);
  return image;
}

Tensor empty_image(int64_t images, int64_t channels, const Window& w, ScalarType type, ImageLayout layout) {
  const std::vector<int64_t> sizes = {images, channels, w.out_height, w.out_width};
  return torch::stable::empty(sizes, type, std::nullopt, std::nullopt, std::nullopt, format_of(layout));
}

void require_image(const char* function, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.is_cpu(), function, ": ", name, " must be a CPU tensor. Move it with .cpu().");
  STD_TORCH_CHECK(t.dim() == 4, function, ": ", name, " must be (images, channels, height, width), got ", t.dim(),
                  " dimensions.");
}

Window window_of(const char* function, const Tensor& input, const Sizes& kernel, const Sizes& stride,
                 const Sizes& padding, const Sizes& dilation) {
  const auto all = [](const Sizes& sizes, size_t count, int64_t low) {
    if (sizes.size() != count) return false;
    for (const int64_t size : sizes)
      if (size < low || size > INT32_MAX) return false;
    return true;
  };
  STD_TORCH_CHECK(all(kernel, 2, 1) && all(stride, 2, 1) && all(dilation, 2, 1), function,
                  ": kernel_size, stride and dilation must be two positive sizes each.");
  STD_TORCH_CHECK(all(padding, 4, 0), function, ": padding must be (top, left, bottom, right), none negative.");
  Window w;
  w.height = input.size(2), w.width = input.size(3);
  w.kernel_h = kernel[0], w.kernel_w = kernel[1];
  w.stride_h = stride[0], w.stride_w = stride[1];
  w.pad_top = padding[0], w.pad_left = padding[1];
  w.dilation_h = dilation[0], w.dilation_w = dilation[1];
  const int64_t high = w.height + padding[0] + padding[2] - w.dilation_h * (w.kernel_h - 1) - 1,
                wide = w.width + padding[1] + padding[3] - w.dilation_w * (w.kernel_w - 1) - 1;
  STD_TORCH_CHECK(w.height > 0 && w.width > 0 && high >= 0 && wide >= 0, function, ": images of ", w.height, " x ",
                  w.width, " are smaller than the kernel, even with their padding.");
  w.out_height = high / w.stride_h + 1;
  w.out_width = wide / w.stride_w + 1;
  return w;
}

}  // namespace sparsecore

// The columns of a convolution, unfolded for one panel and one tile of pixels: column (tap, channel) of output pixel p
// is x[channel, p shifted by tap], zero where that lies outside the image.
#pragma once

#include "cpu/group_lists/group_lists.h"

namespace sparsecore::group_lists {

// One side of a convolution: images of planes or of pixels.
struct Images {
  const void* data;
  int64_t image_stride, stride;
  ImageLayout layout;
  DType dtype;
  int64_t channels;
  Window window;

  // Every output pixel reads its own pixel and no other.
  bool pointwise() const;
  int64_t out_pixels() const { return window.out_height * window.out_width; }
  const char* at(int64_t image, int64_t element) const {
    return static_cast<const char*>(data) + (image * image_stride + element) * size_of(dtype);
  }
};

// Bytes that pack_columns wants beside the panel: a row of `columns` elements for every lane, where pixels lie
// together.
int64_t staging_bytes(const Images& x, int columns, int lanes);

// panel [padded_columns, lanes]: columns first .. first + columns of output pixels pixel .. pixel + tokens. What is
// past them, to padded_columns and to lanes, is zero. lanes is a multiple of the kernel's vector.
void pack_columns(const Kernel& kernel, const Images& x, int64_t image, int64_t first, int columns, int padded_columns,
                  int64_t pixel, int tokens, int lanes, float* panel, char* staging);

// The same for whole channels without a window: panel [padded_channels, lanes] of channels first .. first + channels.
void pack_channels(const Kernel& kernel, const Images& y, int64_t image, int64_t first, int64_t channels,
                   int64_t padded_channels, int64_t pixel, int tokens, int lanes, float* panel);

}  // namespace sparsecore::group_lists

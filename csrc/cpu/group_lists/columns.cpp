#include "cpu/group_lists/columns.h"

#include <algorithm>
#include <cstring>

#include "cpu/narrow.h"

namespace sparsecore::group_lists {
namespace {

// A tap and a channel; the columns of a weight go through the channels of one tap, then of the next.
struct Place {
  int64_t channel, row_shift, column_shift;
};

Place place_of(const Images& x, int64_t column) {
  const Window& w = x.window;
  const int64_t tap = column / x.channels;
  return {column % x.channels, tap / w.kernel_w * w.dilation_h - w.pad_top,
          tap % w.kernel_w * w.dilation_w - w.pad_left};
}

void copy(const float* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }
template <typename T>
void copy(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}

// Part of one output row: pixels [begin, end) of row `out_row`, from the plane of one channel.
template <typename T>
void copy_row(const T* plane, const Window& w, const Place& place, int64_t out_row, int64_t begin, int64_t end,
              float* to) {
  const int64_t row = out_row * w.stride_h + place.row_shift;
  // Inside are the pixels with 0 <= pixel * stride_w + column_shift < width.
  int64_t inside = begin, outside = begin;
  if (row >= 0 && row < w.height) {
    const int64_t low = -place.column_shift, high = w.width - place.column_shift;
    inside = std::clamp((low + w.stride_w - 1) / w.stride_w, begin, end);
    if (low <= 0) inside = begin;
    outside = high <= 0 ? inside : std::clamp((high + w.stride_w - 1) / w.stride_w, inside, end);
  }
  std::fill(to, to + (inside - begin), 0.0f);
  if (inside < outside) {
    const T* from = plane + row * w.width + inside * w.stride_w + place.column_shift;
    if (w.stride_w == 1)
      copy(from, outside - inside, to + (inside - begin));
    else
      for (int64_t i = inside; i < outside; ++i, from += w.stride_w) to[i - begin] = widen(*from);
  }
  std::fill(to + (outside - begin), to + (end - begin), 0.0f);
}

template <typename T>
void pack_planes(const T* image, const Images& x, int64_t first, int columns, int64_t pixel, int tokens, int lanes,
                 float* panel) {
  const int64_t width = x.window.out_width;
  for (int c = 0; c < columns; ++c, panel += lanes) {
    const Place place = place_of(x, first + c);
    for (int t = 0; t < tokens;) {
      const int64_t row = (pixel + t) / width, begin = (pixel + t) % width,
                    end = std::min<int64_t>(width, begin + tokens - t);
      copy_row(image + place.channel * x.stride, x.window, place, row, begin, end, panel + t);
      t += static_cast<int>(end - begin);
    }
    std::fill(panel + tokens, panel + lanes, 0.0f);
  }
}

// Channels of a pixel lie together: they are gathered into rows, a tap at a time, and turned.
void pack_pixels(const Kernel& kernel, const Images& x, int64_t image, int64_t first, int columns, int64_t pixel,
                 int tokens, int lanes, float* panel, char* staging) {
  const Window& w = x.window;
  for (int c = 0; c < columns;) {
    const Place place = place_of(x, first + c);
    const int run = static_cast<int>(std::min<int64_t>(columns - c, x.channels - place.channel));
    const int64_t bytes = run * size_of(x.dtype);
    for (int t = 0; t < tokens; ++t) {
      const int64_t row = (pixel + t) / w.out_width * w.stride_h + place.row_shift,
                    column = (pixel + t) % w.out_width * w.stride_w + place.column_shift;
      if (row >= 0 && row < w.height && column >= 0 && column < w.width)
        std::memcpy(staging + t * bytes, x.at(image, (row * w.width + column) * x.stride + place.channel), bytes);
      else
        std::memset(staging + t * bytes, 0, bytes);
    }
    kernel.pack(staging, x.dtype, run, tokens, run, lanes, panel + int64_t{c} * lanes);
    c += run;
  }
}

}  // namespace

bool Images::pointwise() const {
  const Window& w = window;
  return w.kernel_h == 1 && w.kernel_w == 1 && w.stride_h == 1 && w.stride_w == 1 && w.pad_top == 0 &&
         w.pad_left == 0 && w.out_height == w.height && w.out_width == w.width;
}

int64_t staging_bytes(const Images& x, int columns, int lanes) {
  return x.layout == ImageLayout::kHwc && !x.pointwise() ? int64_t{columns} * lanes * size_of(x.dtype) : 0;
}

void pack_columns(const Kernel& kernel, const Images& x, int64_t image, int64_t first, int columns, int padded_columns,
                  int64_t pixel, int tokens, int lanes, float* panel, char* staging) {
  if (x.pointwise())
    return pack_channels(kernel, x, image, first, columns, padded_columns, pixel, tokens, lanes, panel);
  if (x.layout == ImageLayout::kHwc) {
    pack_pixels(kernel, x, image, first, columns, pixel, tokens, lanes, panel, staging);
  } else {
    const char* planes = x.at(image, 0);
    switch (x.dtype) {
      case DType::kBFloat16:
        pack_planes(reinterpret_cast<const BFloat16*>(planes), x, first, columns, pixel, tokens, lanes, panel);
        break;
      case DType::kFloat16:
        pack_planes(reinterpret_cast<const Float16*>(planes), x, first, columns, pixel, tokens, lanes, panel);
        break;
      default: pack_planes(reinterpret_cast<const float*>(planes), x, first, columns, pixel, tokens, lanes, panel);
    }
  }
  std::fill(panel + int64_t{columns} * lanes, panel + int64_t{padded_columns} * lanes, 0.0f);
}

void pack_channels(const Kernel& kernel, const Images& y, int64_t image, int64_t first, int64_t channels,
                   int64_t padded_channels, int64_t pixel, int tokens, int lanes, float* panel) {
  if (y.layout == ImageLayout::kHwc) {
    if (channels > 0)
      kernel.pack(y.at(image, pixel * y.stride + first), y.dtype, y.stride, tokens, static_cast<int>(channels), lanes,
                  panel);
  } else {
    for (int64_t c = 0; c < channels; ++c) {
      float* row = panel + c * lanes;
      kernel.widen(y.at(image, (first + c) * y.stride + pixel), y.dtype, tokens, row);
      std::fill(row + tokens, row + lanes, 0.0f);
    }
  }
  std::fill(panel + channels * lanes, panel + padded_channels * lanes, 0.0f);
}

}  // namespace sparsecore::group_lists

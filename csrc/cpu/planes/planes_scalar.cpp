// The specification: every sum in the order of its taps, bias first.
#include <limits>

#include "cpu/activate.h"
#include "cpu/planes/planes.h"

namespace sparsecore::planes::scalar {
namespace {

// Calls body(tap, row, column) for the taps of output (r, c) that lie inside x.
template <typename Body>
void for_taps(const Window& window, int64_t r, int64_t c, Body&& body) {
  for (int64_t i = 0; i < window.kernel_h; ++i) {
    const int64_t row = r * window.stride_h - window.pad_top + i * window.dilation_h;
    if (row < 0 || row >= window.height) continue;
    for (int64_t j = 0; j < window.kernel_w; ++j) {
      const int64_t column = c * window.stride_w - window.pad_left + j * window.dilation_w;
      if (column >= 0 && column < window.width) body(i * window.kernel_w + j, row, column);
    }
  }
}

void depthwise(const DepthwiseRows& rows) {
  const Window& window = *rows.window;
  for (int64_t p = 0; p < rows.planes; ++p) {
    const float* x = rows.x + p * rows.x_stride;
    const float* weight = rows.weight + p * window.kernel_h * window.kernel_w;
    float* y = rows.y + p * rows.y_stride;
    for (int64_t r = rows.row_begin; r < rows.row_end; ++r)
      for (int64_t c = 0; c < window.out_width; ++c) {
        float sum = rows.bias ? rows.bias[p] : 0.0f;
        for_taps(window, r, c, [&](int64_t tap, int64_t row, int64_t column) {
          sum += weight[tap] * x[row * window.width + column];
        });
        y[r * window.out_width + c] = activate(sum, rows.activation);
      }
  }
}

void stem(const StemRows& rows) {
  const Window& window = *rows.window;
  const bool hwc = rows.x_layout == ImageLayout::kHwc;
  const int64_t pixel_step = hwc ? rows.x_stride : 1, channel_step = hwc ? 1 : rows.x_stride;
  for (int64_t o = 0; o < rows.out_channels; ++o) {
    const float* weight = rows.weight + o * window.kernel_h * window.kernel_w * rows.channels;
    float* y = rows.y + o * rows.y_stride;
    for (int64_t r = rows.row_begin; r < rows.row_end; ++r)
      for (int64_t c = 0; c < window.out_width; ++c) {
        float sum = rows.bias ? rows.bias[o] : 0.0f;
        for_taps(window, r, c, [&](int64_t tap, int64_t row, int64_t column) {
          const float* pixel = rows.x + (row * window.width + column) * pixel_step;
          for (int64_t i = 0; i < rows.channels; ++i) sum += weight[tap * rows.channels + i] * pixel[i * channel_step];
        });
        y[r * window.out_width + c] = activate(sum, rows.activation);
      }
  }
}

// NaN wins a maximum. A window whose every tap is outside gives minus infinity, and 0 as an average.
void pool(const PoolRows& rows) {
  const Window& window = *rows.window;
  for (int64_t r = rows.row_begin; r < rows.row_end; ++r)
    for (int64_t c = 0; c < window.out_width; ++c) {
      float largest = -std::numeric_limits<float>::infinity(), sum = 0.0f;
      int64_t inside = 0;
      for_taps(window, r, c, [&](int64_t, int64_t row, int64_t column) {
        const float value = rows.x[row * window.width + column];
        largest = value > largest || value != value ? value : largest;
        sum += value;
        ++inside;
      });
      const int64_t count = rows.pool == Pool::kAverage ? (inside ? inside : 1) : window.kernel_h * window.kernel_w;
      rows.y[r * window.out_width + c] = rows.pool == Pool::kMaximum ? largest : sum / static_cast<float>(count);
    }
}

float sum(const float* x, int64_t count) {
  float total = 0.0f;
  for (int64_t i = 0; i < count; ++i) total += x[i];
  return total;
}

void line(const Line& line) {
  for (int64_t i = 0; i < line.count; ++i) {
    const float scaled = line.factor * line.x[i];
    line.y[i] = activate(line.addend ? scaled + line.addend[i] : scaled, line.activation);
  }
}

void dense(const DenseRows& rows) {
  for (int64_t o = 0; o < rows.n; ++o) {
    float total = rows.bias ? rows.bias[o] : 0.0f;
    for (int64_t k = 0; k < rows.k; ++k) total += rows.weight[o * rows.k + k] * rows.x[k];
    rows.y[o] = activate(total, rows.activation);
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kScalar,
                        .name = "scalar::planes",
                        .depthwise = depthwise,
                        .depthwise_scratch = [](const Window&) { return size_t{0}; },
                        .stem = stem,
                        .stem_scratch = [](const Window&, int64_t, int64_t) { return size_t{0}; },
                        .pool = pool,
                        .pool_scratch = [](const Window&) { return size_t{0}; },
                        .sum = sum,
                        .line = line,
                        .dense = dense};

}  // namespace sparsecore::planes::scalar

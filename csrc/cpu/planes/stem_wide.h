// The dense first convolution as a product of weights and shifted rows.
//
// The rows that a few rows of outputs reach over are copied, channel by channel, with their padding and taken apart by
// stride (phases.h), about 24 KiB. A vector of outputs then is the sum over (tap, channel) of a broadcast weight times
// a vector of neighbouring floats: kStemOutputs channels x kStemVectors vectors of sums stay in registers. Weights are
// turned once per call into [channels / kStemOutputs, taps * channels, kStemOutputs].
#pragma once

#include "cpu/each.h"
#include "cpu/planes/finish.h"
#include "cpu/planes/phases.h"

namespace sparsecore::planes {
namespace {

template <typename V>
struct Stem {
  using F = typename V::F;
  static constexpr int kOutputs = V::kStemOutputs, kVectors = V::kStemVectors;

  // What lies in scratch, each part on a line of its own.
  struct Layout {
    int64_t products, groups, row_floats, at_once;  // of one output, of output channels, of an input row, output rows
    int64_t weights, rows, bytes;                   // where they begin; places of taps are first

    Layout(const Window& window, int64_t channels, int64_t out_channels) {
      const auto lines = [](int64_t size) { return (size + 63) / 64 * 64; };
      products = window.kernel_h * window.kernel_w * channels;
      groups = (out_channels + kOutputs - 1) / kOutputs;
      row_floats = channels * Phases(window, V::kLanes).row();
      at_once = row_floats ? rows_at_once(window, row_floats) : 0;
      weights = lines(products * static_cast<int64_t>(sizeof(int64_t)));
      rows = weights + lines(groups * products * kOutputs * static_cast<int64_t>(sizeof(float)));
      bytes = rows + (at_once ? rows_reached(window, at_once) * row_floats * static_cast<int64_t>(sizeof(float)) : 0);
    }
    // Otherwise plain loops are as good.
    bool reasonable() const { return at_once > 0 && bytes < (int64_t{1} << 28); }
  };

  static size_t scratch(const Window& window, int64_t channels, int64_t out_channels) {
    const Layout layout(window, channels, out_channels);
    return layout.reasonable() ? layout.bytes : 0;
  }

  template <int kCount>
  static void tile(const float* x, const int64_t* taps, int64_t products, const float* weight, const StemRows& a,
                   int64_t output, float* y, int64_t pixels, const Finish<V>& finish) {
    F sums[kOutputs][kCount];
    each<kOutputs>([&]<size_t o>() {
      const bool real = a.bias && output + static_cast<int64_t>(o) < a.out_channels;
      const F bias = V::splat(real ? a.bias[output + o] : 0.0f);
      each<kCount>([&]<size_t v>() { sums[o][v] = bias; });
    });
    for (int64_t i = 0; i < products; ++i, weight += kOutputs) {
      const float* row = x + taps[i];
      F in[kCount];
      each<kCount>([&]<size_t v>() { in[v] = V::load(row + static_cast<int64_t>(v) * V::kLanes); });
      each<kOutputs>([&]<size_t o>() {
        const F w = V::splat(weight[o]);
        each<kCount>([&]<size_t v>() { sums[o][v] = V::madd(in[v], w, sums[o][v]); });
      });
    }
    each<kOutputs>([&]<size_t o>() {
      if (output + static_cast<int64_t>(o) < a.out_channels)
        each<kCount>([&]<size_t v>() {
          const int64_t at = static_cast<int64_t>(v) * V::kLanes;
          store_up_to<V>(y + static_cast<int64_t>(o) * a.y_stride + at, finish.clamp(sums[o][v]), pixels - at);
        });
    });
  }

  static void pack_weights(const StemRows& a, const Layout& layout, float* weights) {
    for (int64_t o = 0; o < layout.groups * kOutputs; ++o) {
      float* out = weights + o / kOutputs * layout.products * kOutputs + o % kOutputs;
      for (int64_t i = 0; i < layout.products; ++i)
        out[i * kOutputs] = o < a.out_channels ? a.weight[o * layout.products + i] : 0.0f;
    }
  }

  static void fill_rows(const StemRows& a, const Phases& phases, int64_t top, int64_t count, float* rows) {
    const Window& window = *a.window;
    const bool hwc = a.x_layout == ImageLayout::kHwc;
    const int64_t pixel_step = hwc ? a.x_stride : 1, channel_step = hwc ? 1 : a.x_stride;
    for (int64_t row = top; row < top + count; ++row)
      for (int64_t c = 0; c < a.channels; ++c, rows += phases.row()) {
        const bool inside = row >= 0 && row < window.height;
        split_row<V>(inside ? a.x + row * window.width * pixel_step + c * channel_step : nullptr, pixel_step, window,
                     phases, 0.0f, rows);
      }
  }

  static void run(const StemRows& a) {
    const Window& window = *a.window;
    const Layout layout(window, a.channels, a.out_channels);
    if (!layout.reasonable()) return scalar::kKernel.stem(a);
    const Phases phases(window, V::kLanes);
    char* memory = static_cast<char*>(a.scratch);
    int64_t* taps = reinterpret_cast<int64_t*>(memory);
    float* weights = reinterpret_cast<float*>(memory + layout.weights);
    float* rows = reinterpret_cast<float*>(memory + layout.rows);
    for (int64_t i = 0; i < window.kernel_h; ++i)
      for (int64_t j = 0; j < window.kernel_w; ++j)
        for (int64_t c = 0; c < a.channels; ++c)
          taps[(i * window.kernel_w + j) * a.channels + c] =
              i * window.dilation_h * layout.row_floats + c * phases.row() + phases.tap(window, j);
    pack_weights(a, layout, weights);
    const Finish<V> finish(a.activation);
    const int64_t width = window.out_width;
    for (int64_t begin = a.row_begin; begin < a.row_end; begin += layout.at_once) {
      const int64_t end = std::min(begin + layout.at_once, a.row_end);
      fill_rows(a, phases, begin * window.stride_h - window.pad_top, rows_reached(window, end - begin), rows);
      for (int64_t r = begin; r < end; ++r)
        for (int64_t g = 0; g < layout.groups; ++g) {
          for (int64_t column = 0; column < width; column += kVectors * V::kLanes) {
            const auto compute = [&](auto count) {
              tile<decltype(count)::value>(rows + (r - begin) * window.stride_h * layout.row_floats + column, taps,
                                           layout.products, weights + g * layout.products * kOutputs, a, g * kOutputs,
                                           a.y + g * kOutputs * a.y_stride + r * width + column, width - column,
                                           finish);
            };
            const int64_t vectors = (width - column + V::kLanes - 1) / V::kLanes;
            if (vectors == 1) {
              compute(std::integral_constant<int, 1>());
            } else if (vectors == 2 || kVectors == 2) {
              compute(std::integral_constant<int, 2>());
            } else {
              compute(std::integral_constant<int, kVectors>());
            }
          }
          for (int64_t o = g * kOutputs; o < std::min<int64_t>((g + 1) * kOutputs, a.out_channels); ++o)
            finish.activate(a.y + o * a.y_stride + r * width, width);
        }
    }
  }
};

}  // namespace
}  // namespace sparsecore::planes

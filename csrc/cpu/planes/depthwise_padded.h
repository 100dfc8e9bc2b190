// Depthwise of any window on rows that were copied with their padding (phases.h): no masks and no borders in the inner
// loops. The copy is one load and one store beside the kernel_h * kernel_w products of an output.
#pragma once

#include "cpu/planes/depthwise_tile.h"
#include "cpu/planes/phases.h"

namespace sparsecore::planes {
namespace {

template <typename V>
struct Padded {
  using F = typename V::F;

  // 0 where the window is too far spread to be worth it; taps' places come before the rows.
  static size_t scratch(const Window& window) {
    const Phases phases(window, V::kLanes);
    const int64_t rows = rows_at_once(window, phases.row());
    if (!rows) return 0;
    return window.kernel_w * sizeof(int64_t) + 64 + rows_reached(window, rows) * phases.row() * sizeof(float);
  }

  // Rows known when compiled: a square kernel without dilation.
  template <int K, int S>
  struct Taps {
    const float* rows;
    int64_t pitch;

    template <size_t i>
    void load(F (&x)[K]) const {
      const float* row = rows + static_cast<int64_t>(i) * S * pitch;
      each<K>([&]<size_t j>() { x[j] = V::load(row + static_cast<int64_t>(j % S) * pitch + j / S); });
    }
  };

  template <int K, int S>
  static void square(const DepthwiseRows& a, const float* rows, const Phases& phases, int64_t plane, int64_t begin,
                     int64_t end, const Finish<V>& finish) {
    const int64_t width = a.window->out_width;
    float* y = a.y + plane * a.y_stride;
    F weight[K * K];
    each<K * K>([&]<size_t i>() { weight[i] = V::splat(a.weight[plane * K * K + i]); });
    const F bias = V::splat(a.bias ? a.bias[plane] : 0.0f);
    constexpr int kTall = S == 1 && K == 3 ? 4 : 2;
    for_tiles<kTall>(begin, end, [&](auto height, int64_t r) {
      constexpr int T = decltype(height)::value;
      const float* first = rows + (r - begin) * S * phases.row();
      for (int64_t b = 0; b < column_blocks<V>(width); ++b) {
        const int64_t column = column_of_block<V>(b, width);
        F sums[T];
        sum_tile<V, K, S, T>(Taps<K, S>{first + column, phases.pitch}, weight, bias, sums);
        each<T>([&]<size_t t>() {
          store_up_to<V>(y + (r + static_cast<int64_t>(t)) * width + column, finish.clamp(sums[t]), width - column);
        });
      }
    });
  }

  // Four vectors of one output row, taps counted when run.
  static void any(const DepthwiseRows& a, const float* rows, const Phases& phases, const int64_t* taps, int64_t plane,
                  int64_t begin, int64_t end, const Finish<V>& finish) {
    constexpr int kVectors = 4;
    const Window& window = *a.window;
    const float* weight = a.weight + plane * window.kernel_h * window.kernel_w;
    const F bias = V::splat(a.bias ? a.bias[plane] : 0.0f);
    const int64_t width = window.out_width;
    for (int64_t r = begin; r < end; ++r)
      for (int64_t column = 0; column < width; column += kVectors * V::kLanes) {
        float* y = a.y + plane * a.y_stride + r * width + column;
        const auto sum = [&](auto vectors) {
          constexpr int kCount = decltype(vectors)::value;
          F sums[kCount];
          each<kCount>([&]<size_t v>() { sums[v] = bias; });
          for (int64_t i = 0; i < window.kernel_h; ++i) {
            const float* row = rows + ((r - begin) * window.stride_h + i * window.dilation_h) * phases.row() + column;
            for (int64_t j = 0; j < window.kernel_w; ++j) {
              const F w = V::splat(weight[i * window.kernel_w + j]);
              each<kCount>([&]<size_t v>() {
                sums[v] = V::madd(V::load(row + taps[j] + static_cast<int64_t>(v) * V::kLanes), w, sums[v]);
              });
            }
          }
          each<kCount>([&]<size_t v>() {
            const int64_t at = static_cast<int64_t>(v) * V::kLanes;
            store_up_to<V>(y + at, finish.clamp(sums[v]), width - column - at);
          });
        };
        switch (std::min<int64_t>(kVectors, column_blocks<V>(width - column))) {
          case 1: sum(std::integral_constant<int, 1>()); break;
          case 2: sum(std::integral_constant<int, 2>()); break;
          case 3: sum(std::integral_constant<int, 3>()); break;
          default: sum(std::integral_constant<int, 4>());
        }
      }
  }

  static void run(const DepthwiseRows& a) {
    const Window& window = *a.window;
    const Phases phases(window, V::kLanes);
    const int64_t at_once = rows_at_once(window, phases.row());
    if (!at_once) return scalar::kKernel.depthwise(a);
    int64_t* taps = static_cast<int64_t*>(a.scratch);
    for (int64_t j = 0; j < window.kernel_w; ++j) taps[j] = phases.tap(window, j);
    char* after = static_cast<char*>(a.scratch) + (window.kernel_w * sizeof(int64_t) + 63) / 64 * 64;
    float* rows = reinterpret_cast<float*>(after);
    const Finish<V> finish(a.activation);
    const bool square_kernel = window.kernel_h == window.kernel_w && window.stride_h == phases.count &&
                               window.dilation_h == 1 && window.dilation_w == 1;
    const int64_t shape = square_kernel ? 10 * window.kernel_h + window.stride_h : 0;
    for (int64_t p = 0; p < a.planes; ++p)
      for (int64_t begin = a.row_begin; begin < a.row_end; begin += at_once) {
        const int64_t end = std::min(begin + at_once, a.row_end);
        const int64_t top = begin * window.stride_h - window.pad_top;
        for (int64_t i = 0; i < rows_reached(window, end - begin); ++i) {
          const bool inside = top + i >= 0 && top + i < window.height;
          split_row<V>(inside ? a.x + p * a.x_stride + (top + i) * window.width : nullptr, 1, window, phases, 0.0f,
                       rows + i * phases.row());
        }
        switch (shape) {
          case 31: square<3, 1>(a, rows, phases, p, begin, end, finish); break;
          case 32: square<3, 2>(a, rows, phases, p, begin, end, finish); break;
          case 51: square<5, 1>(a, rows, phases, p, begin, end, finish); break;
          case 52: square<5, 2>(a, rows, phases, p, begin, end, finish); break;
          default: any(a, rows, phases, taps, p, begin, end, finish);
        }
        finish.activate(a.y + p * a.y_stride + begin * window.out_width, (end - begin) * window.out_width);
      }
  }
};

}  // namespace
}  // namespace sparsecore::planes

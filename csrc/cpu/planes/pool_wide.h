// Pooling, one direction after the other: the rows of a window become one row, which is taken apart by stride with its
// padding (phases.h); then the columns of a window are neighbouring vectors.
#pragma once

#include <limits>

#include "cpu/planes/finish.h"
#include "cpu/planes/phases.h"

namespace sparsecore::planes {
namespace {

template <typename V>
struct Pooling {
  using F = typename V::F;

  static size_t scratch(const Window& window) {
    const Phases phases(window, V::kLanes);
    if (!rows_at_once(window, phases.row())) return 0;
    return (phases.row() + window.width + window.out_width) * sizeof(float);
  }

  template <bool kMaximum>
  static F combine(F a, F b) {
    if constexpr (kMaximum) return V::max_or_nan(a, b);
    return V::add(a, b);
  }

  template <bool kMaximum>
  static void add_row(const float* x, int64_t width, float* row) {
    int64_t c = 0;
    for (; c + V::kLanes <= width; c += V::kLanes)
      V::store(row + c, combine<kMaximum>(V::load(row + c), V::load(x + c)));
    if (c < width)
      V::store_some(row + c, combine<kMaximum>(V::load_some(row + c, width - c), V::load_some(x + c, width - c)),
                    width - c);
  }

  template <bool kMaximum>
  static void pool(const PoolRows& a) {
    const Window& window = *a.window;
    const Phases phases(window, V::kLanes);
    const float nothing = kMaximum ? -std::numeric_limits<float>::infinity() : 0.0f;
    float *split = a.row, *row = split + phases.row(), *columns_inside = row + window.width;
    const auto taps_inside = [](int64_t first, int64_t taps, int64_t step, int64_t size) {
      int64_t count = 0;
      for (int64_t t = 0; t < taps; ++t) count += first + t * step >= 0 && first + t * step < size;
      return count;
    };
    if constexpr (!kMaximum)
      for (int64_t c = 0; c < window.out_width; ++c)
        columns_inside[c] = static_cast<float>(
            a.pool == Pool::kAverageWithPadding
                ? window.kernel_w
                : taps_inside(c * window.stride_w - window.pad_left, window.kernel_w, window.dilation_w, window.width));
    for (int64_t r = a.row_begin; r < a.row_end; ++r) {
      const int64_t top = r * window.stride_h - window.pad_top;
      std::fill(row, row + window.width, nothing);
      for (int64_t i = 0; i < window.kernel_h; ++i) {
        const int64_t at = top + i * window.dilation_h;
        if (at >= 0 && at < window.height) add_row<kMaximum>(a.x + at * window.width, window.width, row);
      }
      split_row<V>(row, 1, window, phases, nothing, split);
      const int64_t rows_inside = a.pool == Pool::kAverageWithPadding
                                      ? window.kernel_h
                                      : taps_inside(top, window.kernel_h, window.dilation_h, window.height);
      for (int64_t c = 0; c < window.out_width; c += V::kLanes) {
        const int64_t count = window.out_width - c;
        F result = V::splat(nothing);
        for (int64_t j = 0; j < window.kernel_w; ++j)
          result = combine<kMaximum>(result, V::load(split + phases.tap(window, j) + c));
        if constexpr (!kMaximum) {
          const F columns = count >= V::kLanes ? V::load(columns_inside + c) : V::load_some(columns_inside + c, count);
          const F elements = V::mul(V::splat(static_cast<float>(rows_inside)), columns);
          result = V::div(result, V::max(V::splat(1.0f), elements));
        }
        store_up_to<V>(a.y + r * window.out_width + c, result, count);
      }
    }
  }

  static void run(const PoolRows& a) {
    if (!a.row) return scalar::kKernel.pool(a);
    if (a.pool == Pool::kMaximum) {
      pool<true>(a);
    } else {
      pool<false>(a);
    }
  }
};

}  // namespace
}  // namespace sparsecore::planes

// Pooling, one direction after the other: the rows of a window become one row with its padding, a few of them at a
// time, so that none is read back while it is being written. Then the columns of a window are neighbouring vectors:
// where they lie for stride 1, every second float of two vectors for stride 2, and taken apart by stride (phases.h) for
// any other.
#pragma once

#include <limits>

#include "cpu/planes/finish.h"
#include "cpu/planes/phases.h"

namespace sparsecore::planes {
namespace {

template <typename V>
struct Pooling {
  using F = typename V::F;

  static constexpr int64_t kRows = 4;  // of outputs at a time

  // Floats of a row with its padding, up to the farthest vector of the last outputs.
  static int64_t pitch(const Window& window) {
    const int64_t outputs = (window.out_width + V::kLanes - 1) / V::kLanes * V::kLanes,
                  farthest = window.stride_w * outputs + (window.kernel_w - 1) * window.dilation_w;
    return std::max(window.stride_w <= 2 ? farthest : 0, window.pad_left + window.width);
  }

  static size_t scratch(const Window& window) {
    const Phases phases(window, V::kLanes);
    if (!rows_at_once(window, phases.row())) return 0;
    return (phases.row() + kRows * pitch(window) + window.out_width) * sizeof(float);
  }

  template <bool kMaximum>
  static F combine(F a, F b) {
    if constexpr (kMaximum) return V::max_or_nan(a, b);
    return V::add(a, b);
  }

  static int64_t taps_inside(int64_t first, int64_t taps, int64_t step, int64_t size) {
    int64_t count = 0;
    for (int64_t t = 0; t < taps; ++t) count += first + t * step >= 0 && first + t * step < size;
    return count;
  }

  // The rows [first, end) of x, `step` floats apart, as one. The last vector begins earlier where it can.
  template <bool kMaximum>
  static void merge_rows(const float* first, const float* end, int64_t step, int64_t width, float nothing, float* out) {
    for (int64_t c = 0; c < width; c += V::kLanes) {
      const int64_t column = c + V::kLanes <= width || width < V::kLanes ? c : width - V::kLanes;
      F result = V::splat(nothing);
      if (width < V::kLanes) {
        for (const float* x = first; x < end; x += step) result = combine<kMaximum>(result, V::load_some(x, width));
        V::store_some(out, result, width);
      } else {
        for (const float* x = first; x < end; x += step) result = combine<kMaximum>(result, V::load(x + column));
        V::store(out + column, result);
      }
    }
  }

  // What the columns of a window hold, for the outputs from c on. kStride 0: any, from phases.
  template <bool kMaximum, int kStride>
  static F merge_columns(const float* row, const Window& window, const Phases& phases, float nothing, int64_t c) {
    F result = V::splat(nothing);
    for (int64_t j = 0; j < window.kernel_w; ++j) {
      const float* tap = kStride ? row + kStride * c + j * window.dilation_w : row + phases.tap(window, j) + c;
      F column;
      if constexpr (kStride == 2) {
        column = V::even(V::load(tap), V::load(tap + V::kLanes));
      } else {
        column = V::load(tap);
      }
      result = combine<kMaximum>(result, column);
    }
    return result;
  }

  template <bool kMaximum, int kStride>
  static void pool(const PoolRows& a) {
    const Window& window = *a.window;
    const Phases phases(window, V::kLanes);
    const float nothing = kMaximum ? -std::numeric_limits<float>::infinity() : 0.0f;
    const int64_t length = pitch(window), dilated = window.dilation_h * window.width;
    float *split = a.row, *rows = split + phases.row(), *columns_inside = rows + kRows * length;
    std::fill(rows, rows + kRows * length, nothing);
    if constexpr (!kMaximum)
      for (int64_t c = 0; c < window.out_width; ++c)
        columns_inside[c] = static_cast<float>(
            a.pool == Pool::kAverageWithPadding
                ? window.kernel_w
                : taps_inside(c * window.stride_w - window.pad_left, window.kernel_w, window.dilation_w, window.width));
    for (int64_t begin = a.row_begin; begin < a.row_end; begin += kRows) {
      const int64_t end = std::min(begin + kRows, a.row_end);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t top = r * window.stride_h - window.pad_top,
                      above = top < 0 ? (-top + window.dilation_h - 1) / window.dilation_h : 0,
                      inside = taps_inside(top, window.kernel_h, window.dilation_h, window.height);
        const float* first = a.x + (top + above * window.dilation_h) * window.width;
        merge_rows<kMaximum>(first, first + inside * dilated, dilated, window.width, nothing,
                             rows + (r - begin) * length + window.pad_left);
      }
      for (int64_t r = begin; r < end; ++r) {
        const float* row = rows + (r - begin) * length;
        if constexpr (kStride == 0) {
          split_row<V>(row + window.pad_left, 1, window, phases, nothing, split);
          row = split;
        }
        const int64_t rows_inside =
            a.pool == Pool::kAverageWithPadding
                ? window.kernel_h
                : taps_inside(r * window.stride_h - window.pad_top, window.kernel_h, window.dilation_h, window.height);
        for (int64_t c = 0; c < window.out_width; c += V::kLanes) {
          const int64_t count = window.out_width - c;
          F result = merge_columns<kMaximum, kStride>(row, window, phases, nothing, c);
          if constexpr (!kMaximum) {
            const F columns =
                count >= V::kLanes ? V::load(columns_inside + c) : V::load_some(columns_inside + c, count);
            const F elements = V::mul(V::splat(static_cast<float>(rows_inside)), columns);
            result = V::div(result, V::max(V::splat(1.0f), elements));
          }
          store_up_to<V>(a.y + r * window.out_width + c, result, count);
        }
      }
    }
  }

  template <bool kMaximum>
  static void pool(const PoolRows& a) {
    switch (a.window->stride_w) {
      case 1: return pool<kMaximum, 1>(a);
      case 2: return pool<kMaximum, 2>(a);
      default: return pool<kMaximum, 0>(a);
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

// Rows copied with their padding and taken apart by stride, so that every tap of a window reads neighbouring floats:
//
//   phase f of a row holds x[stride * i + f - pad] at i, the padding value outside x;
//   tap j of output o reads phase  j * dilation % stride  at  o + j * dilation / stride
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/planes/planes.h"

namespace sparsecore::planes {
namespace {

struct Phases {
  int64_t count;  // the stride; 1 where there is one output only
  int64_t pitch;  // floats of a phase: whole vectors of outputs, and the farthest tap

  Phases(const Window& window, int64_t lanes) {
    count = window.out_width > 1 ? window.stride_w : 1;
    const int64_t outputs = (window.out_width + lanes - 1) / lanes * lanes;
    pitch = (outputs + (window.kernel_w - 1) * window.dilation_w / count + lanes - 1) / lanes * lanes;
  }
  int64_t row() const { return count * pitch; }
  int64_t tap(const Window& window, int64_t j) const {
    const int64_t column = j * window.dilation_w;
    return column % count * pitch + column / count;
  }
};

// Rows of x that `rows` rows of outputs reach over.
inline int64_t rows_reached(const Window& window, int64_t rows) {
  return (rows - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1;
}

// How many rows of outputs to prepare at once, so that what they reach over stays in the level 1 cache; 0 where not
// even a few rows would be reasonable.
inline int64_t rows_at_once(const Window& window, int64_t row_floats) {
  constexpr int64_t kUsual = 6 * 1024, kMost = 4 * 1024 * 1024, kFew = 4, kLongest = int64_t{1} << 20;
  if (window.out_width > kLongest || (window.kernel_w - 1) * window.dilation_w > kLongest ||
      (window.kernel_h - 1) * window.dilation_h > kLongest || window.stride_w > kLongest ||
      window.stride_h > kLongest || row_floats > kMost)
    return 0;
  const int64_t reached = rows_reached(window, 1);
  const int64_t rows =
      std::clamp((kUsual / row_floats - reached) / window.stride_h + 1, kFew, std::max(kFew, window.out_height));
  return rows_reached(window, rows) * row_floats <= kMost ? rows : 0;
}

template <typename V>
void copy_strided(const float* x, int64_t step, int64_t count, float* out) {
  if (step == 1) {
    std::memcpy(out, x, count * sizeof(float));
    return;
  }
  int64_t i = 0;
  if (step == 2)  // the pair of loads reads one element past the last it keeps
    for (; i + V::kLanes < count; i += V::kLanes)
      V::store(out + i, V::even(V::load(x + 2 * i), V::load(x + 2 * i + V::kLanes)));
  for (; i < count; ++i) out[i] = x[i * step];
}

// One row, its elements `step` apart; a row of padding where x is null.
template <typename V>
void split_row(const float* x, int64_t step, const Window& window, const Phases& phases, float padding, float* out) {
  for (int64_t f = 0; f < phases.count; ++f, out += phases.pitch) {
    // x[count * i + f - pad] is inside for i in [first, last).
    const auto reach = [&](int64_t column) {
      return std::clamp<int64_t>((column + window.pad_left - f + phases.count - 1) / phases.count, 0, phases.pitch);
    };
    const int64_t last = x ? reach(window.width) : 0;
    const int64_t first = std::min(reach(0), last);
    std::fill(out, out + first, padding);
    if (first < last)
      copy_strided<V>(x + (phases.count * first + f - window.pad_left) * step, step * phases.count, last - first,
                      out + first);
    std::fill(out + last, out + phases.pitch, padding);
  }
}

}  // namespace
}  // namespace sparsecore::planes

// Depthwise 3x3 and 5x5 with stride 1 or 2 for vectors with masked loads: x is read where it lies.
//
// A tile is a few output rows. It walks along the rows it reaches over, and loads every vector of them once: the taps
// of a row are the vector and its neighbour shifted against each other in registers, taken apart by stride before.
// (Loads at every shift would be cheap only where they stay inside a cache line, which almost none does.) Columns
// outside x are masked lanes, rows outside x are a row of zeros, so that the inner loops have no branch. Planes of one
// vector are walked down as a whole (depthwise_walk.h).
#pragma once

#include "cpu/planes/depthwise_padded.h"
#include "cpu/planes/depthwise_tile.h"
#include "cpu/planes/depthwise_walk.h"

namespace sparsecore::planes {
namespace {

template <typename V, int K, int S>
struct Direct {
  using F = typename V::F;
  static constexpr int kTall = S == 1 ? V::kDepthwiseRows : 2;
  static constexpr int rows_reached(int height) { return (height - 1) * S + K; }

  // Vector b of a row holds columns [b * S * kLanes - pad_left, ..), in S registers.
  struct Mask {
    typename V::Lanes lanes[S];  // inside x
  };

  // One mask more than blocks; the row of zeros after them begins a cache line.
  static size_t mask_bytes(int64_t blocks) { return ((blocks + 1) * sizeof(Mask) + 63) / 64 * 64; }
  static size_t scratch(const Window& window) {
    return mask_bytes(column_blocks<V>(window.out_width)) + window.width * sizeof(float);
  }

  static void describe(const Window& window, int64_t blocks, Mask* masks) {
    for (int64_t b = 0; b <= blocks; ++b)
      for (int s = 0; s < S; ++s) {
        const int64_t column = (b * S + s) * V::kLanes - window.pad_left;
        uint32_t bits = 0;
        for (int64_t lane = 0; lane < V::kLanes; ++lane)
          if (column + lane >= 0 && column + lane < window.width) bits |= 1u << lane;
        masks[b].lanes[s] = V::lanes(bits);
      }
  }

  struct Phases {
    F of[S];
  };
  static Phases load(const float* p, const Mask& mask) {
    if constexpr (S == 1) {
      return {{V::load(p, mask.lanes[0])}};
    } else {
      const F low = V::load(p, mask.lanes[0]), high = V::load(p + V::kLanes, mask.lanes[1]);
      return {{V::even(low, high), V::odd(low, high)}};
    }
  }

  template <int T>
  struct Taps {
    const Phases (&now)[rows_reached(T)];
    const Phases (&next)[rows_reached(T)];

    template <size_t i>
    void load(F (&x)[K]) const {
      each<K>([&]<size_t j>() { x[j] = V::template shift<j / S>(now[i].of[j % S], next[i].of[j % S]); });
    }
  };

  template <int T>
  static void tile(const float* const (&rows)[rows_reached(T)], const Mask* masks, int64_t blocks, const F* weight,
                   F bias, const Finish<V>& finish, float* y, const Window& window) {
    const int64_t width = window.out_width;
    // Behind the last vector there often is nothing but padding.
    const int64_t loads = blocks * S * V::kLanes - window.pad_left < window.width ? blocks : blocks - 1;
    Phases now[rows_reached(T)], next[rows_reached(T)];
    each<rows_reached(T)>([&]<size_t i>() { now[i] = load(rows[i], masks[0]); });
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t column = b * V::kLanes;
      if (b < loads) {
        each<rows_reached(T)>([&]<size_t i>() { next[i] = load(rows[i] + (column + V::kLanes) * S, masks[b + 1]); });
      } else {
        each<rows_reached(T)>([&]<size_t i>() { each<S>([&]<size_t s>() { next[i].of[s] = V::splat(0.0f); }); });
      }
      F sums[T];
      sum_tile<V, K, S, T>(Taps<T>{now, next}, weight, bias, sums);
      each<rows_reached(T)>([&]<size_t i>() { now[i] = next[i]; });
      if (column + V::kLanes <= width) {
        each<T>([&]<size_t t>() { V::store(y + static_cast<int64_t>(t) * width + column, finish.clamp(sums[t])); });
      } else {
        each<T>([&]<size_t t>() {
          V::store_some(y + static_cast<int64_t>(t) * width + column, finish.clamp(sums[t]), width - column);
        });
      }
    }
  }

  // Planes of one vector, from top to bottom.
  static constexpr int64_t kWalkWidth = S == 1 ? V::kLanes : V::kLanes - (K - 1) / 2;
  struct Down {
    const float *x, *zeros;
    int64_t row;  // the next one
    const Window& window;
    const Mask mask;
    float* y;
    const Finish<V>& finish;

    Phases load(int64_t i) const {
      const int64_t at = row + i;
      const bool inside = at >= 0 && at < window.height;
      return Direct::load((inside ? x + at * window.width : zeros) - window.pad_left, mask);
    }
    // Lanes behind the last column of x hold zeros, and those behind the last output nothing that is used.
    template <size_t j>
    F tap(const Phases& phases) const {
      return V::template shift<j / S>(phases.of[j % S], V::splat(0.0f));
    }
    void store(F sum) {
      store_up_to<V>(y, finish.clamp(sum), window.out_width);
      y += window.out_width;
    }
  };

  static void run(const DepthwiseRows& a) {
    const Window& window = *a.window;
    const int64_t blocks = column_blocks<V>(window.out_width);
    Mask* masks = static_cast<Mask*>(a.scratch);
    float* zeros = reinterpret_cast<float*>(static_cast<char*>(a.scratch) + mask_bytes(blocks));
    describe(window, blocks, masks);
    for (int64_t c = 0; c < window.width; ++c) zeros[c] = 0.0f;
    const Finish<V> finish(a.activation);
    const bool one = window.out_width <= kWalkWidth && window.width + window.pad_left <= S * V::kLanes;
    for (int64_t p = 0; p < a.planes; ++p) {
      const float* x = a.x + p * a.x_stride;
      float* y = a.y + p * a.y_stride;
      F weight[K * K];
      each<K * K>([&]<size_t i>() { weight[i] = V::splat(a.weight[p * K * K + i]); });
      const F bias = V::splat(a.bias ? a.bias[p] : 0.0f);
      if (one) {
        float* first = y + a.row_begin * window.out_width;
        Down down = {x, zeros, a.row_begin * S - window.pad_top, window, masks[0], first, finish};
        Walk<V, K, S, Down>::run(down, a.row_end - a.row_begin, weight, bias);
        finish.activate(first, (a.row_end - a.row_begin) * window.out_width);
        continue;
      }
      for_tiles<kTall>(a.row_begin, a.row_end, [&](auto height, int64_t r) {
        constexpr int T = decltype(height)::value;
        const float* rows[rows_reached(T)];
        for (int i = 0; i < rows_reached(T); ++i) {
          const int64_t row = r * S - window.pad_top + i;
          rows[i] = (row >= 0 && row < window.height ? x + row * window.width : zeros) - window.pad_left;
        }
        float* first = y + r * window.out_width;
        tile<T>(rows, masks, blocks, weight, bias, finish, first, window);
        finish.activate(first, T * window.out_width);
      });
    }
  }
};

// Which of these serves a window; all others are padded.
template <typename V>
struct Depthwise {
  static int64_t shape(const Window& window) {
    const bool square = window.kernel_h == window.kernel_w && window.stride_h == window.stride_w &&
                        window.dilation_h == 1 && window.dilation_w == 1;
    return square ? 10 * window.kernel_h + window.stride_h : 0;
  }

  static size_t scratch(const Window& window) {
    switch (shape(window)) {
      case 31: return Direct<V, 3, 1>::scratch(window);
      case 32: return Direct<V, 3, 2>::scratch(window);
      case 51: return Direct<V, 5, 1>::scratch(window);
      case 52: return Direct<V, 5, 2>::scratch(window);
      default: return Padded<V>::scratch(window);
    }
  }

  static void run(const DepthwiseRows& a) {
    switch (shape(*a.window)) {
      case 31: return Direct<V, 3, 1>::run(a);
      case 32: return Direct<V, 3, 2>::run(a);
      case 51: return Direct<V, 5, 1>::run(a);
      case 52: return Direct<V, 5, 2>::run(a);
      default: return Padded<V>::run(a);
    }
  }
};

}  // namespace
}  // namespace sparsecore::planes

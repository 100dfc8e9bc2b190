// Depthwise 3x3 and 5x5 with stride 1 or 2 for vectors with masked loads: x is read where it lies.
//
// Columns outside x are masked lanes, rows outside x are a row of zeros, so that the inner loops have no branch. A tile
// is 4 output rows (2 for stride 2) of one vector; 3x3 with stride 1 then takes 18 loads for 36 products.
//
// Planes at most half a vector wide (7x7, and up to 8x8) would leave most lanes idle: there a vector is any run of the
// plane's elements, over the ends of its rows, with a mask for each tap.
#pragma once

#include "cpu/planes/depthwise_padded.h"
#include "cpu/planes/planes.h"

namespace sparsecore::planes {
namespace {

template <typename V, int K, int S>
struct Direct {
  using F = typename V::F;
  using Lanes = typename V::Lanes;
  static constexpr int kTall = S == 1 ? 4 : 2;
  static constexpr int kMostRows = (kTall - 1) * S + K;
  // Stride 1 loads each shift. Stride 2 loads two vectors for two shifts, and takes them apart.
  static constexpr int kLoads = S == 1 ? K : (K + 1) / 2 * 2;
  static constexpr int64_t load_offset(int load) { return S == 1 ? load : load / 2 * 2 + load % 2 * V::kLanes; }

  struct Block {
    Lanes lanes[kLoads];  // inside x
    int64_t x_column, y_column, count;
    bool inside;  // all lanes of all loads
  };

  static size_t scratch(const Window& window) {
    return column_blocks<V>(window.out_width) * sizeof(Block) + window.width * sizeof(float);
  }

  static void describe_blocks(const Window& window, Block* blocks) {
    for (int64_t b = 0; b < column_blocks<V>(window.out_width); ++b) {
      Block& block = blocks[b];
      block.y_column = column_of_block<V>(b, window.out_width);
      block.x_column = block.y_column * S - window.pad_left;
      block.count = window.out_width - block.y_column;
      block.inside = true;
      for (int l = 0; l < kLoads; ++l) {
        uint32_t bits = 0;
        for (int64_t lane = 0; lane < V::kLanes; ++lane) {
          const int64_t column = block.x_column + load_offset(l) + lane;
          if (column >= 0 && column < window.width) bits |= 1u << lane;
        }
        block.lanes[l] = V::lanes(bits);
        block.inside = block.inside && bits == (1u << V::kLanes) - 1;
      }
    }
  }

  template <bool kInside>
  struct Taps {
    const float* const* rows;
    const Block& block;

    template <size_t i>
    void load(F (&x)[K]) const {
      const float* row = rows[i] + block.x_column;
      const auto at = [&](int l) {
        if constexpr (kInside) return V::load(row + load_offset(l));
        return V::load(row + load_offset(l), block.lanes[l]);
      };
      each<K>([&]<size_t j>() {
        if constexpr (S == 1) {
          x[j] = at(j);
        } else if constexpr (j % 2 == 0) {
          const F first = at(j), second = at(j + 1);
          x[j] = V::even(first, second);
          if constexpr (j + 1 < K) x[j + 1] = V::odd(first, second);
        }
      });
    }
  };

  template <int T, bool kInside>
  static void tile(const float* const* rows, const Block& block, const F* weight, F bias, const Finish<V>& finish,
                   float* y, int64_t y_width) {
    F sums[T];
    sum_tile<V, K, S, T>(Taps<kInside>{rows, block}, weight, bias, sums);
    each<T>([&]<size_t t>() {
      store_up_to<V>(y + static_cast<int64_t>(t) * y_width + block.y_column, finish(sums[t]), block.count);
    });
  }

  static void run(const DepthwiseRows& a) {
    const Window& window = *a.window;
    const int64_t blocks = column_blocks<V>(window.out_width);
    Block* block = static_cast<Block*>(a.scratch);
    float* zeros = reinterpret_cast<float*>(block + blocks);
    describe_blocks(window, block);
    for (int64_t c = 0; c < window.width; ++c) zeros[c] = 0.0f;
    const Finish<V> finish(a.activation);
    for (int64_t p = 0; p < a.planes; ++p) {
      const float* x = a.x + p * a.x_stride;
      float* y = a.y + p * a.y_stride;
      F weight[K * K];
      each<K * K>([&]<size_t i>() { weight[i] = V::splat(a.weight[p * K * K + i]); });
      const F bias = V::splat(a.bias ? a.bias[p] : 0.0f);
      for_tiles<kTall>(a.row_begin, a.row_end, [&](auto height, int64_t r) {
        constexpr int T = decltype(height)::value;
        const float* rows[kMostRows];
        for (int i = 0; i < (T - 1) * S + K; ++i) {
          const int64_t row = r * S - window.pad_top + i;
          rows[i] = row >= 0 && row < window.height ? x + row * window.width : zeros;
        }
        float* y_row = y + r * window.out_width;
        for (int64_t b = 0; b < blocks; ++b) {
          if (block[b].inside) {
            tile<T, true>(rows, block[b], weight, bias, finish, y_row, window.out_width);
          } else {
            tile<T, false>(rows, block[b], weight, bias, finish, y_row, window.out_width);
          }
        }
      });
    }
  }
};

template <typename V, int K>
struct DirectSmall {
  using F = typename V::F;
  static constexpr int64_t kMostPixels = 256, kMostVectors = kMostPixels / V::kLanes;

  // Rows keep their width, and a vector spans at least two of them.
  static bool serves(const DepthwiseRows& a) {
    const Window& window = *a.window;
    return window.stride_h == 1 && window.out_width == window.width && 2 * window.width <= V::kLanes &&
           window.out_height * window.width <= kMostPixels && a.row_begin == 0 && a.row_end == window.out_height;
  }

  static void run(const DepthwiseRows& a) {
    const Window& window = *a.window;
    const int64_t width = window.width, pixels = window.out_height * width, vectors = column_blocks<V>(pixels);
    typename V::Lanes lanes[kMostVectors][K * K];
    for (int64_t v = 0; v < vectors; ++v)
      for (int64_t tap = 0; tap < K * K; ++tap) {
        uint32_t bits = 0;
        for (int64_t lane = 0; lane < V::kLanes; ++lane) {
          const int64_t pixel = column_of_block<V>(v, pixels) + lane;
          const int64_t row = pixel / width + tap / K - window.pad_top,
                        column = pixel % width + tap % K - window.pad_left;
          if (pixel < pixels && row >= 0 && row < window.height && column >= 0 && column < width) bits |= 1u << lane;
        }
        lanes[v][tap] = V::lanes(bits);
      }
    const Finish<V> finish(a.activation);
    for (int64_t p = 0; p < a.planes; ++p) {
      const float* x = a.x + p * a.x_stride - window.pad_top * width - window.pad_left;
      float* y = a.y + p * a.y_stride;
      F weight[K * K];
      each<K * K>([&]<size_t i>() { weight[i] = V::splat(a.weight[p * K * K + i]); });
      const F bias = V::splat(a.bias ? a.bias[p] : 0.0f);
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t first = column_of_block<V>(v, pixels);
        F sum = bias;
        each<K * K>([&]<size_t i>() {
          constexpr int64_t kRow = i / K, kColumn = i % K;
          sum = V::madd(V::load(x + first + kRow * width + kColumn, lanes[v][i]), weight[i], sum);
        });
        store_up_to<V>(y + first, finish(sum), pixels - first);
      }
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
      case 31: return DirectSmall<V, 3>::serves(a) ? DirectSmall<V, 3>::run(a) : Direct<V, 3, 1>::run(a);
      case 32: return Direct<V, 3, 2>::run(a);
      case 51: return DirectSmall<V, 5>::serves(a) ? DirectSmall<V, 5>::run(a) : Direct<V, 5, 1>::run(a);
      case 52: return Direct<V, 5, 2>::run(a);
      default: return Padded<V>::run(a);
    }
  }
};

}  // namespace
}  // namespace sparsecore::planes

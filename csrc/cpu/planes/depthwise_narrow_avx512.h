// Depthwise 3x3 and 5x5 whose outputs are at most eight wide (7x7, the last planes of most networks): two planes share
// a register, outputs of the first in its lower half and of the second in its upper one.
//
// A row of each plane, with its padding, fits into one register; a permutation of both gives a tap. Rows are walked
// down as in depthwise_walk.h.
#pragma once

#include <algorithm>

#include "cpu/planes/depthwise_walk.h"
#include "cpu/planes/finish.h"
#include "cpu/planes/planes.h"
#include "cpu/planes/vector_avx512.h"

namespace sparsecore::planes {
namespace {

template <int K, int S>
class Narrow {
  using V = Vector;
  using F = V::F;
  static constexpr int kHalf = 8;

 public:
  static bool serves(const Window& w) {
    return w.kernel_h == K && w.kernel_w == K && w.stride_h == S && w.stride_w == S && w.dilation_h == 1 &&
           w.dilation_w == 1 && w.out_width <= kHalf && w.width + w.pad_left <= V::kLanes;
  }

  static void run(const DepthwiseRows& a) {
    const Window& window = *a.window;
    alignas(64) const float zeros[V::kLanes] = {};
    const Taps taps(window);
    const Finish<V> finish(a.activation);
    const int64_t outputs = a.row_end - a.row_begin;
    for (int64_t p = 0; p < a.planes; p += 2) {
      const int64_t q = std::min(p + 1, a.planes - 1);  // the last plane of an odd number is computed twice
      F weight[K * K];
      each<K * K>([&]<size_t i>() { weight[i] = both(a.weight[p * K * K + i], a.weight[q * K * K + i]); });
      const F bias = a.bias ? both(a.bias[p], a.bias[q]) : V::splat(0.0f);
      float *y = a.y + p * a.y_stride + a.row_begin * window.out_width,
            *y2 = a.y + q * a.y_stride + a.row_begin * window.out_width;
      Strip strip = {
          taps,  a.x + p * a.x_stride, a.x + q * a.x_stride, zeros, a.row_begin * S - window.pad_top, window, y, y2,
          finish};
      Walk<V, K, S, Strip>::run(strip, outputs, weight, bias);
      finish.activate(y, outputs * window.out_width);
      if (q > p) finish.activate(y2, outputs * window.out_width);
    }
  }

 private:
  static F both(float low, float high) { return _mm512_mask_broadcastss_ps(V::splat(low), 0xff00, _mm_load_ss(&high)); }

  // Column c of x is lane c + pad_left of its row's register.
  struct Taps {
    explicit Taps(const Window& window) {
      inside = static_cast<V::Lanes>((1u << (window.pad_left + window.width)) - (1u << window.pad_left));
      outputs = static_cast<V::Lanes>((1u << window.out_width) - 1);
      for (int j = 0; j < K; ++j) {
        alignas(64) int32_t places[V::kLanes];
        there[j] = 0;
        for (int lane = 0; lane < V::kLanes; ++lane) {
          const int place = lane % kHalf * S + j;  // past the last lane there is only padding
          places[lane] = lane / kHalf * V::kLanes + place % V::kLanes;
          if (place < V::kLanes) there[j] |= static_cast<V::Lanes>(1u << lane);
        }
        of[j] = _mm512_load_si512(places);
      }
    }
    __m512i of[K];
    V::Lanes there[K], inside, outputs;
  };

  struct Strip {
    const Taps& taps;
    const float *x, *x2, *zeros;
    int64_t first_row;
    const Window& window;
    float *y, *y2;
    const Finish<V>& finish;

    struct Loaded {
      F first, second;
    };
    Loaded load(int64_t i) const {
      const int64_t row = first_row + i;
      const bool inside = row >= 0 && row < window.height;
      const int64_t offset = inside ? row * window.width : 0;
      return {V::load((inside ? x : zeros) + offset - window.pad_left, taps.inside),
              V::load((inside ? x2 : zeros) + offset - window.pad_left, taps.inside)};
    }
    template <size_t j>
    F tap(const Loaded& loaded) const {
      return _mm512_maskz_permutex2var_ps(taps.there[j], loaded.first, taps.of[j], loaded.second);
    }
    void store(F sum) {
      const F done = finish.clamp(sum);
      V::store(y, done, taps.outputs);
      V::store(y2 - kHalf, done, static_cast<V::Lanes>(taps.outputs << kHalf));
      y += window.out_width, y2 += window.out_width;
    }
  };
};

}  // namespace
}  // namespace sparsecore::planes

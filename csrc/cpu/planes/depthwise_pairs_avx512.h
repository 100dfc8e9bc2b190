// Depthwise 3x3 and 5x5 with stride 1 on planes at most eight wide (7x7, the last planes of most networks).
//
// A register holds two rows, each in a half of it: lane 8 h + c is column c of row 2 k + h. Rows that are one or two
// above or below come from neighbouring registers by halves, columns by shifts of lanes; a mask for each shift clears
// what came from the other row. All of it happens in registers: a plane is read once and written once.
#pragma once

#include <algorithm>

#include "cpu/each.h"
#include "cpu/planes/finish.h"
#include "cpu/planes/planes.h"
#include "cpu/planes/vector_avx512.h"

namespace sparsecore::planes {
namespace {

template <int K>
class Pairs {
  using V = Vector;
  using F = V::F;
  static constexpr int kBorder = K / 2;

 public:
  // Padding that keeps the size, and all rows.
  static bool serves(const DepthwiseRows& a) {
    const Window& w = *a.window;
    return w.kernel_h == K && w.kernel_w == K && w.stride_h == 1 && w.stride_w == 1 && w.dilation_h == 1 &&
           w.dilation_w == 1 && w.width <= 8 && w.out_width == w.width && w.out_height == w.height &&
           w.pad_left == kBorder && w.pad_top == kBorder && a.row_begin == 0 && a.row_end == w.height;
  }

  static void run(const DepthwiseRows& a) {
    const int64_t width = a.window->width, pixels = a.window->height * width;
    const Pairs pairs(static_cast<int>(width));
    const Finish<V> finish(a.activation);
    for (int64_t p = 0; p < a.planes; ++p) {
      const float* x = a.x + p * a.x_stride;
      float* y = a.y + p * a.y_stride;
      F weight[K * K];
      each<K * K>([&]<size_t i>() { weight[i] = V::splat(a.weight[p * K * K + i]); });
      const F bias = V::splat(a.bias ? a.bias[p] : 0.0f);
      F above = V::splat(0.0f), here = pairs.load(x, pixels);
      for (int64_t first = 0; first < pixels; first += 2 * width) {
        const F below = pairs.load(x + first + 2 * width, pixels - first - 2 * width);
        F sum = bias;
        each<K>([&]<size_t i>() {
          const F rows = rows_at<static_cast<int>(i) - kBorder>(above, here, below);
          each<K>([&]<size_t j>() {
            sum = V::madd(pairs.template columns_at<static_cast<int>(j) - kBorder>(rows), weight[i * K + j], sum);
          });
        });
        const F packed = _mm512_permutexvar_ps(pairs.pack_, finish.clamp(sum));
        V::store_some(y + first, packed, std::min(2 * width, pixels - first));
        above = here;
        here = below;
      }
      finish.activate(y, pixels);
    }
  }

 private:
  explicit Pairs(int width) : width_(width) {
    alignas(64) int32_t spread[16], pack[16];
    spread_lanes_ = 0;
    for (V::Lanes& lanes : inside_) lanes = 0;
    for (int lane = 0; lane < 16; ++lane) {
      const int half = lane / 8, column = lane % 8;
      spread[lane] = (half * width + column) % 16;
      pack[lane] = (lane / width * 8 + lane % width) % 16;
      if (column < width) spread_lanes_ |= static_cast<V::Lanes>(1u << lane);
      for (int j = 0; j < K; ++j)
        if (column + j >= kBorder && column + j - kBorder < width) inside_[j] |= static_cast<V::Lanes>(1u << lane);
    }
    spread_ = _mm512_load_si512(spread);
    pack_ = _mm512_load_si512(pack);
  }

  // The next two rows, or what is left of the plane, from p on.
  F load(const float* p, int64_t left) const {
    const F rows = V::load_some(p, std::clamp<int64_t>(left, 0, 2 * width_));
    return _mm512_maskz_permutexvar_ps(spread_lanes_, spread_, rows);
  }

  template <int Offset>
  static F rows_at(F above, F here, F below) {
    if constexpr (Offset == 0) return here;
    if constexpr (Offset < 0) return V::shift<16 + 8 * Offset>(above, here);
    if constexpr (Offset == 2) return below;
    return V::shift<8 * Offset % 16>(here, below);
  }

  template <int Offset>
  F columns_at(F rows) const {
    const __m512i x = _mm512_castps_si512(rows), zero = _mm512_setzero_si512();
    const V::Lanes inside = inside_[Offset + kBorder];
    if constexpr (Offset == 0) return rows;
    if constexpr (Offset < 0) return _mm512_castsi512_ps(_mm512_maskz_alignr_epi32(inside, x, zero, 16 + Offset));
    return _mm512_castsi512_ps(_mm512_maskz_alignr_epi32(inside, zero, x, Offset & 15));
  }

  int64_t width_;
  __m512i spread_, pack_;  // rows of `width` to halves of eight lanes, and back
  V::Lanes spread_lanes_, inside_[K];
};

}  // namespace
}  // namespace sparsecore::planes

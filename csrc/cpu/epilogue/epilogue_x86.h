// The epilogue over wide lanes, compiled by the AVX2 and the AVX-512 file, each with its own lane type V.
#pragma once

#include <immintrin.h>

#include "cpu/activate_x86.h"
#include "cpu/epilogue/epilogue.h"

namespace sparsecore::epilogue {
namespace {

template <typename V>
struct Wide {
  using F = typename V::F;

  static F load_bias(const Block& block, int64_t i, typename V::Mask lanes) {
    if (!block.bias) return V::splat(0.0f);
    switch (block.bias_dtype) {
      case DType::kBFloat16: return V::load(static_cast<const BFloat16*>(block.bias) + i, lanes);
      case DType::kFloat16: return V::load(static_cast<const Float16*>(block.bias) + i, lanes);
      default: return V::load(static_cast<const float*>(block.bias) + i, lanes);
    }
  }

  // kVectors registers of channels from i on, all rows; of the last register only `last` lanes.
  template <typename T, bool kInteger, bool kActivated, int kVectors>
  static void strip(const Block& block, int64_t i, typename V::Mask last) {
    const auto lanes = [&](int v) { return v + 1 < kVectors ? V::all() : last; };
    F scale[kVectors], bias[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      scale[v] = block.scale ? V::load(block.scale + i + v * V::kLanes, lanes(v)) : V::splat(1.0f);
      bias[v] = load_bias(block, i + v * V::kLanes, lanes(v));
    }
    for (int64_t t = 0; t < block.rows; ++t) {
      const int64_t at = t * block.sums_stride + i;
      T* y = static_cast<T*>(block.y) + t * block.y_row_stride + i;
      for (int v = 0; v < kVectors; ++v) {
        F sum;
        if constexpr (kInteger) {
          sum = V::mul(V::load(static_cast<const int32_t*>(block.sums) + at + v * V::kLanes, lanes(v)),
                       V::splat(block.token_scale[t]));
        } else {
          sum = V::load(static_cast<const float*>(block.sums) + at + v * V::kLanes, lanes(v));
        }
        const F value = V::add(V::mul(sum, scale[v]), bias[v]);
        V::store(y + v * V::kLanes, kActivated ? WideActivations<V>::activate(value, block.activation) : value,
                 lanes(v));
      }
    }
  }

  template <typename T, bool kInteger, bool kActivated>
  static void finish_typed(const Block& block) {
    constexpr int kVectors = 4;
    int64_t i = 0;
    for (; i + kVectors * V::kLanes <= block.n; i += kVectors * V::kLanes)
      strip<T, kInteger, kActivated, kVectors>(block, i, V::all());
    for (; i < block.n; i += V::kLanes) {
      const int64_t left = block.n - i;
      strip<T, kInteger, kActivated, 1>(block, i, left < V::kLanes ? V::first(static_cast<int>(left)) : V::all());
    }
  }

  template <typename T>
  static void finish_to(const Block& block) {
    const bool activated = block.activation != Activation::kNone;
    if (block.token_scale) return activated ? finish_typed<T, true, true>(block) : finish_typed<T, true, false>(block);
    return activated ? finish_typed<T, false, true>(block) : finish_typed<T, false, false>(block);
  }

  static void finish(const Block& block) {
    switch (block.dtype) {
      case DType::kBFloat16: return finish_to<BFloat16>(block);
      case DType::kFloat16: return finish_to<Float16>(block);
      default: return finish_to<float>(block);
    }
  }
};

}  // namespace
}  // namespace sparsecore::epilogue

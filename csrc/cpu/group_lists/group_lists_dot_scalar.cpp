// The specification of the int8 kernels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/group_lists/dot.h"
#include "cpu/narrow.h"

namespace sparsecore::group_lists::scalar {
namespace {

template <typename T>
uint32_t largest_of(const T* x, int64_t count) {
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = widen(x[i]);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    found = std::max(found, bits & 0x7fffffffu);
  }
  return found;
}

uint32_t largest(const void* x, DType dtype, int64_t count) {
  switch (dtype) {
    case DType::kBFloat16: return largest_of(static_cast<const BFloat16*>(x), count);
    case DType::kFloat16: return largest_of(static_cast<const Float16*>(x), count);
    default: return largest_of(static_cast<const float*>(x), count);
  }
}

void quantise(const float* x, const float* inverse, int columns, bool together, uint8_t* panel) {
  for (int c = 0; c < columns; ++c)
    for (int lane = 0; lane < kDotLanes; ++lane) {
      const float scaled = x[c * kDotLanes + lane] * inverse[lane];
      const float cut = scaled > -127.0f ? std::min(scaled, 127.0f) : -127.0f;
      const int64_t at = together ? (c / 4 * kDotLanes + lane) * 4 + c % 4 : c * kDotLanes + lane;
      panel[at] = static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(cut)));
    }
}

void tile(const DotTile& a) {
  for (int64_t p = 0; p < a.places; ++p)
    for (int r = 0; r < a.rows; ++r) {
      const int64_t channel = int64_t{a.order[p]} * a.rows + r;
      int32_t* sums = a.sums + channel * kDotLanes;
      if (!a.accumulate) std::fill(sums, sums + kDotLanes, a.start[channel]);
      for (int64_t q = a.starts[p]; q < a.starts[p + 1]; ++q) {
        int8_t weights[4];
        std::memcpy(weights, a.weights + q * a.rows + r, 4);
        for (int j = 0; j < 4; ++j) {
          const uint8_t* x = a.together ? a.panel + int64_t{a.columns[q]} * 4 * kDotLanes + j
                                        : a.panel + int64_t{a.columns[q * 4 + j]} * kDotLanes;
          const int step = a.together ? 4 : 1;
          for (int lane = 0; lane < kDotLanes; ++lane)
            sums[lane] += int32_t{weights[j]} * static_cast<int8_t>(x[lane * step]);
        }
      }
    }
}

void finish(const DotFinish& a) {
  for (int64_t c = 0; c < a.channels; ++c)
    for (int lane = 0; lane < kDotLanes; ++lane) {
      int32_t* at = a.sums + c * kDotLanes + lane;
      float value = static_cast<float>(*at) * (a.lane_scale[lane] * a.scale[c]);
      if (a.bias) value += a.bias[c];
      if (a.residual) value += a.residual[c * kDotLanes + lane];
      std::memcpy(at, &value, 4);
    }
}

}  // namespace

const DotKernel kInt8 = {Isa::kScalar, "scalar::group_lists_int8", 0, largest, quantise, tile, finish};

}  // namespace sparsecore::group_lists::scalar

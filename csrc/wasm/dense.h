// The dense linear layer in float32: what the sparse kernels are measured against in a browser or in node, and what a
// model's unpruned layers run on.
//
//   y[t, o] = activation(sum over k of w[o, k] * x[t, k] + bias[o])
//
// The weight is packed once: tiles of kDenseChannels output channels, [tiles, k, kDenseChannels], zeros past n.
#pragma once

#include "sparsecore/types.h"

namespace sparsecore::wasm {

constexpr int kDenseChannels = 8;

int64_t dense_packed_count(int64_t n, int64_t k);  // floats
void dense_pack(const float* weight, int64_t n, int64_t k, float* packed);
// x [m, k] and y [m, n] are contiguous; bias [n] or null.
Status dense_linear(const float* x, const float* packed, const float* bias, float* y, int64_t m, int64_t n, int64_t k,
                    Activation activation);

}  // namespace sparsecore::wasm

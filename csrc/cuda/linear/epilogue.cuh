// The end of every product: scales, bias, activation and residual on sums, eight neighbouring channels at a time.
#pragma once

#include <type_traits>

#include "cuda/common/convert.h"
#include "cuda/common/shared_memory.h"
#include "cuda/linear/arguments.h"

namespace sparsecore::cuda_linear {

constexpr int kChunk = 8;

// Sums travel through memory as 32 bits.
SC_DEVICE uint32_t bits_of(float sum) { return __float_as_uint(sum); }
SC_DEVICE uint32_t bits_of(int32_t sum) { return static_cast<uint32_t>(sum); }
template <class Sum>
SC_DEVICE Sum sum_of(uint32_t bits) {
  if constexpr (std::is_same_v<Sum, float>) {
    return __uint_as_float(bits);
  } else {
    return static_cast<Sum>(bits);
  }
}

SC_DEVICE float load_float(const void* array, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kBFloat16: return ptx::to_float(static_cast<const BFloat16*>(array)[i]);
    case DType::kFloat16: return ptx::to_float(static_cast<const Float16*>(array)[i]);
    default: return static_cast<const float*>(array)[i];
  }
}

SC_DEVICE void store_float(void* array, DType dtype, int64_t i, float value) {
  switch (dtype) {
    case DType::kBFloat16: static_cast<BFloat16*>(array)[i] = ptx::from_float<BFloat16>(value); break;
    case DType::kFloat16: static_cast<Float16*>(array)[i] = ptx::from_float<Float16>(value); break;
    default: static_cast<float*>(array)[i] = value; break;
  }
}

SC_DEVICE float relu6(float x) { return fminf(fmaxf(x, 0.0f), 6.0f); }

// As cpu/activate.h defines them; a NaN stays one.
SC_DEVICE float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return x < 0.0f ? 0.0f : x;
    case Activation::kGelu: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case Activation::kGeluTanh: return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::kSilu: return x / (1.0f + expf(-x));
    case Activation::kRelu6: return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case Activation::kHardSwish: return x != x ? x : x * relu6(x + 3.0f) * (1.0f / 6.0f);
    case Activation::kHardSigmoid: return x != x ? x : relu6(x + 3.0f) * (1.0f / 6.0f);
    case Activation::kSigmoid: return 1.0f / (1.0f + expf(-x));
  }
  return x;
}

// One sum of token t and channel o.
template <class Sum>
SC_DEVICE void finish_one(const Arguments& args, int64_t token, int64_t channel, Sum sum) {
  const DeviceLinear& p = args.p;
  float value = static_cast<float>(sum);
  if (p.token_scale) value *= p.token_scale[token];
  if (p.weight_scale) value *= p.weight_scale[channel];
  if (p.bias) value += load_float(p.bias, p.bias_dtype, channel);
  value = activate(value, p.activation);
  if (p.residual) value += load_float(p.residual, p.out_dtype, token * p.residual_row_stride + channel);
  store_float(p.y, p.out_dtype, token * p.y_row_stride + channel, value);
}

// Channels [channel, channel + 8) of one token, those past n left out; channel is a multiple of 8. Scales and biases of
// the chunk are loaded once for many tokens.
struct ChannelChunk {
  float scale[kChunk], bias[kChunk];
  int64_t channel;
  int width;  // channels that exist, at most 8

  SC_DEVICE ChannelChunk(const DeviceLinear& p, int64_t first) : channel(first) {
    const int64_t left = p.n - first;
    width = left < kChunk ? static_cast<int>(left) : kChunk;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      scale[i] = p.weight_scale && i < width ? p.weight_scale[first + i] : 1.0f;
      bias[i] = p.bias && i < width ? load_float(p.bias, p.bias_dtype, first + i) : 0.0f;
    }
  }
};

template <class T>
SC_DEVICE void add_packed(float (&values)[kChunk], uint4 packed) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = ptx::unpack2<T>(words[i]);
    values[2 * i] += pair.x;
    values[2 * i + 1] += pair.y;
  }
}

template <class T>
SC_DEVICE uint4 packed(const float (&values)[kChunk]) {
  return {ptx::pack2<T>(values[0], values[1]), ptx::pack2<T>(values[2], values[3]), ptx::pack2<T>(values[4], values[5]),
          ptx::pack2<T>(values[6], values[7])};
}

// Whether y and the residual are stored as eight packed channels.
SC_DEVICE bool packs(const Arguments& args, const ChannelChunk& chunk) {
  return args.y_vectors && chunk.width == kChunk && args.p.out_dtype != DType::kFloat32;
}

// What the residual has for a chunk, of a token that exists, where it is packed; zeros where there is none.
SC_DEVICE uint4 packed_residual(const Arguments& args, const ChannelChunk& chunk, int64_t token) {
  if (!args.p.residual || !packs(args, chunk)) return {0, 0, 0, 0};
  return *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(args.p.residual) +
                                         token * args.p.residual_row_stride + chunk.channel);
}

// values: the sums as floats. residual: of packed_residual.
SC_DEVICE void finish_chunk(const Arguments& args, const ChannelChunk& chunk, int64_t token, float (&values)[kChunk],
                            uint4 residual) {
  const DeviceLinear& p = args.p;
  const float token_scale = p.token_scale ? p.token_scale[token] : 1.0f;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (p.token_scale) values[i] *= token_scale;
    if (p.weight_scale) values[i] *= chunk.scale[i];
    if (p.bias) values[i] += chunk.bias[i];
  }
  if (p.activation != Activation::kNone) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) values[i] = activate(values[i], p.activation);
  }
  const int64_t to = token * p.y_row_stride + chunk.channel;
  const int64_t from = token * p.residual_row_stride + chunk.channel;
  if (packs(args, chunk)) {
    const bool bfloat16 = p.out_dtype == DType::kBFloat16;
    if (p.residual) bfloat16 ? add_packed<BFloat16>(values, residual) : add_packed<Float16>(values, residual);
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(p.y) + to) =
        bfloat16 ? packed<BFloat16>(values) : packed<Float16>(values);
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i)
    if (i < chunk.width) {
      if (p.residual) values[i] += load_float(p.residual, p.out_dtype, from + i);
      store_float(p.y, p.out_dtype, to + i, values[i]);
    }
}

// The workspace: [splits, m, padded_channels(n)] sums of 32 bits.
SC_DEVICE uint4* partial_sums(const Arguments& args, int64_t split, int64_t token, int64_t channel) {
  return reinterpret_cast<uint4*>(static_cast<uint32_t*>(args.p.workspace) +
                                  (split * args.p.m + token) * padded_channels(args.p.n) + channel);
}

// Eight sums in shared memory: finished, or to the workspace where the inputs are split.
template <class Sum>
SC_DEVICE void finish_row(const Arguments& args, const ChannelChunk& chunk, int64_t split, int64_t token,
                          const char* shared, uint4 residual) {
  const uint4 low = ptx::load_shared_16(shared), high = ptx::load_shared_16(shared + 16);
  if (args.splits > 1) {
    uint4* to = partial_sums(args, split, token, chunk.channel);
    to[0] = low;
    to[1] = high;
    return;
  }
  const uint32_t words[kChunk] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  float values[kChunk];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) values[i] = static_cast<float>(sum_of<Sum>(words[i]));
  finish_chunk(args, chunk, token, values, residual);
}

// Rows first, first + kStep, .. of the kRows of a tile in shared memory, whose rows are kStride sums apart; row 0 is of
// token `token`, and `shared` its first sum of the chunk. The residual of kMostAtOnce rows is loaded before the first
// of them is stored: y may overwrite it, so a compiler would load one row at a time.
template <class Sum, int kRows, int kStep, int kStride, int kMostAtOnce = 4>
SC_DEVICE void finish_rows(const Arguments& args, const ChannelChunk& chunk, int64_t split, int64_t token, int first,
                           const char* shared) {
  constexpr int kTurns = (kRows + kStep - 1) / kStep, kAtOnce = kTurns < kMostAtOnce ? kTurns : kMostAtOnce;
  const int64_t left = args.p.m - token;
  const int rows = left < kRows ? static_cast<int>(left) : kRows;
  for (; first < rows; first += kAtOnce * kStep) {
    uint4 residual[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (args.splits == 1 && first + i * kStep < rows)
        residual[i] = packed_residual(args, chunk, token + first + i * kStep);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = first + i * kStep;
      if (row < rows) finish_row<Sum>(args, chunk, split, token + row, shared + row * kStride * 4, residual[i]);
    }
  }
}

}  // namespace sparsecore::cuda_linear

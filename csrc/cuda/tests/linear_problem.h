// The dense side of a linear layer on the device, and the layer's answer in float64. The problem of a weight format
// derives from LinearProblem, packs a weight, and says by expect() which one it packed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "cpu/activate.h"
#include "cpu/narrow.h"
#include "cuda/common/device.h"
#include "cuda/emulation/global_buffer.h"
#include "cuda/emulation/instructions/number_formats.h"
#include "cuda/linear/arguments.h"
#include "sparsecore/linear_cuda.h"

namespace sparsecore {

inline void encode(float value, DType dtype, char* to) {
  switch (dtype) {
    case DType::kFloat32: std::memcpy(to, &value, 4); break;
    case DType::kBFloat16: narrow(value, reinterpret_cast<BFloat16*>(to)); break;
    case DType::kFloat16: narrow(value, reinterpret_cast<Float16*>(to)); break;
    case DType::kInt8: *to = static_cast<char>(static_cast<int>(value)); break;
    default: *to = static_cast<char>(cuda_emulation::Fp8E4M3::encode_saturating(value)); break;
  }
}

inline float decode(const char* from, DType dtype) {
  switch (dtype) {
    case DType::kBFloat16: return widen(*reinterpret_cast<const BFloat16*>(from));
    case DType::kFloat16: return widen(*reinterpret_cast<const Float16*>(from));
    case DType::kInt8: return static_cast<signed char>(*from);
    case DType::kFloat32: {
      float value;
      std::memcpy(&value, from, 4);
      return value;
    }
    default: return cuda_emulation::Fp8E4M3::decode(static_cast<unsigned char>(*from));
  }
}

inline float rounded(double value, DType dtype) {
  char bytes[4];
  encode(static_cast<float>(value), dtype, bytes);
  return decode(bytes, dtype);
}

// A matrix on the device: `offset` elements in front of it, `stride` elements from row to row.
struct DeviceMatrix {
  DType dtype;
  int64_t rows, columns, stride, offset;
  cuda_emulation::GlobalBuffer<char> buffer;

  DeviceMatrix(DType dtype, int64_t rows, int64_t columns, int64_t stride, int64_t offset)
      : dtype(dtype),
        rows(rows),
        columns(columns),
        stride(stride),
        offset(offset),
        buffer((offset + (rows > 0 ? (rows - 1) * stride + columns : 0)) * size_of(dtype)) {}
  char* at(int64_t row, int64_t column) { return buffer.data() + (offset + row * stride + column) * size_of(dtype); }
  char* data() { return at(0, 0); }
  float get(int64_t row, int64_t column) { return decode(at(row, column), dtype); }
  void set(int64_t row, int64_t column, float value) { encode(value, dtype, at(row, column)); }
  template <class Numbers>
  void fill(Numbers& numbers) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column) set(row, column, numbers(dtype));
  }
};

// Small integers, whose sums are exact whatever their order, or numbers of a normal distribution.
struct Numbers {
  std::mt19937 random;
  bool integers;
  std::normal_distribution<float> normal;

  explicit Numbers(unsigned seed, bool integers = true) : random(seed), integers(integers) {}
  float operator()(DType dtype = DType::kFloat32) {
    if (integers) return static_cast<float>(static_cast<int>(random() % 9) - 4);
    return dtype == DType::kInt8 ? std::round(std::clamp(20 * normal(random), -128.0f, 127.0f)) : normal(random);
  }
  // `exact`, a power of two, or somewhat more than `least`.
  float scale(float exact, float least) { return integers ? exact : least + 0.1f * std::abs(normal(random)); }
};

struct LinearOptions {
  DType dtype = DType::kBFloat16, out_dtype = DType::kFloat32, bias_dtype = DType::kFloat32;
  bool bias = true, weight_scale = false, token_scale = false, residual = false, in_place_residual = false;
  Activation activation = Activation::kNone;
  int64_t x_offset = 0, x_pad = 0, y_offset = 0, y_pad = 0;  // rows are aligned unless asked otherwise
  bool integers = true;                                      // every sum exact, whatever its order
  unsigned seed = 1;
};

template <class Options>
struct LinearProblem {
  Options options;
  int64_t m, n, k;
  DeviceMatrix x, y, residual;
  cuda_emulation::GlobalBuffer<char> bias;
  cuda_emulation::GlobalBuffer<float> weight_scale, token_scale;
  std::vector<double> expected, magnitude;  // sum of |terms|, what rounding is measured against
  std::optional<cuda_emulation::GlobalBuffer<char>> workspace;

  LinearProblem(int64_t m, int64_t n, int64_t k, const Options& o)
      : options(o),
        m(m),
        n(n),
        k(k),
        x(o.dtype, m, k, cuda_linear::ceil_div(k, 16) * 16 + o.x_pad, o.x_offset),
        y(o.out_dtype, m, n, cuda_linear::ceil_div(n, 8) * 8 + o.y_pad, o.y_offset),
        residual(o.out_dtype, m, n, cuda_linear::ceil_div(n, 8) * 8 + o.y_pad, o.y_offset),
        bias(n * size_of(o.bias_dtype)),
        weight_scale(n),
        token_scale(m),
        expected(m * n),
        magnitude(m * n) {
    Numbers numbers(o.seed, o.integers);
    x.fill(numbers);
    residual.fill(numbers);
    for (int64_t i = 0; i < n; ++i) {
      encode(numbers(), o.bias_dtype, bias.data() + i * size_of(o.bias_dtype));
      weight_scale[i] = numbers.scale(0.5f, 0.5f);
    }
    for (int64_t t = 0; t < m; ++t) token_scale[t] = numbers.scale(2.0f, 0.1f);
  }

  // The answer with this weight [n, k], of which only what is kept is multiplied.
  void expect(const std::vector<float>& weight, const std::vector<uint8_t>& kept) {
    std::vector<double> token(k);
    for (int64_t t = 0; t < m; ++t) {
      for (int64_t i = 0; i < k; ++i) token[i] = x.get(t, i);
      for (int64_t o = 0; o < n; ++o) {
        double sum = 0, absolute = 0;
        for (int64_t i = 0; i < k; ++i)
          if (kept[o * k + i]) {
            const double term = weight[o * k + i] * token[i];
            sum += term;
            absolute += std::abs(term);
          }
        const double scale =
            (options.weight_scale ? weight_scale[o] : 1.0) * (options.token_scale ? token_scale[t] : 1.0);
        double value = sum * scale;
        if (options.bias) value += decode(bias.data() + o * size_of(options.bias_dtype), options.bias_dtype);
        if (options.activation != Activation::kNone) value = activate(static_cast<float>(value), options.activation);
        if (options.residual) value += residual.get(t, o);
        expected[t * n + o] = value;
        magnitude[t * n + o] = absolute * scale + std::abs(value) + 1;
      }
    }
  }

  // All of the parameters but the weight, with a workspace of so many bytes.
  void fill(DeviceLinear& p, int64_t workspace_bytes) {
    workspace.emplace(workspace_bytes);
    p.x = x.data();
    p.y = y.data();
    if (options.bias) p.bias = bias.data();
    if (options.weight_scale) p.weight_scale = weight_scale.data();
    if (options.token_scale) p.token_scale = token_scale.data();
    if (options.residual) {
      p.residual = residual.data();
      p.residual_row_stride = residual.stride;
      if (options.in_place_residual) {
        for (int64_t t = 0; t < m; ++t)
          for (int64_t i = 0; i < n; ++i) y.set(t, i, residual.get(t, i));
        p.residual = y.data();
      }
    }
    p.m = m;
    p.n = n;
    p.k = k;
    p.x_row_stride = x.stride;
    p.y_row_stride = y.stride;
    p.dtype = options.dtype;
    p.out_dtype = options.out_dtype;
    p.bias_dtype = options.bias_dtype;
    p.activation = options.activation;
    p.workspace = workspace_bytes > 0 ? workspace->data() : nullptr;
    p.workspace_bytes = workspace_bytes;
  }

  void forget() { std::memset(y.buffer.data(), 0xff, y.buffer.size()); }
  // Whether anything of y's buffer changed that is no output: what lies in front of it and between its rows.
  bool strayed() {
    const int64_t bytes = size_of(options.out_dtype), count = static_cast<int64_t>(y.buffer.size()) / bytes;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t place = i - y.offset;
      if (place >= 0 && place % y.stride < n) continue;
      for (int64_t byte = 0; byte < bytes; ++byte)
        if (y.buffer[i * bytes + byte] != static_cast<char>(0xff)) return true;
    }
    return false;
  }
  // Index of the first output that is not the expected one, or -1. NaN never is. Channels i with skips(i) are left out.
  template <class Skips = bool (*)(int64_t)>
  int64_t first_wrong(double tolerance = 0, Skips skips = [](int64_t) { return false; }) {
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < n; ++i) {
        if (skips(i)) continue;
        const double exact = expected[t * n + i];
        const double want = tolerance == 0 ? rounded(exact, options.out_dtype) : exact;
        if (!(std::abs(y.get(t, i) - want) <= tolerance * magnitude[t * n + i])) return t * n + i;
      }
    return -1;
  }
};

}  // namespace sparsecore

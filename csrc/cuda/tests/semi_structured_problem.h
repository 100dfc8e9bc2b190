// A 2:4 product with its answer in float64, for the tests of every kernel of the family.
#pragma once

#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "cpu/activate.h"
#include "cpu/narrow.h"
#include "cuda/common/device.h"
#include "cuda/emulation/instructions/number_formats.h"
#include "cuda/semi_structured/matmul.h"
#include "sparsecore/window_lift.h"

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
};

struct ProblemOptions {
  DType dtype = DType::kBFloat16, out_dtype = DType::kFloat32, bias_dtype = DType::kFloat32;
  bool bias = true, weight_scale = false, token_scale = false, residual = false, in_place_residual = false;
  Activation activation = Activation::kNone;
  int64_t x_offset = 0, x_pad = 0, y_offset = 0, y_pad = 0;
  int32_t group = 4;     // of which all but two may be kept
  bool integers = true;  // every sum exact, whatever its order
  unsigned seed = 1;
};

struct MatmulProblem {
  ProblemOptions options;
  int64_t m, n, k;
  DeviceMatrix x, y, residual;
  cuda_emulation::GlobalBuffer<char> values, bias;
  cuda_emulation::GlobalBuffer<uint32_t> metadata;
  cuda_emulation::GlobalBuffer<float> weight_scale, token_scale;
  std::vector<char> dense;
  std::vector<uint8_t> mask;
  std::vector<double> expected, magnitude;  // sum of |terms|, what rounding is measured against
  std::optional<cuda_emulation::GlobalBuffer<char>> workspace;

  MatmulProblem(int64_t m, int64_t n, int64_t k, const ProblemOptions& o)
      : options(o),
        m(m),
        n(n),
        k(k),
        // Rows of x are as far apart as 16 bytes want, unless asked otherwise.
        x(o.dtype, m, k, semi_structured::ceil_div(k, 16) * 16 + o.x_pad, o.x_offset),
        y(o.out_dtype, m, n, semi_structured::ceil_div(n, 8) * 8 + o.y_pad, o.y_offset),
        residual(o.out_dtype, m, n, semi_structured::ceil_div(n, 8) * 8 + o.y_pad, o.y_offset),
        values(semi_structured_value_bytes(n, lifted_inputs(k, o.group), o.dtype)),
        bias(n * size_of(o.bias_dtype)),
        metadata(semi_structured_metadata_words(n, lifted_inputs(k, o.group), o.dtype)),
        weight_scale(n),
        token_scale(m),
        dense(n * k * size_of(o.dtype)),
        mask(n * k),
        expected(m * n),
        magnitude(m * n) {
    std::mt19937 random(o.seed);
    std::normal_distribution<float> normal;
    const auto draw = [&](int range) {
      return o.integers                ? static_cast<float>(static_cast<int>(random() % (2 * range + 1)) - range)
             : o.dtype == DType::kInt8 ? std::round(20 * normal(random))
                                       : normal(random);
    };
    const int64_t bytes = size_of(o.dtype);
    std::vector<float> weight(n * k);
    for (int64_t row = 0; row < n; ++row)
      for (int64_t i = 0; i < k; ++i) {
        encode(draw(4), o.dtype, dense.data() + (row * k + i) * bytes);
        weight[row * k + i] = decode(dense.data() + (row * k + i) * bytes, o.dtype);
      }
    for (int64_t row = 0; row < n; ++row)
      for (int64_t i = 0; i < k; i += o.group)
        for (int pick = 0; pick < o.group - 2; ++pick) {
          // Full groups too, which picks at random hardly ever make of long ones.
          const int64_t place = o.group > 4 && row % 2 ? i + (row + pick) % o.group : i + random() % (o.group + 1);
          if (place < std::min(i + o.group, k)) mask[row * k + place] = 1;
        }
    if (window_lift_pack(dense.data(), o.dtype, mask.data(), n, k, o.group, values.data(), metadata.data()) !=
        Status::kOk)
      throw std::runtime_error("the problem's weight could not be packed");
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < k; ++i) x.set(t, i, draw(4));
    for (int64_t i = 0; i < n; ++i) {
      encode(draw(4), o.bias_dtype == DType::kInt8 ? DType::kFloat32 : o.bias_dtype,
             bias.data() + i * size_of(o.bias_dtype));
      weight_scale[i] = o.integers ? 0.5f : 0.5f + 0.1f * std::abs(normal(random));
    }
    for (int64_t t = 0; t < m; ++t) token_scale[t] = o.integers ? 2.0f : 0.1f + 0.1f * std::abs(normal(random));
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < n; ++i) residual.set(t, i, draw(4));
    for (int64_t t = 0; t < m; ++t)
      for (int64_t row = 0; row < n; ++row) {
        double sum = 0, absolute = 0;
        for (int64_t i = 0; i < k; ++i)
          if (mask[row * k + i]) {
            const double term = static_cast<double>(weight[row * k + i]) * x.get(t, i);
            sum += term;
            absolute += std::abs(term);
          }
        const double scale = (o.weight_scale ? weight_scale[row] : 1.0) * (o.token_scale ? token_scale[t] : 1.0);
        double value = sum * scale;
        if (o.bias) value += decode(bias.data() + row * size_of(o.bias_dtype), o.bias_dtype);
        if (o.activation != Activation::kNone) value = activate(static_cast<float>(value), o.activation);
        if (o.residual) value += residual.get(t, row);
        expected[t * n + row] = value;
        magnitude[t * n + row] = absolute * scale + std::abs(value) + 1;
      }
  }

  SemiStructuredMatmulParams params(int64_t workspace_bytes) {
    SemiStructuredMatmulParams p;
    workspace.emplace(workspace_bytes);
    p.x = x.data();
    p.weight = {values.data(), metadata.data(), static_cast<int64_t>(values.size()),
                static_cast<int64_t>(metadata.size())};
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
    p.group = options.group;
    p.workspace = workspace_bytes > 0 ? workspace->data() : nullptr;
    p.workspace_bytes = workspace_bytes;
    return p;
  }

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
  // Index of the first output that is not the expected one, or -1. NaN never is.
  int64_t first_wrong(double tolerance) {
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < n; ++i) {
        char rounded[4];
        encode(static_cast<float>(expected[t * n + i]), options.out_dtype, rounded);
        const double want = tolerance == 0 ? decode(rounded, options.out_dtype) : expected[t * n + i];
        if (!(std::abs(y.get(t, i) - want) <= tolerance * magnitude[t * n + i])) return t * n + i;
      }
    return -1;
  }
  void forget() { std::memset(y.buffer.data(), 0xff, y.buffer.size()); }
};

}  // namespace sparsecore

// A product with a weight behind a bitmap and its answer in float64.
#pragma once

#include "cuda/bitmap_decode/matmul.h"
#include "cuda/tests/semi_structured_problem.h"

namespace sparsecore {

struct BitmapOptions {
  DType dtype = DType::kBFloat16, weight_dtype = DType::kBFloat16, out_dtype = DType::kFloat32;
  double density = 0.5;  // of most rows; every fifth is empty, every fifth full
  int64_t x_offset = 0, x_pad = 0, y_pad = 0, value_offset = 0;
  bool residual = false;
  bool integers = true;  // every sum exact, whatever its order
  unsigned seed = 1;
};

struct BitmapProblem {
  BitmapOptions options;
  int64_t m, n, k, nnz = 0;
  DeviceMatrix x, y, residual;
  std::vector<uint8_t> mask;
  cuda_emulation::GlobalBuffer<char> values;
  std::optional<cuda_emulation::GlobalBuffer<char>> workspace;
  cuda_emulation::GlobalBuffer<uint64_t> bitmap;
  cuda_emulation::GlobalBuffer<int32_t> row_ptr;
  cuda_emulation::GlobalBuffer<float> bias, scale;
  std::vector<double> expected, magnitude;

  BitmapProblem(int64_t m, int64_t n, int64_t k, const BitmapOptions& o = {})
      : options(o),
        m(m),
        n(n),
        k(k),
        x(o.dtype, m, k, (k + 7) / 8 * 8 + o.x_pad, o.x_offset),
        y(o.out_dtype, m, n, (n + 7) / 8 * 8 + o.y_pad, 0),
        residual(o.out_dtype, m, n, (n + 7) / 8 * 8 + o.y_pad, 0),
        mask(choose(n, k, o)),
        values((o.value_offset + std::count(mask.begin(), mask.end(), 1)) * size_of(o.weight_dtype)),
        bitmap(n * ((k + 63) / 64)),
        row_ptr(n + 1),
        bias(n),
        scale(n),
        expected(m * n),
        magnitude(m * n) {
    std::mt19937 random(o.seed + 7);
    std::normal_distribution<float> normal;
    const int64_t bytes = size_of(o.weight_dtype);
    const auto draw = [&](DType dtype) {
      return o.integers              ? static_cast<float>(static_cast<int>(random() % 9) - 4)
             : dtype == DType::kInt8 ? std::round(std::clamp(40 * normal(random), -128.0f, 127.0f))
                                     : normal(random);
    };
    nnz = std::count(mask.begin(), mask.end(), 1);
    std::vector<char> dense(n * k * bytes);
    for (int64_t i = 0; i < n * k; ++i) encode(draw(o.weight_dtype), o.weight_dtype, dense.data() + i * bytes);
    char* packed = values.data() + o.value_offset * bytes;
    if (bitmap_decode_pack(dense.data(), o.weight_dtype, mask.data(), n, k, packed, bitmap.data(), row_ptr.data()) !=
        Status::kOk)
      throw std::runtime_error("the problem's weight could not be packed");
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < k; ++i) x.set(t, i, draw(o.dtype));
    for (int64_t o_ = 0; o_ < n; ++o_) {
      bias[o_] = draw(DType::kFloat32);
      scale[o_] = 0.5f;
      for (int64_t t = 0; t < m; ++t) residual.set(t, o_, draw(DType::kFloat32));
    }
    for (int64_t t = 0; t < m; ++t)
      for (int64_t row = 0; row < n; ++row) {
        double sum = 0, absolute = 0;
        for (int64_t i = 0; i < k; ++i)
          if (mask[row * k + i]) {
            const double term =
                static_cast<double>(decode(dense.data() + (row * k + i) * bytes, o.weight_dtype)) * x.get(t, i);
            sum += term;
            absolute += std::abs(term);
          }
        double value = (o.weight_dtype == DType::kInt8 ? 0.5 * sum : sum) + bias[row];
        if (o.residual) value += residual.get(t, row);
        expected[t * n + row] = value;
        magnitude[t * n + row] = absolute + std::abs(value) + 1;
      }
  }

  static std::vector<uint8_t> choose(int64_t n, int64_t k, const BitmapOptions& o) {
    std::mt19937 random(o.seed);
    std::vector<uint8_t> mask(n * k);
    for (int64_t row = 0; row < n; ++row)
      for (int64_t i = 0; i < k; ++i)
        mask[row * k + i] = row % 5 == 3 ? 0 : row % 5 == 4 ? 1 : random() % 1000 < 1000 * o.density;
    return mask;
  }

  BitmapDecodeMatmulParams params(int64_t workspace_bytes) {
    BitmapDecodeMatmulParams p;
    workspace.emplace(workspace_bytes);
    p.x = x.data();
    p.weight = {values.data() + options.value_offset * size_of(options.weight_dtype), bitmap.data(), row_ptr.data(),
                nnz};
    p.weight_dtype = options.weight_dtype;
    p.y = y.data();
    p.bias = bias.data();
    if (options.weight_dtype == DType::kInt8) p.weight_scale = scale.data();
    if (options.residual) p.residual = residual.data();
    p.m = m, p.n = n, p.k = k;
    p.x_row_stride = x.stride, p.y_row_stride = y.stride, p.residual_row_stride = residual.stride;
    p.dtype = options.dtype, p.out_dtype = options.out_dtype;
    p.workspace = workspace_bytes > 0 ? workspace->data() : nullptr;
    p.workspace_bytes = workspace_bytes;
    return p;
  }
  void forget() { std::memset(y.buffer.data(), 0xff, y.buffer.size()); }
  // Index of the first output that is not the expected one, m * n where something beside y was written, or -1. NaN is
  // never expected.
  int64_t first_wrong(double tolerance = 0) {
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < n; ++i) {
        char rounded[4];
        encode(static_cast<float>(expected[t * n + i]), options.out_dtype, rounded);
        const double want = tolerance == 0 ? ::sparsecore::decode(rounded, options.out_dtype) : expected[t * n + i];
        if (!(std::abs(y.get(t, i) - want) <= tolerance * magnitude[t * n + i])) return t * n + i;
      }
    const int64_t bytes = size_of(options.out_dtype);
    for (int64_t i = 0; i < static_cast<int64_t>(y.buffer.size()) / bytes; ++i)
      if (i % y.stride >= n)
        for (int64_t byte = 0; byte < bytes; ++byte)
          if (y.buffer[i * bytes + byte] != static_cast<char>(0xff)) return m * n;
    return -1;
  }
};

}  // namespace sparsecore

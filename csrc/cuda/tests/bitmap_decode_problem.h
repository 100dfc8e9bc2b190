// A product with a weight behind a bitmap and its answer in float64.
#pragma once

#include <stdexcept>

#include "cuda/bitmap_decode/matmul.h"
#include "cuda/tests/linear_problem.h"

namespace sparsecore {

struct BitmapOptions : LinearOptions {
  DType weight_dtype = DType::kBFloat16;  // int8: with a scale
  double density = 0.5;                   // of most rows; every fifth is empty, every fifth full
  int64_t value_offset = 0;
};

struct BitmapProblem : LinearProblem<BitmapOptions> {
  std::vector<uint8_t> mask;
  int64_t nnz;
  cuda_emulation::GlobalBuffer<char> values;
  cuda_emulation::GlobalBuffer<uint64_t> bitmap;
  cuda_emulation::GlobalBuffer<int32_t> row_ptr;

  BitmapProblem(int64_t m, int64_t n, int64_t k, const BitmapOptions& o = {})
      : LinearProblem(m, n, k, with_scale(o)),
        mask(choose(n, k, o)),
        nnz(std::count(mask.begin(), mask.end(), 1)),
        values((o.value_offset + nnz) * size_of(o.weight_dtype)),
        bitmap(n * ((k + 63) / 64)),
        row_ptr(n + 1) {
    Numbers numbers(o.seed + 100, o.integers);
    const int64_t bytes = size_of(o.weight_dtype);
    std::vector<char> dense(n * k * bytes);
    std::vector<float> weight(n * k);
    for (int64_t i = 0; i < n * k; ++i) {
      encode(numbers(o.weight_dtype), o.weight_dtype, dense.data() + i * bytes);
      weight[i] = decode(dense.data() + i * bytes, o.weight_dtype);
    }
    char* packed = values.data() + o.value_offset * bytes;
    if (bitmap_decode_pack(dense.data(), o.weight_dtype, mask.data(), n, k, packed, bitmap.data(), row_ptr.data()) !=
        Status::kOk)
      throw std::runtime_error("the problem's weight could not be packed");
    expect(weight, mask);
  }

  static BitmapOptions with_scale(BitmapOptions o) {
    o.weight_scale = o.weight_scale || o.weight_dtype == DType::kInt8;
    return o;
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
    fill(p, workspace_bytes);
    p.weight = {values.data() + options.value_offset * size_of(options.weight_dtype), bitmap.data(), row_ptr.data(),
                nnz};
    p.weight_dtype = options.weight_dtype;
    return p;
  }
};

}  // namespace sparsecore

// A weight behind a bitmap, its dense matrix, and a dense matrix from which values are taken.
#pragma once

#include "cuda/bitmap_decode/dense.h"
#include "cuda/tests/semi_structured_problem.h"

namespace sparsecore {

// Stored, and dense.
constexpr std::pair<DType, DType> kDenseTypes[] = {
    {DType::kBFloat16, DType::kBFloat16}, {DType::kFloat16, DType::kFloat16}, {DType::kFloat32, DType::kFloat32},
    {DType::kInt8, DType::kInt8},         {DType::kInt8, DType::kBFloat16},   {DType::kInt8, DType::kFloat16},
    {DType::kInt8, DType::kFloat32}};

struct BitmapDenseProblem {
  int64_t n, k;
  DType weight_dtype, dtype;
  std::vector<uint8_t> mask;
  std::vector<float> weights, source;  // as floats: of the weight, and of the matrix that values are taken from
  cuda_emulation::GlobalBuffer<char> values, taken, dense, from;
  cuda_emulation::GlobalBuffer<uint64_t> bitmap;
  cuda_emulation::GlobalBuffer<int32_t> row_ptr;

  BitmapDenseProblem(int64_t n, int64_t k, DType weight_dtype, DType dtype, double density)
      : n(n),
        k(k),
        weight_dtype(weight_dtype),
        dtype(dtype),
        mask(choose(n, k, density)),
        weights(n * k),
        source(n * k),
        values(nnz() * size_of(weight_dtype)),
        taken(nnz() * size_of(dtype)),
        dense(n * k * size_of(dtype)),
        from(n * k * size_of(dtype)),
        bitmap(n * ((k + 63) / 64)),
        row_ptr(n + 1) {
    const int64_t bytes = size_of(weight_dtype);
    std::vector<char> packed(n * k * bytes);
    for (int64_t i = 0; i < n * k; ++i) {
      weights[i] = static_cast<float>((i * 37 + i / 19) % 251 - 125);
      source[i] = static_cast<float>((i * 53 + i / 23) % 241 - 120);
      encode(weights[i], weight_dtype, packed.data() + i * bytes);
      encode(source[i], dtype, from.data() + i * size_of(dtype));
    }
    if (bitmap_decode_pack(packed.data(), weight_dtype, mask.data(), n, k, values.data(), bitmap.data(),
                           row_ptr.data()) != Status::kOk)
      throw std::runtime_error("the problem's weight could not be packed");
    std::memset(dense.data(), 0x7f, dense.size());
    std::memset(taken.data(), 0x7f, taken.size());
  }

  static std::vector<uint8_t> choose(int64_t n, int64_t k, double density) {
    std::mt19937 random(3);
    std::vector<uint8_t> mask(n * k);
    for (uint8_t& kept : mask) kept = random() % 1000 < 1000 * density;
    return mask;
  }
  int64_t nnz() const { return std::count(mask.begin(), mask.end(), 1); }

  Status unpack() {
    BitmapDecodeDenseParams p;
    p.weight = {values.data(), bitmap.data(), row_ptr.data(), nnz()};
    p.dense = dense.data();
    p.n = n, p.k = k, p.weight_dtype = weight_dtype, p.dtype = dtype;
    return bitmap_decode_to_dense(p, nullptr);
  }
  Status gather() {
    BitmapDecodeGatherParams p;
    p.weight = {nullptr, bitmap.data(), row_ptr.data(), nnz()};
    p.dense = from.data();
    p.values = taken.data();
    p.n = n, p.k = k, p.dtype = dtype;
    return bitmap_decode_gather(p, nullptr);
  }

  // Index of the first weight of the dense matrix, or of the first value taken, that is not the expected one, or -1.
  int64_t first_wrong_weight() const {
    for (int64_t i = 0; i < n * k; ++i)
      if (!(decode(dense.data() + i * size_of(dtype), dtype) == (mask[i] ? weights[i] : 0))) return i;
    return -1;
  }
  int64_t first_wrong_value() const {
    for (int64_t i = 0, place = 0; i < n * k; ++i)
      if (mask[i] && !(decode(taken.data() + place++ * size_of(dtype), dtype) == source[i])) return i;
    return -1;
  }
};

}  // namespace sparsecore

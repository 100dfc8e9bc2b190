// The dense weight of a bitmap, values taken from a dense matrix, and the epilogue of a stored product, on the
// emulator.
#include <doctest/doctest.h>

#include "cuda/tests/adversary.h"
#include "cuda/tests/bitmap_decode_dense_problem.h"

using namespace sparsecore;

TEST_CASE("Bitmap to dense and back: every type, ragged, rows of several parts, densities from nothing to everything") {
  for (const auto& [weight_dtype, dtype] : kDenseTypes)
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {5, 64}, {7, 131}, {3, 2048}, {6, 2 * 2048 + 70}})
      for (const double density : {0.0, 0.4, 1.0}) {
        const cuda_emulation::ScopedOptions scoped(next_adversary(80));
        CAPTURE(n);
        CAPTURE(k);
        CAPTURE(density);
        BitmapDenseProblem problem(n, k, weight_dtype, dtype, density);
        CHECK(problem.unpack() == Status::kOk);
        CHECK(problem.first_wrong_weight() == -1);
        if (weight_dtype != dtype || size_of(dtype) == 1) continue;
        CHECK(problem.gather() == Status::kOk);
        CHECK(problem.first_wrong_value() == -1);
      }
}

TEST_CASE("Bitmap to dense: arrays that do not belong together lead nowhere outside them") {
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  BitmapDenseProblem problem(5, 300, DType::kBFloat16, DType::kBFloat16, 0.5);
  for (int64_t row = 0; row <= 5; ++row) problem.row_ptr[row] = row % 2 ? INT32_MAX : INT32_MIN;
  CHECK(problem.unpack() == Status::kOk);
  CHECK(problem.gather() == Status::kOk);
  for (int64_t word = 0; word < 5 * 5; ++word) problem.bitmap[word] = ~uint64_t{0};
  for (int64_t row = 0; row <= 5; ++row) problem.row_ptr[row] = static_cast<int32_t>(problem.nnz() - 3);
  CHECK(problem.unpack() == Status::kOk);
  CHECK(problem.gather() == Status::kOk);
}

TEST_CASE("Bitmap to dense: no size at all, and refusals that say what there is") {
  const auto says = [](const char* text) { return std::string(cuda_message()).find(text) != std::string::npos; };
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{0, 0}, {0, 9}, {4, 0}}) {
    BitmapDenseProblem problem(n, k, DType::kBFloat16, DType::kBFloat16, 0.5);
    CHECK(problem.unpack() == Status::kOk);
    CHECK(problem.gather() == Status::kOk);
  }
  BitmapDenseProblem problem(4, 70, DType::kBFloat16, DType::kBFloat16, 0.5);
  problem.dtype = DType::kFloat32;
  CHECK(problem.unpack() == Status::kUnsupportedDType);
  CHECK(says("of the type of the dense matrix, float32, or int8, not bfloat16"));
  problem.dtype = DType::kInt8;
  CHECK(problem.gather() == Status::kUnsupportedDType);
  CHECK(says("bitmap_decode_gather: no kernel for int8 on sm_80"));
  CHECK(says("bitmap_gather_sm80: float32, bfloat16, float16 on sm_80+"));
  problem.weight_dtype = problem.dtype = kFloat8E4M3;
  CHECK(problem.unpack() == Status::kUnsupportedDType);
  CHECK(says("bitmap_decode_to_dense: no kernel for float8_e4m3 on sm_80"));
  CHECK(
      says("bitmap_to_dense_sm80: float32, bfloat16, float16 on sm_80+; "
           "bitmap_to_dense_sm80 with int8 values: float32, bfloat16, float16, int8 on sm_80+;"));
  BitmapDecodeDenseParams dense;
  dense.n = -1;
  CHECK(bitmap_decode_to_dense(dense, nullptr) == Status::kBadShape);
  dense.n = dense.k = 3;
  CHECK(bitmap_decode_to_dense(dense, nullptr) == Status::kNullPointer);
  dense.weight.row_ptr = problem.row_ptr.data();
  dense.weight.bitmap = problem.bitmap.data();
  CHECK(bitmap_decode_to_dense(dense, nullptr) == Status::kNullPointer);
  CHECK(says("needs values and the dense matrix"));
}

TEST_CASE("A stored product is finished in place as a product of its own would be") {
  for (const DType type : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
    for (const auto& [m, n] : {std::pair<int64_t, int64_t>{3, 40}, {1, 1}, {2, 1031}, {0, 8}, {8, 0}}) {
      const cuda_emulation::ScopedOptions scoped(next_adversary(80));
      DeviceMatrix y(type, m, n, n + 3, 0);
      cuda_emulation::GlobalBuffer<float> scale(n), bias(n), token_scale(m);
      std::vector<double> expected(m * n);
      std::mt19937 random(5);
      for (int64_t o = 0; o < n; ++o) scale[o] = o % 2 ? 0.5f : 2.0f, bias[o] = static_cast<float>(o % 7) - 3;
      for (int64_t t = 0; t < m; ++t) token_scale[t] = t % 2 ? 1.0f : 4.0f;
      for (int64_t t = 0; t < m; ++t)
        for (int64_t o = 0; o < n; ++o) {
          const float sum = static_cast<float>(static_cast<int>(random() % 17) - 8);
          y.set(t, o, sum);
          expected[t * n + o] = std::max(0.0f, sum * scale[o] * token_scale[t] + bias[o]);
        }
      DeviceLinear p;
      p.y = y.data();
      p.m = m, p.n = n, p.k = 64;
      p.y_row_stride = n + 3;
      p.out_dtype = type;
      p.weight_scale = scale.data(), p.token_scale = token_scale.data(), p.bias = bias.data();
      p.activation = Activation::kRelu;
      REQUIRE(finish_linear(p, nullptr) == Status::kOk);
      for (int64_t t = 0; t < m; ++t)
        for (int64_t o = 0; o < n; ++o) CHECK(y.get(t, o) == expected[t * n + o]);
    }
  DeviceLinear bad;
  bad.m = bad.n = 1;
  CHECK(finish_linear(bad, nullptr) == Status::kNullPointer);
}

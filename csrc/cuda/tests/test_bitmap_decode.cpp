// Products with a weight behind a bitmap, on the emulator against float64, with adversarial schedules and copies.
#include <doctest/doctest.h>

#include "cuda/tests/adversary.h"
#include "cuda/tests/bitmap_decode_problem.h"

using namespace sparsecore;
using cuda_bitmap_decode::Plan;

namespace {

void check_plan(const Plan& plan, BitmapProblem& problem, double tolerance = 0) {
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  CAPTURE(plan.tokens);
  CAPTURE(plan.splits);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(static_cast<int>(problem.options.weight_dtype));
  problem.forget();
  const BitmapDecodeMatmulParams params =
      problem.params(cuda_linear::partial_sum_bytes(plan.splits, problem.m, problem.n));
  REQUIRE(cuda_bitmap_decode::run_plan(plan, params, nullptr) == Status::kOk);
  CHECK(problem.first_wrong(tolerance) == -1);
  CHECK(!problem.strayed());
}

BitmapOptions of_types(DType dtype, DType weight_dtype) {
  BitmapOptions options;
  options.dtype = dtype;
  options.weight_dtype = weight_dtype;
  return options;
}

constexpr std::pair<DType, DType> kTypes[] = {{DType::kBFloat16, DType::kBFloat16},
                                              {DType::kFloat16, DType::kFloat16},
                                              {DType::kBFloat16, DType::kInt8},
                                              {DType::kFloat16, DType::kInt8}};

}  // namespace

TEST_CASE("Bitmap product: every tile and type, ragged in every direction, exact on integers") {
  for (const int tokens : {8, 16, 32})
    for (const auto& [dtype, weight_dtype] : kTypes)
      for (const auto& [m, n, k] : {std::array<int64_t, 3>{tokens, 32, 512},
                                    {1, 1, 1},
                                    {tokens - 3, 35, 300},
                                    {tokens + 2, 20, 4 * 256 + 65},
                                    {3, 17, 9 * 256 - 1}}) {
        BitmapProblem problem(m, n, k, of_types(dtype, weight_dtype));
        check_plan({tokens, 1}, problem);
      }
}

TEST_CASE("Bitmap product: densities from nothing to everything") {
  for (const double density : {0.0, 0.01, 0.3, 0.9, 1.0})
    for (const auto& [dtype, weight_dtype] : kTypes) {
      BitmapOptions options = of_types(dtype, weight_dtype);
      options.density = density;
      options.seed = 3;
      BitmapProblem problem(5, 33, 1100, options);
      check_plan({8, 1}, problem);
    }
}

TEST_CASE("Bitmap product: split inputs, also into more parts than there are") {
  for (const auto& [tokens, splits] : {std::pair{8, 2}, {16, 3}, {32, 7}})
    for (const auto& [dtype, weight_dtype] : kTypes) {
      BitmapOptions options = of_types(dtype, weight_dtype);
      options.residual = true;
      options.out_dtype = DType::kFloat16;
      BitmapProblem problem(11, 37, 5 * 256 + 130, options);
      check_plan({tokens, splits}, problem);
    }
}

TEST_CASE("Bitmap product: x, y and values that begin anywhere") {
  for (const auto& [dtype, weight_dtype] : kTypes)
    for (const int64_t offset : {1, 3, 8}) {
      BitmapOptions options = of_types(dtype, weight_dtype);
      options.x_offset = options.value_offset = offset;
      options.x_pad = 1;
      options.y_pad = 3;
      BitmapProblem problem(9, 19, 700, options);
      check_plan({16, 1}, problem);
    }
}

TEST_CASE("Bitmap product: numbers of every size, by the plan of the shape") {
  for (const auto& [dtype, weight_dtype] : kTypes)
    for (const auto& [m, n, k] :
         {std::array<int64_t, 3>{1, 50, 4500}, {20, 40, 600}, {70, 33, 700}, {0, 5, 9}, {4, 0, 9}, {4, 9, 0}}) {
      BitmapOptions options = of_types(dtype, weight_dtype);
      options.integers = false;
      options.seed = static_cast<unsigned>(m + 1);
      BitmapProblem problem(m, n, k, options);
      const cuda_emulation::ScopedOptions scoped(cuda_emulation::adversaries(80)[2]);
      problem.forget();
      REQUIRE(bitmap_decode_matmul(problem.params(bitmap_decode_matmul_workspace(m, n, k)), nullptr) == Status::kOk);
      CHECK(problem.first_wrong(1e-5) == -1);
    }
}

TEST_CASE("Bitmap product: the same bits on every call and under every schedule") {
  BitmapOptions options;
  options.integers = false;
  BitmapProblem problem(7, 40, 1500, options);
  std::vector<char> first;
  for (const cuda_emulation::Options& adversary : cuda_emulation::adversaries(80)) {
    const cuda_emulation::ScopedOptions scoped(adversary);
    problem.forget();
    REQUIRE(cuda_bitmap_decode::run_plan({8, 2}, problem.params(2 * 7 * 40 * 4), nullptr) == Status::kOk);
    if (first.empty()) first = problem.y.buffer.to_vector();
    CHECK(problem.y.buffer.to_vector() == first);
  }
}

TEST_CASE("Bitmap product: arrays that do not belong together lead nowhere outside them") {
  BitmapProblem problem(3, 20, 600);
  const cuda_emulation::ScopedOptions scoped(cuda_emulation::adversaries(80)[0]);
  BitmapDecodeMatmulParams params = problem.params(0);
  for (int64_t row = 0; row <= 20; ++row) problem.row_ptr[row] = row % 2 ? INT32_MAX : INT32_MIN;
  CHECK(bitmap_decode_matmul(params, nullptr) == Status::kOk);
  params = problem.params(0);
  for (size_t word = 0; word < problem.bitmap.size(); ++word) problem.bitmap[word] = ~uint64_t{0};
  for (int64_t row = 0; row <= 20; ++row) problem.row_ptr[row] = static_cast<int32_t>(problem.nnz - 5);
  CHECK(bitmap_decode_matmul(params, nullptr) == Status::kOk);
  params.weight.nnz = 0;
  params.weight.values = nullptr;
  CHECK(bitmap_decode_matmul(params, nullptr) == Status::kOk);
}

TEST_CASE("Bitmap product: what cannot be done is said, with what there is") {
  BitmapProblem problem(3, 20, 600);
  const cuda_emulation::ScopedOptions scoped(cuda_emulation::adversaries(80)[0]);
  const BitmapDecodeMatmulParams good = problem.params(0);
  const auto says = [](const char* text) { return std::string(cuda_message()).find(text) != std::string::npos; };
  BitmapDecodeMatmulParams bad = good;
  bad.dtype = DType::kFloat32;
  CHECK(bitmap_decode_matmul(bad, nullptr) == Status::kUnsupportedDType);
  CHECK(says("no kernel for float32"));
  CHECK(says("bitmap_matmul_sm80: bfloat16, float16 on sm_80+"));
  bad = good;
  bad.weight_dtype = DType::kFloat16;
  CHECK(bitmap_decode_matmul(bad, nullptr) == Status::kUnsupportedDType);
  CHECK(says("or int8"));
  bad = good;
  bad.weight_dtype = DType::kInt8;
  CHECK(bitmap_decode_matmul(bad, nullptr) == Status::kBadScale);
  bad = good;
  bad.weight.bitmap = nullptr;
  CHECK(bitmap_decode_matmul(bad, nullptr) == Status::kNullPointer);
  bad = good;
  bad.weight.nnz = -1;
  CHECK(bitmap_decode_matmul(bad, nullptr) == Status::kBadShape);
  CHECK(cuda_bitmap_decode::run_plan({8, 2}, good, nullptr) == Status::kOutOfMemory);
  CHECK(says("bitmap_decode_matmul_workspace"));
  CHECK(cuda_bitmap_decode::run_plan({64, 1}, good, nullptr) == Status::kBadShape);
  CHECK(cuda_bitmap_decode::choose_plan(1, 4096, 4096).splits == 1);
  CHECK(cuda_bitmap_decode::choose_plan(1, 256, 16384).splits > 1);
  CHECK(cuda_bitmap_decode::choose_plan(100, 4096, 4096).tokens == 32);
}

// The 2:4 products on the emulator: every kernel, tile and type against float64, with adversarial schedules and copies.
#include <doctest/doctest.h>

#include <string>

#include "cuda/tests/adversary.h"
#include "cuda/tests/semi_structured_problem.h"

using namespace sparsecore;
using semi_structured::Plan;

namespace {

constexpr DType kTypes[] = {DType::kBFloat16, DType::kFloat16, DType::kInt8, kFloat8E4M3};
using Kernel = Plan::Kernel;

void check_plan(const Plan& plan, MatmulProblem& problem, double tolerance = 0) {
  CAPTURE(static_cast<int>(plan.kernel));
  CAPTURE(plan.tokens);
  CAPTURE(plan.splits);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(static_cast<int>(problem.options.dtype));
  CAPTURE(static_cast<int>(problem.options.activation));
  const cuda_emulation::ScopedOptions scoped(next_adversary(plan.kernel == Kernel::kWgmmaSm90 ? 90 : 89));
  problem.forget();
  const SemiStructuredMatmulParams params =
      problem.params(semi_structured::workspace_bytes(plan, problem.m, problem.n));
  REQUIRE(semi_structured::run_plan(plan, params, nullptr) == Status::kOk);
  CHECK(problem.first_wrong(tolerance) == -1);
  CHECK(!problem.strayed());
}

}  // namespace

TEST_CASE("2:4 product: every tile and type, ragged in every direction, exact on integers") {
  const Plan plans[] = {{Kernel::kSmallSm80, 8, 1},  {Kernel::kSmallSm80, 16, 1},  {Kernel::kSmallSm80, 32, 1},
                        {Kernel::kTiledSm80, 64, 1}, {Kernel::kTiledSm80, 128, 1}, {Kernel::kWgmmaSm90, 64, 1},
                        {Kernel::kWgmmaSm90, 128, 1}};
  for (const Plan& plan : plans)
    for (const DType dtype : kTypes) {
      const int64_t depth = 128 / size_of(dtype), tile = plan.tokens;
      const bool small = plan.kernel == Kernel::kSmallSm80;
      std::vector<std::array<int64_t, 3>> shapes = {{tile, 128, 2 * depth}, {1, 1, 1}, {3, 67, 7}};
      shapes.push_back({small ? tile - 1 : tile + 1, 129, 5 * depth + 1});
      // Longer than any ring, several works of a persistent block.
      if (dtype == DType::kBFloat16)
        shapes.push_back({small ? tile : 2 * tile - 1, plan.kernel == Kernel::kWgmmaSm90 ? 450 : 50, 9 * depth - 3});
      for (const auto& [m, n, k] : shapes) {
        ProblemOptions options;
        options.dtype = dtype;
        MatmulProblem problem(m, n, k, options);
        check_plan(plan, problem);
      }
    }
}

TEST_CASE("2:4 product: clusters of blocks share tokens, some of them past the last channel") {
  struct Case {
    Plan plan;
    int64_t m, n, k;
    DType dtype;
  };
  const Case cases[] = {
      {{Kernel::kWgmmaSm90, 64, 1, 2}, 65, 300, 9 * 64 - 3, DType::kBFloat16},
      {{Kernel::kWgmmaSm90, 64, 3, 2}, 3, 700, 7 * 64, DType::kBFloat16},
      {{Kernel::kWgmmaSm90, 64, 1, 4}, 130, 1100, 100, DType::kFloat16},
      {{Kernel::kWgmmaSm90, 128, 1, 4}, 129, 800, 3 * 128 + 16, DType::kInt8},
      {{Kernel::kWgmmaSm90, 128, 2, 4}, 31, 20, 8 * 64, DType::kBFloat16},
  };
  for (const Case& c : cases) {
    CAPTURE(c.plan.cluster);
    ProblemOptions options;
    options.dtype = c.dtype;
    MatmulProblem problem(c.m, c.n, c.k, options);
    check_plan(c.plan, problem);
  }
}

TEST_CASE("2:4 product: splits of the inputs sum to the same, more splits than blocks included") {
  for (const Plan& plan :
       {Plan{Kernel::kSmallSm80, 8, 3}, Plan{Kernel::kSmallSm80, 32, 5}, Plan{Kernel::kTiledSm80, 64, 3},
        Plan{Kernel::kTiledSm80, 64, 7}, Plan{Kernel::kTiledSm80, 128, 3}, Plan{Kernel::kWgmmaSm90, 64, 3}})
    for (const DType dtype : {DType::kBFloat16, DType::kInt8}) {
      ProblemOptions options;
      options.dtype = dtype;
      options.residual = true;
      options.out_dtype = DType::kBFloat16;
      MatmulProblem problem(plan.kernel == Kernel::kSmallSm80 ? 7 : 65, 99, 5 * 128 / size_of(dtype) - 9, options);
      check_plan(plan, problem);
    }
}

TEST_CASE("2:4 product: views that begin and step anywhere") {
  for (const Plan& plan : {Plan{Kernel::kSmallSm80, 16, 1}, Plan{Kernel::kTiledSm80, 64, 2}})
    for (const DType dtype : kTypes)
      for (const auto& [offset, pad] : {std::pair{1, 0}, std::pair{0, 1}, std::pair{8, 24}}) {
        ProblemOptions options;
        options.dtype = dtype;
        options.out_dtype = DType::kFloat16;
        options.residual = true;
        options.x_offset = options.y_offset = offset;
        options.x_pad = options.y_pad = pad;
        MatmulProblem problem(plan.kernel == Kernel::kSmallSm80 ? 13 : 35, 77, 150, options);
        check_plan(plan, problem);
      }
}

TEST_CASE("2:4 product: scales, biases, activations and residuals, in every type of output") {
  for (const Plan& plan : {Plan{Kernel::kSmallSm80, 8, 1}, Plan{Kernel::kTiledSm80, 64, 1},
                           Plan{Kernel::kTiledSm80, 64, 2}, Plan{Kernel::kWgmmaSm90, 64, 1}})
    for (const DType out : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      ProblemOptions options;
      options.out_dtype = out;
      options.weight_scale = options.token_scale = options.residual = options.in_place_residual = true;
      options.bias_dtype = out == DType::kFloat32 ? DType::kBFloat16 : out;
      for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
        options.activation = activation;
        MatmulProblem problem(6, 70, 100, options);
        check_plan(plan, problem);
      }
      options.integers = false;
      for (int32_t activation = 0; activation <= kLastActivation; ++activation) {
        options.activation = static_cast<Activation>(activation);
        options.seed = 10 + activation;
        MatmulProblem problem(6, 24, 100, options);
        check_plan(plan, problem, out == DType::kFloat32 ? 1e-5 : out == DType::kFloat16 ? 1e-3 : 8e-3);
      }
    }
}

TEST_CASE("2:4 product: random numbers of every type, by the plan of the shape") {
  for (const DType dtype : kTypes)
    for (const auto& [m, n, k] :
         {std::array<int64_t, 3>{1, 200, 700}, {20, 64, 1100}, {70, 130, 600}, {200, 300, 260}}) {
      ProblemOptions options;
      options.dtype = dtype;
      options.integers = false;
      options.token_scale = true;
      options.seed = static_cast<unsigned>(m + n);
      MatmulProblem problem(m, n, k, options);
      const SemiStructuredMatmulParams params = problem.params(semi_structured_matmul_workspace(m, n, k, dtype));
      for (const int capability : {89, 90}) {
        problem.forget();
        const cuda_emulation::ScopedOptions scoped(next_adversary(capability));
        REQUIRE(semi_structured_matmul(params, nullptr) == Status::kOk);
        CHECK(problem.first_wrong(1e-5) == -1);
      }
    }
}

TEST_CASE("2:4 product: nothing to do, and no inputs at all") {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 5, 7}, {5, 0, 7}, {5, 9, 0}, {40, 9, 0}, {0, 0, 0}}) {
    ProblemOptions options;
    options.residual = true;
    options.activation = Activation::kRelu;
    MatmulProblem problem(m, n, k, options);
    problem.forget();
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    REQUIRE(semi_structured_matmul(problem.params(0), nullptr) == Status::kOk);
    CHECK(problem.first_wrong(0) == -1);
  }
}

TEST_CASE("2:4 product: what cannot be done is said, with what there is") {
  ProblemOptions options;
  options.dtype = kFloat8E4M3;
  MatmulProblem problem(4, 16, 64, options);
  const SemiStructuredMatmulParams good = problem.params(0);
  const auto says = [](const char* text) { return std::string(cuda_message()).find(text) != std::string::npos; };
  {
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    CHECK(semi_structured_matmul(good, nullptr) == Status::kUnsupportedDType);
    CHECK(says("no kernel for float8_e4m3 on sm_80"));
    CHECK(says("matmul_sm80: bfloat16, float16, int8 on sm_80+, values at multiples of 16 bytes"));
    CHECK(says("matmul_sm90: float8_e4m3 on sm_90,"));
  }
  SemiStructuredMatmulParams bad = good;
  bad.dtype = DType::kFloat32;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kUnsupportedDType);
  bad = good;
  bad.out_dtype = DType::kInt8;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kUnsupportedDType);
  bad = good;
  bad.weight.metadata_words -= 1;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kBadShape);
  CHECK(says("words of metadata"));
  bad = good;
  bad.y_row_stride = 15;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kBadShape);
  bad = good;
  bad.m = -1;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kBadShape);
  bad = good;
  bad.x = nullptr;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kNullPointer);
  bad = good;
  bad.activation = static_cast<Activation>(99);
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kBadPattern);
  const cuda_emulation::ScopedOptions newest(next_adversary(90));
  bad = good;
  bad.x = static_cast<const char*>(good.x) + 1;
  CHECK(semi_structured::run_plan({Kernel::kWgmmaSm90, 64, 1}, bad, nullptr) == Status::kBadShape);
  CHECK(semi_structured::run_plan({Kernel::kSmallSm80, 8, 2}, good, nullptr) == Status::kOutOfMemory);
  CHECK(says("workspace"));
}

TEST_CASE("2:4 product: the plan follows the shape") {
  using semi_structured::choose_plan;
  const auto plan = [](int64_t m, int64_t n, int64_t k, int capability = 80, bool tensor_copies = true) {
    return choose_plan(m, n, k, DType::kBFloat16, capability, tensor_copies);
  };
  CHECK(plan(1, 4096, 4096).kernel == Kernel::kSmallSm80);
  CHECK(plan(1, 4096, 4096).tokens == 8);
  CHECK(plan(1, 4096, 4096).splits == 1);
  CHECK(plan(17, 4096, 4096).tokens == 32);
  CHECK(plan(33, 4096, 4096).kernel == Kernel::kTiledSm80);
  CHECK(plan(33, 4096, 4096).tokens == 64);
  CHECK(plan(64, 4096, 4096).splits > 1);
  CHECK(plan(4096, 4096, 4096).tokens == 128);
  CHECK(plan(4096, 4096, 4096).splits == 1);
  CHECK(plan(1, 256, 16384).splits > 1);
  CHECK(plan(32, 4096, 4096, 90).kernel == Kernel::kSmallSm80);
  CHECK(plan(4096, 4096, 4096, 90).kernel == Kernel::kWgmmaSm90);
  CHECK(plan(4096, 4096, 4096, 90).cluster == 4);
  CHECK(plan(4096, 11008, 4096, 90).cluster == 4);
  CHECK(plan(4096, 1500, 4096, 90).cluster == 2);
  CHECK(plan(4096, 2300, 4096, 90).cluster == 1);
  CHECK(plan(4096, 4096, 4096, 80).cluster == 1);
  CHECK(plan(4096, 4096, 4096, 90, false).kernel == Kernel::kTiledSm80);
  CHECK(choose_plan(1, 4096, 4096, kFloat8E4M3, 90, true).kernel == Kernel::kWgmmaSm90);
  CHECK(choose_plan(1, 4096, 4096, kFloat8E4M3, 89, true).kernel == Kernel::kSmallSm80);
  CHECK(semi_structured_matmul_workspace(4096, 4096, 4096, DType::kBFloat16) == 0);
  CHECK(semi_structured_matmul_workspace(1, 252, 16384, DType::kBFloat16) ==
        plan(1, 252, 16384).splits * int64_t{256} * 4);
}

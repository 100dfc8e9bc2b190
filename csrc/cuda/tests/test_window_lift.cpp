// (2N-2):2N as lifted 2:4: the assignment of inputs to windows for every choice there is, the format, and the products
// of every kernel against float64.
#include <doctest/doctest.h>

#include <bit>

#include "cuda/semi_structured/matmul_small_sm80.cuh"
#include "cuda/tests/adversary.h"
#include "cuda/tests/semi_structured_problem.h"
#include "sparsecore/window_lift.h"

using namespace sparsecore;
using semi_structured::Plan;
using Kernel = Plan::Kernel;

TEST_CASE("Window lifting: every choice of at most 2N - 2 of 2N inputs has its windows, and no other has") {
  for (int32_t group = 4; group <= 18; group += 2) {
    CAPTURE(group);
    std::vector<uint8_t> taken(lift_windows(group));
    int64_t wrong = 0;
    for (uint64_t kept = 0; kept < uint64_t{1} << group; ++kept) {
      const uint64_t left = lift_assign(kept, group, taken.data());
      uint64_t held = 0;
      bool good = std::popcount(kept) <= group - 2 ? left == 0 : left != 0;
      for (int32_t w = 0; w < lift_windows(group); ++w) {
        const uint64_t inputs = static_cast<uint64_t>(taken[w]) << 2 * w;
        good = good && std::popcount(inputs) <= 2 && (held & inputs) == 0 && taken[w] < 16;
        held |= inputs;
      }
      wrong += !good || (held | left) != kept || (held & left) != 0;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("Window lifting: the longest group, its two free places anywhere") {
  uint8_t taken[31];
  for (int a = 0; a < 64; ++a)
    for (int b = 0; b < a; ++b)
      CHECK(lift_assign(~(uint64_t{1} << a | uint64_t{1} << b), kLargestLiftGroup, taken) == 0);
  CHECK(lift_assign(~uint64_t{1}, kLargestLiftGroup, taken) != 0);
}

TEST_CASE("Window lifting: lifted inputs lie where the header says") {
  CHECK(lifted_inputs(0, 6) == 0);
  CHECK(lifted_inputs(1, 6) == 8);
  CHECK(lifted_inputs(64, 8) == 96);
  CHECK(lifted_inputs(13, 4) == 16);
  for (int32_t group = 4; group <= 64; group += 2)
    for (int64_t g = 0; g < 3; ++g)
      for (int64_t w = 0; w < lift_windows(group); ++w)
        CHECK(lift_window_input(g * lift_windows(group) + w, group) == g * group + 2 * w);
}

TEST_CASE("Window lifting: what is packed comes back, and what is damaged is refused") {
  for (const DType dtype : {DType::kBFloat16, DType::kInt8, kFloat8E4M3})
    for (const int32_t group : {4, 6, 8, 10, 16, 64})
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{70, 130}, {1, 1}, {5, 64}, {0, 9}, {9, 0}}) {
        ProblemOptions options;
        options.dtype = dtype;
        options.group = group;
        MatmulProblem problem(1, n, k, options);
        CAPTURE(group);
        CAPTURE(k);
        const SemiStructured weight = {problem.values.data(), problem.metadata.data(),
                                       static_cast<int64_t>(problem.values.size()),
                                       static_cast<int64_t>(problem.metadata.size())};
        const int64_t bytes = size_of(dtype);
        std::vector<char> back(n * k * bytes + 1);
        CHECK(window_lift_validate(weight, dtype, n, k, group, nullptr) == Status::kOk);
        REQUIRE(window_lift_unpack(weight, dtype, n, k, group, back.data()) == Status::kOk);
        int64_t wrong = 0;
        for (int64_t i = 0; i < n * k; ++i)
          for (int64_t byte = 0; byte < bytes; ++byte)
            wrong += back[i * bytes + byte] != (problem.mask[i] ? problem.dense[i * bytes + byte] : 0);
        CHECK(wrong == 0);
      }
  // Two windows that hold one input: 4:6, input 2 is the third of window 0 and the first of window 1.
  const BFloat16 lifted[8] = {{0}, {0}, {0x3f80}, {0}, {0x3f80}, {0}, {0}, {0}};
  std::vector<char> values(semi_structured_value_bytes(1, 8, DType::kBFloat16));
  std::vector<uint32_t> metadata(semi_structured_metadata_words(1, 8, DType::kBFloat16));
  REQUIRE(semi_structured_pack(lifted, DType::kBFloat16, nullptr, 1, 8, values.data(), metadata.data()) == Status::kOk);
  const SemiStructured weight = {values.data(), metadata.data(), static_cast<int64_t>(values.size()),
                                 static_cast<int64_t>(metadata.size())};
  int64_t where = -1;
  CHECK(window_lift_validate(weight, DType::kBFloat16, 1, 6, 6, &where) == Status::kUnsorted);
  CHECK(where == 4);
  CHECK(window_lift_validate(weight, DType::kBFloat16, 1, 2, 6, &where) == Status::kBadIndex);
  CHECK(where == 2);
  CHECK(window_lift_validate(weight, DType::kBFloat16, 1, 6, 5, nullptr) == Status::kBadPattern);
  const uint8_t five_of_six[6] = {1, 1, 1, 1, 1, 0};
  const BFloat16 dense[6] = {};
  CHECK(window_lift_pack(dense, DType::kBFloat16, five_of_six, 1, 6, 6, values.data(), metadata.data()) ==
        Status::kBadPattern);
}

namespace {

void check_plan(const Plan& plan, MatmulProblem& problem, double tolerance = 0) {
  const cuda_emulation::ScopedOptions scoped(next_adversary(plan.kernel == Kernel::kWgmmaSm90 ? 90 : 80));
  CAPTURE(static_cast<int>(plan.kernel));
  CAPTURE(plan.tokens);
  CAPTURE(plan.splits);
  CAPTURE(problem.options.group);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(static_cast<int>(problem.options.dtype));
  problem.forget();
  const SemiStructuredMatmulParams params = problem.params(semi_structured::workspace_bytes(
      plan, problem.m, problem.n,
      semi_structured::lifted_row_bytes(problem.k, problem.options.dtype, problem.options.group)));
  REQUIRE(semi_structured::run_plan(plan, params, nullptr) == Status::kOk);
  CHECK(problem.first_wrong(tolerance) == -1);
  CHECK(!problem.strayed());
}

}  // namespace

TEST_CASE("Window lifting: products of every tile and type, ragged in every direction, exact on integers") {
  const Plan plans[] = {{Kernel::kSmallSm80, 8, 1},  {Kernel::kSmallSm80, 16, 1},  {Kernel::kSmallSm80, 32, 1},
                        {Kernel::kTiledSm80, 64, 1}, {Kernel::kTiledSm80, 128, 1}, {Kernel::kWgmmaSm90, 64, 1}};
  for (const Plan& plan : plans)
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kInt8})
      for (const int32_t group : {6, 8, 10}) {
        ProblemOptions options;
        options.dtype = dtype;
        options.group = group;
        const bool small = plan.kernel == Kernel::kSmallSm80;
        const int64_t k = 3 * 128 / size_of(dtype) + group + 1;
        MatmulProblem problem(small ? plan.tokens - 1 : plan.tokens + 1, small ? 41 : 70, k, options);
        check_plan(plan, problem);
      }
}

TEST_CASE("Window lifting: groups of every length, the shortest and the longest rows") {
  for (const int32_t group : {4, 6, 8, 10, 12, 14, 16, 18, 34, 50, 64})
    for (const int64_t k : {int64_t{1}, int64_t{2} * group, int64_t{301}}) {
      ProblemOptions options;
      options.group = group;
      options.dtype = group % 4 ? DType::kBFloat16 : DType::kInt8;
      MatmulProblem problem(5, 20, k, options);
      check_plan({Kernel::kSmallSm80, 8, 1}, problem);
      if (k == 301) check_plan({Kernel::kWgmmaSm90, 64, 1}, problem);
    }
}

TEST_CASE("Window lifting: split inputs, views that begin anywhere, and numbers of every size") {
  for (const Plan& plan :
       {Plan{Kernel::kSmallSm80, 16, 3}, Plan{Kernel::kTiledSm80, 64, 2}, Plan{Kernel::kWgmmaSm90, 64, 2}})
    for (const DType dtype : {DType::kBFloat16, DType::kInt8}) {
      ProblemOptions options;
      options.dtype = dtype;
      options.group = 8;
      options.residual = true;
      options.out_dtype = DType::kBFloat16;
      MatmulProblem aligned(9, 40, 5 * 128 / size_of(dtype), options);
      check_plan(plan, aligned);
      if (plan.kernel == Kernel::kWgmmaSm90) continue;
      options.x_offset = 1;
      options.x_pad = 3;
      options.y_pad = 1;
      MatmulProblem askew(9, 40, 200, options);
      check_plan(plan, askew);
    }
  for (const int capability : {80, 90}) {
    ProblemOptions options;
    options.dtype = DType::kFloat16;
    options.group = 6;
    options.integers = false;
    for (const int64_t m : {3, 70}) {
      MatmulProblem problem(m, 90, 500, options);
      const int64_t bytes = semi_structured_matmul_workspace(m, 90, 500, DType::kFloat16, 6);
      const SemiStructuredMatmulParams params = problem.params(bytes);
      problem.forget();
      cuda_emulation::Options emulated = cuda_emulation::adversaries(90)[1];
      emulated.capability = capability;
      const cuda_emulation::ScopedOptions scoped(emulated);
      REQUIRE(semi_structured_matmul(params, nullptr) == Status::kOk);
      CHECK(problem.first_wrong(1e-5) == -1);
    }
  }
}

namespace {

// The most passes that one reading of windows from shared memory takes.
template <class T>
int worst_window_load(DType dtype, int32_t group) {
  ProblemOptions options;
  options.dtype = dtype;
  options.group = group;
  MatmulProblem problem(8, 16, 40 * group, options);
  semi_structured::MatmulArguments args;
  const SemiStructuredMatmulParams params = problem.params(0);
  args.p = params;
  args.weight = params.weight;
  args.n_blocks = 1;
  args.k_blocks = semi_structured::ceil_div(lifted_inputs(problem.k, group) * size_of(dtype), 128);
  args.group_windows = static_cast<uint32_t>(lift_windows(group));
  args.group_windows_inverse = 0x10000 / args.group_windows + 1;
  args.x_vectors = true;
  using Tile = semi_structured::sm80::SmallTile<T, 8>;
  cuda_emulation::Config config;
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  const cuda_emulation::Report report = cuda_emulation::launch(
      config, [&] { semi_structured::sm80::matmul_small<T, 8, semi_structured::LiftedInputs<T>>(args); });
  int worst = 0;
  for (const cuda_emulation::BankConflicts& site : report.bank_conflicts)
    if (site.site.describe().find("inputs.cuh") != std::string::npos) worst = std::max(worst, site.worst);
  return worst;
}

}  // namespace

TEST_CASE("Window lifting: reading windows from shared memory meets no bank twice") {
  for (const int32_t group : {6, 8, 10, 16, 64}) {
    CAPTURE(group);
    CHECK(worst_window_load<BFloat16>(DType::kBFloat16, group) == 1);
    CHECK(worst_window_load<int8_t>(DType::kInt8, group) == 1);
  }
}

TEST_CASE("Window lifting: what cannot be done is said") {
  ProblemOptions options;
  options.group = 6;
  MatmulProblem problem(4, 16, 66, options);
  SemiStructuredMatmulParams bad = problem.params(0);
  const cuda_emulation::ScopedOptions scoped(cuda_emulation::adversaries(90)[0]);
  const auto says = [](const char* text) { return std::string(cuda_message()).find(text) != std::string::npos; };
  bad.group = 7;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kBadPattern);
  CHECK(says("group"));
  bad.group = 8;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kOk);
  bad.group = 32;
  CHECK(semi_structured_matmul(bad, nullptr) == Status::kBadShape);
  bad.group = 6;
  bad.dtype = kFloat8E4M3;
  CHECK(semi_structured_matmul(bad, nullptr) != Status::kOk);
  bad = problem.params(0);
  CHECK(semi_structured::run_plan({Kernel::kWgmmaSm90, 64, 1}, bad, nullptr) == Status::kOutOfMemory);
}

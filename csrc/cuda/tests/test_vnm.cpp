// V:N:M products on the emulator: every tile, run length and type against float64, with adversarial schedules and
// copies.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "cuda/tests/vnm_problem.h"

using namespace sparsecore;
using gathered::Plan;
using Kernel = Plan::Kernel;

namespace {

template <class T>
void check(const Plan& plan, VnmProblem<T>& problem) {
  CAPTURE(static_cast<int>(plan.kernel));
  CAPTURE(plan.tokens);
  CAPTURE(plan.splits);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(problem.shape.vector);
  CAPTURE(problem.shape.group);
  const cuda_emulation::ScopedOptions scoped(next_adversary(plan.kernel == Kernel::kWgmmaSm90 ? 90 : 86));
  problem.forget();
  const int64_t workspace = gathered::workspace_bytes(plan, problem.m, problem.n, problem.k);
  REQUIRE(cuda_vnm::run_plan(plan, problem.params(workspace), nullptr) == Status::kOk);
  CHECK(problem.first_wrong() == -1);
  CHECK(!problem.strayed());
}

constexpr Plan kPlans[] = {
    {Kernel::kSmallSm80, 8, 1}, {Kernel::kSmallSm80, 32, 1}, {Kernel::kTiledSm80, 64, 1}, {Kernel::kTiledSm80, 128, 1}};

}  // namespace

TEST_CASE("V:N:M: every tile and run of channels, ragged in every direction, exact on integers") {
  for (const Plan& plan : kPlans)
    for (const int vector : {16, 32, 64, 128}) {
      const bool small = plan.kernel == Kernel::kSmallSm80;
      for (const auto& [m, n, k, group] : {std::array<int64_t, 4>{plan.tokens, vector, 256, 8},
                                           {1, 1, 1, 8},
                                           {small ? plan.tokens - 1 : plan.tokens + 1, vector + 3, 451, 10},
                                           {3, 2 * vector - 5, 1030, 16}}) {
        VnmProblem<BFloat16> problem({m, n, k, vector, group});
        check(plan, problem);
        if (n == 1 || m > 100) continue;
        VnmProblem<Float16> half({m, n, k, vector, group});
        check(plan, half);
      }
    }
}

TEST_CASE("V:N:M: wgmma.sp, longer than its ring and ragged in every direction") {
  for (const auto& [tokens, vector, splits] :
       {std::array<int, 3>{128, 64, 1}, {256, 64, 1}, {128, 128, 1}, {256, 128, 1}, {128, 64, 3}, {128, 128, 2}}) {
    const Plan plan{Kernel::kWgmmaSm90, tokens, splits};
    for (const auto& [m, n, k] :
         {std::array<int64_t, 3>{tokens, vector, 256}, {1, 1, 1}, {70, vector + 3, 1400}, {tokens + 1, 61, 200}}) {
      VnmProblem<BFloat16> problem({m, n, k, vector, 8});
      check(plan, problem);
      if (m != 70) continue;
      VnmProblem<Float16> half({m, n, k, vector, 5}, 1, 3);
      check(plan, half);
    }
  }
}

TEST_CASE("V:N:M: splits, views and empty sizes") {
  for (const Plan& plan : {Plan{Kernel::kSmallSm80, 8, 3}, Plan{Kernel::kSmallSm80, 32, 16},
                           Plan{Kernel::kTiledSm80, 64, 2}, Plan{Kernel::kTiledSm80, 128, 5}})
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{7, 100, 600}, {0, 100, 600}, {7, 0, 600}, {7, 100, 0}}) {
      VnmProblem<BFloat16> problem({m, n, k, 64, 8}, 1, 1);
      check(plan, problem);
    }
}

TEST_CASE("V:N:M: the plan of a shape fits its workspace") {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 70, 3000}, {20, 64, 1100}, {70, 130, 600}, {130, 96, 64}}) {
    const int vector = m > 64 ? 128 : 32;
    VnmProblem<Float16> problem({m, n, k, vector, 12});
    for (const int capability : {80, 90}) {
      const cuda_emulation::ScopedOptions scoped(next_adversary(capability));
      problem.forget();
      const int64_t workspace = vnm_linear_workspace(m, n, k, problem.picked, vector);
      REQUIRE(vnm_linear_device(problem.params(workspace), nullptr) == Status::kOk);
      CHECK(problem.first_wrong() == -1);
    }
  }
}

TEST_CASE("V:N:M: damaged columns read nothing outside") {
  for (const Plan& plan : kPlans) {
    VnmProblem<BFloat16> problem({5, 40, 70, 16, 8});
    for (uint16_t& column : problem.columns) column = static_cast<uint16_t>(column * 2657u);
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    const int64_t workspace = gathered::workspace_bytes(plan, 5, 40, 70);
    CHECK(cuda_vnm::run_plan(plan, problem.params(workspace), nullptr) == Status::kOk);
  }
}

TEST_CASE("V:N:M: refusals say what there is") {
  VnmProblem<BFloat16> problem({4, 32, 64, 16, 8});
  const auto refused = [&](auto change, Status status, const char* words) {
    VnmLinearParams p = problem.params(1 << 20);
    change(p);
    CHECK(vnm_linear_device(p, nullptr) == status);
    CAPTURE(cuda_message());
    CHECK(std::strstr(cuda_message(), words));
  };
  using Params = VnmLinearParams;
  refused([](Params& p) { p.weight.vector = 8; }, Status::kBadPattern, "runs of 8");
  refused([](Params& p) { p.dtype = DType::kInt8; }, Status::kUnsupportedDType, "no kernel for int8");
  refused([](Params& p) { p.k = 65535; }, Status::kBadShape, "k < 65535");
  refused([](Params& p) { p.weight.picked = 30; }, Status::kBadShape, "four columns for each group");
  refused([](Params& p) { p.weight.packed.value_bytes -= 2; }, Status::kBadShape, "picked weight [32, 32]");
  refused([](Params& p) { p.weight.columns = nullptr; }, Status::kNullPointer, "needs values, metadata and columns");
  refused([](Params& p) { p.workspace = nullptr; }, Status::kOutOfMemory, "needs a workspace of 1024 bytes");
}

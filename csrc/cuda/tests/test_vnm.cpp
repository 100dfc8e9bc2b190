// V:N:M products on the emulator: every tile, run length and type against float64, with adversarial schedules and
// copies.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
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
  CAPTURE(plan.cluster);
  const bool sm90 = plan.kernel == Kernel::kWgmmaSm90 || plan.kernel == Kernel::kPickedSm90;
  cuda_emulation::Options options = next_adversary(sm90 ? 90 : 86);
  options.multiprocessors = std::max(options.multiprocessors, plan.cluster);
  const cuda_emulation::ScopedOptions scoped(options);
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

TEST_CASE("V:N:M: picked from whole tiles, longer than the ring and ragged in every direction") {
  for (const int cluster : {1, 2, 4})
    for (const int vector : {32, 64})
      for (const auto& [m, n, k, group] : {std::array<int64_t, 4>{128, 256, 128, 8},
                                           {1, 1, 150, 8},
                                           {130, 300, 1400, 12},
                                           {70, 600, 390, 4},
                                           {200, 513, 2100, 16}}) {
        if (k > 1000 && cluster == 2) continue;
        VnmProblem<BFloat16> problem({m, n, k, vector, group});
        check({Kernel::kPickedSm90, 128, 1, cluster}, problem);
        if (m != 70) continue;
        VnmProblem<Float16> half({m, n, k, vector, group}, 1, 3);
        check({Kernel::kPickedSm90, 128, 1, cluster}, half);
      }
}

TEST_CASE("V:N:M: picked from whole tiles, groups of every size and splits") {
  for (const auto& [group, splits] : {std::array<int, 2>{4, 2}, {5, 3}, {7, 1}, {10, 2}, {13, 1}, {15, 3}, {16, 2}}) {
    VnmProblem<BFloat16> problem({9, 70, 70 * group - 3, group % 2 ? 64 : 32, group}, 1, 1);
    check({Kernel::kPickedSm90, 128, splits, 1}, problem);
  }
}

TEST_CASE("V:N:M: the number of groups says how large they are") {
  using cuda_vnm::group_of;
  for (int group = 1; group <= 40; ++group)
    for (int64_t k = 1; k < 3000; k += k < 100 ? 1 : 37) {
      const int64_t groups = cuda_vnm::ceil_div(k, group);
      int32_t only = 0, fits = 0;
      for (int32_t other = 1; other <= k + 1; ++other)
        if (cuda_vnm::ceil_div(k, other) == groups) only = other, ++fits;
      CHECK(group_of(k, 4 * groups) == (fits == 1 ? only : 0));
      if (k >= group * (group + 1)) CHECK(group_of(k, 4 * groups) == group);
    }
  for (const auto& [k, picked] : {std::array<int64_t, 2>{0, 0}, {0, 8}, {100, 0}, {100, 4}, {3, 16}, {65000, 32000}})
    CHECK(group_of(k, picked) == 0);
}

TEST_CASE("V:N:M: inputs that a run does not pick are not multiplied, whatever else the window holds") {
  VnmProblem<BFloat16> problem({130, 256, 300, 64, 8});
  // The second run alone picks the first four inputs of each group, and its answers are not looked at.
  for (int64_t at = 0; at < static_cast<int64_t>(problem.columns.size()); ++at) {
    const int64_t first = at % problem.picked / 4 * 8, width = std::min<int64_t>(8, problem.k - first);
    const bool second = at / problem.picked == 1;
    problem.columns[at] = static_cast<uint16_t>(first + (second ? 0 : std::max<int64_t>(width - 4, 0)) + at % 4);
  }
  for (int64_t t = 0; t < problem.m; ++t)
    for (int64_t i = 0; i < problem.k; ++i) problem.x.set(t, i, i % 8 < 4 && i < 296 ? NAN : 1.0f);
  const cuda_emulation::ScopedOptions scoped(next_adversary(90));
  const Plan plan{Kernel::kPickedSm90, 128, 1, 1};
  const int64_t workspace = gathered::workspace_bytes(plan, problem.m, problem.n, problem.k);
  REQUIRE(cuda_vnm::run_plan(plan, problem.params(workspace), nullptr) == Status::kOk);
  int64_t wrong = 0, poisoned = 0;
  for (int64_t t = 0; t < problem.m; ++t)
    for (int64_t o = 0; o < problem.n; ++o) {
      const bool nan = std::isnan(problem.y.get(t, o));
      o / 64 == 1 ? poisoned += nan : wrong += nan;
    }
  CHECK(wrong == 0);
  CHECK(poisoned == problem.m * 64);
}

TEST_CASE("V:N:M: splits, views and empty sizes") {
  for (const Plan& plan :
       {Plan{Kernel::kSmallSm80, 8, 3}, Plan{Kernel::kSmallSm80, 32, 16}, Plan{Kernel::kTiledSm80, 64, 2},
        Plan{Kernel::kTiledSm80, 128, 5}, Plan{Kernel::kPickedSm90, 128, 3}})
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{7, 100, 600}, {0, 100, 600}, {7, 0, 600}, {7, 100, 0}}) {
      if (plan.kernel == Kernel::kPickedSm90 && k == 0) continue;  // no groups, of no size
      VnmProblem<BFloat16> problem({m, n, k, 64, 8}, 1, 1);
      check(plan, problem);
    }
}

TEST_CASE("V:N:M: the plan of a shape fits its workspace") {
  for (const auto& [m, n, k] :
       {std::array<int64_t, 3>{1, 70, 3000}, {20, 64, 1100}, {70, 130, 600}, {130, 96, 64}, {260, 520, 220}}) {
    const int vector = m > 64 && m < 200 ? 128 : 32;
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
  for (const Plan& plan : {Plan{Kernel::kPickedSm90, 128, 1, 1}, Plan{Kernel::kPickedSm90, 128, 1, 2}}) {
    VnmProblem<BFloat16> problem({70, 300, 530, 32, 8});
    for (uint16_t& column : problem.columns) column = static_cast<uint16_t>(column * 2657u);
    const cuda_emulation::ScopedOptions scoped(next_adversary(90));
    const int64_t workspace = gathered::workspace_bytes(plan, 70, 300, 530);
    CHECK(cuda_vnm::run_plan(plan, problem.params(workspace), nullptr) == Status::kOk);
    CHECK(!problem.strayed());
  }
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

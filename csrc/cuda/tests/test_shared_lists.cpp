// Shared lists on the emulator: every tile, vector and type against float64, with adversarial schedules and copies.
#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "cuda/tests/shared_lists_problem.h"

using namespace sparsecore;
using gathered::Plan;
using Kernel = Plan::Kernel;

namespace {

template <class T>
void check(const Plan& plan, SharedListsProblem<T>& problem) {
  CAPTURE(static_cast<int>(plan.kernel));
  CAPTURE(plan.tokens);
  CAPTURE(plan.splits);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(problem.shape.vector);
  const cuda_emulation::ScopedOptions scoped(next_adversary(plan.kernel == Kernel::kWgmmaSm90 ? 90 : 86));
  problem.forget();
  const int64_t workspace = gathered::workspace_bytes(plan, problem.m, problem.n, problem.k);
  REQUIRE(cuda_shared_lists::run_plan(plan, problem.params(workspace), nullptr) == Status::kOk);
  CHECK(problem.first_wrong() == -1);
  CHECK(!problem.strayed());
}

constexpr Plan kPlans[] = {
    {Kernel::kSmallSm80, 8, 1}, {Kernel::kSmallSm80, 32, 1}, {Kernel::kTiledSm80, 64, 1}, {Kernel::kTiledSm80, 128, 1}};

constexpr Plan kWgmmaPlans[] = {
    {Kernel::kWgmmaSm90, 128, 1}, {Kernel::kWgmmaSm90, 256, 1}, {Kernel::kWgmmaSm90, 128, 3}};

}  // namespace

TEST_CASE("shared lists: every tile and vector, ragged in every direction, exact on integers") {
  for (const Plan& plan : kPlans)
    for (const int vector : {8, 16, 32, 64}) {
      const bool small = plan.kernel == Kernel::kSmallSm80;
      for (const auto& [m, n, k] : {std::array<int64_t, 3>{plan.tokens, 2 * vector, 160},
                                    {1, 1, 1},
                                    {small ? plan.tokens - 1 : plan.tokens + 1, 3 * vector - 3, 437},
                                    {3, vector + 1, 900}}) {
        SharedListsProblem<BFloat16> problem({m, n, k, vector});
        check(plan, problem);
        if (n == 1 || m > 100) continue;
        SharedListsProblem<Float16> half({m, n, k, vector});
        check(plan, half);
      }
    }
}

TEST_CASE("shared lists: wgmma, longer than its ring and ragged in every direction") {
  for (const Plan& plan : kWgmmaPlans)
    for (const auto& [m, n, k] :
         {std::array<int64_t, 3>{plan.tokens, 128, 320}, {1, 1, 1}, {70, 67, 1900}, {plan.tokens + 1, 61, 200}}) {
      SharedListsProblem<BFloat16> problem({m, n, k, 64});
      check(plan, problem);
      if (n != 67) continue;
      SharedListsProblem<Float16> half({m, n, k, 64}, 1, 3);
      check(plan, half);
    }
  SharedListsProblem<BFloat16> empty({70, 64, 100, 64, 0.0});
  check(kWgmmaPlans[0], empty);
}

TEST_CASE("shared lists: splits of the lists sum to the same, more splits than turns included") {
  for (const Plan& plan : {Plan{Kernel::kSmallSm80, 8, 3}, Plan{Kernel::kSmallSm80, 32, 16},
                           Plan{Kernel::kTiledSm80, 64, 2}, Plan{Kernel::kTiledSm80, 128, 5}})
    for (const int vector : {8, 64}) {
      SharedListsProblem<BFloat16> problem({plan.kernel == Kernel::kSmallSm80 ? 7 : 65, 100, 400, vector});
      check(plan, problem);
    }
}

TEST_CASE("shared lists: views that begin and step anywhere, empty lists and empty sizes") {
  for (const Plan& plan : kPlans) {
    for (const auto& [offset, pad] : {std::pair{1, 0}, std::pair{0, 1}, std::pair{8, 24}}) {
      SharedListsProblem<BFloat16> problem({7, 61, 131, 16}, offset, pad);
      check(plan, problem);
    }
    for (const SharedListsShape& shape :
         {SharedListsShape{5, 40, 64, 8, 0.0}, {0, 40, 64, 8}, {5, 0, 64, 8}, {5, 40, 0, 8}}) {
      SharedListsProblem<BFloat16> problem(shape);
      check(plan, problem);
    }
  }
}

TEST_CASE("shared lists: the plan of a shape fits its workspace") {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 70, 3000}, {20, 64, 1100}, {70, 130, 600}, {130, 96, 64}}) {
    const int vector = m > 64 ? 64 : 32;
    SharedListsProblem<Float16> problem({m, n, k, vector});
    for (const int capability : {80, 90}) {
      const cuda_emulation::ScopedOptions scoped(next_adversary(capability));
      problem.forget();
      const int64_t workspace = shared_lists_linear_workspace(m, n, k, problem.records, vector);
      REQUIRE(shared_lists_linear_device(problem.params(workspace), nullptr) == Status::kOk);
      CHECK(problem.first_wrong() == -1);
    }
  }
}

// Nothing but the answer is at stake: the buffers are guarded.
TEST_CASE("shared lists: damaged lists read nothing outside") {
  for (const Plan& plan : kPlans)
    for (int damage = 0; damage < 3; ++damage) {
      SharedListsProblem<BFloat16> problem({9 < plan.tokens ? 9 : 7, 40, 70, 16});
      if (damage == 0) problem.columns[3] = 65535;
      if (damage == 1) problem.group_ptr[1] = 1 << 30;
      if (damage == 2) problem.group_ptr[1] = -7;
      const cuda_emulation::ScopedOptions scoped(next_adversary(80));
      const int64_t workspace = gathered::workspace_bytes(plan, problem.m, problem.n, problem.k);
      CHECK(cuda_shared_lists::run_plan(plan, problem.params(workspace), nullptr) == Status::kOk);
      cuda_emulation::GlobalBuffer<uint16_t> dense(problem.n * problem.k);
      CHECK(shared_lists_unpack_device(problem.weight(), DType::kBFloat16, problem.n, problem.k, dense.data(),
                                       nullptr) == Status::kOk);
    }
}

TEST_CASE("shared lists: the gradient of the kept weights") {
  for (const int vector : {8, 16, 32, 64})
    for (const auto& [m, n, k, pad] :
         {std::array<int64_t, 4>{70, 3 * vector - 3, 350, 0}, {1, 5, 9, 1}, {0, 20, 9, 0}}) {
      CAPTURE(vector);
      CAPTURE(m);
      SharedListsProblem<BFloat16> problem({m, n, k, vector, 0.6}, 0, pad);
      const int64_t stride = n + pad;
      cuda_emulation::GlobalBuffer<BFloat16> grad(m * stride);
      std::mt19937 random(7);
      std::vector<float> grads(m * n);
      for (int64_t t = 0; t < m; ++t)
        for (int64_t o = 0; o < n; ++o) {
          grads[t * n + o] = static_cast<float>(static_cast<int>(random() % 9) - 4);
          narrow(grads[t * n + o], &grad[t * stride + o]);
        }
      cuda_emulation::GlobalBuffer<float> out(problem.columns.size() * vector);
      cuda_emulation::GlobalBuffer<char> workspace(shared_lists_weight_grad_workspace(m, n, k));
      SharedListsWeightGradParams p;
      p.grad_y = grad.data();
      p.x = problem.x.data();
      p.out = out.data();
      p.weight = problem.weight();
      p.m = m, p.n = n, p.k = k;
      p.grad_y_row_stride = stride;
      p.x_row_stride = problem.x.stride;
      p.workspace = workspace.data();
      p.workspace_bytes = static_cast<int64_t>(workspace.size());
      const cuda_emulation::ScopedOptions scoped(next_adversary(80));
      REQUIRE(shared_lists_weight_grad_device(p, nullptr) == Status::kOk);
      int64_t wrong = -1;
      for (int64_t g = 0; g < problem.groups; ++g)
        for (int64_t r = problem.group_ptr[g]; r < problem.group_ptr[g + 1]; ++r)
          for (int v = 0; v < vector; ++v) {
            double sum = 0;
            if (g * vector + v < n)
              for (int64_t t = 0; t < m; ++t)
                sum += static_cast<double>(grads[t * n + g * vector + v]) * problem.x.get(t, problem.columns[r]);
            if (wrong < 0 && !(out[r * vector + v] == sum)) wrong = r * vector + v;
          }
      CHECK(wrong == -1);
    }
}

TEST_CASE("shared lists: the dense weight comes back") {
  for (const int vector : {8, 64})
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{3 * vector - 1, 1100}, {1, 1}, {vector, 512}}) {
      SharedListsProblem<Float16> problem({1, n, k, vector});
      cuda_emulation::GlobalBuffer<Float16> dense(n * k);
      const cuda_emulation::ScopedOptions scoped(next_adversary(80));
      REQUIRE(shared_lists_unpack_device(problem.weight(), DType::kFloat16, n, k, dense.data(), nullptr) ==
              Status::kOk);
      int64_t wrong = -1;
      for (int64_t i = 0; i < n * k && wrong < 0; ++i)
        if (widen(dense[i]) != problem.dense[i]) wrong = i;
      CHECK(wrong == -1);
    }
}

TEST_CASE("shared lists: refusals say what there is") {
  SharedListsProblem<BFloat16> problem({4, 32, 64, 16});
  const auto refused = [&](auto change, Status status, const char* words) {
    SharedListsLinearParams p = problem.params(1 << 20);
    change(p);
    CHECK(shared_lists_linear_device(p, nullptr) == status);
    CAPTURE(cuda_message());
    CHECK(std::strstr(cuda_message(), words));
  };
  using Params = SharedListsLinearParams;
  refused([](Params& p) { p.weight.vector = 4; }, Status::kBadPattern, "vectors of 4");
  refused([](Params& p) { p.dtype = DType::kFloat32; }, Status::kUnsupportedDType, "no kernel for float32");
  refused([](Params& p) { p.k = 70000; }, Status::kBadShape, "k <= 65536");
  refused([](Params& p) { p.workspace_bytes = 16; }, Status::kOutOfMemory, "needs a workspace of 1024 bytes");
  refused([](Params& p) { p.weight.columns = nullptr; }, Status::kNullPointer, "needs values, columns and group_ptr");
  refused([](Params& p) { p.weight.values = static_cast<const char*>(p.weight.values) + 2; }, Status::kBadShape,
          "values at a multiple of 2 bytes");
  refused([](Params& p) { p.activation = static_cast<Activation>(99); }, Status::kBadPattern, "number 99");
}

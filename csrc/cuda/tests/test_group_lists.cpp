// Group lists on the emulator: products and gradients against float64, with adversarial schedules and copies.
#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "cuda/group_lists/linear_small_sm80.cuh"
#include "cuda/linear/asked.h"
#include "cuda/tests/adversary.h"
#include "cuda/tests/group_lists_problem.h"

using namespace sparsecore;
using group_lists_cuda::kExpanding;
using group_lists_cuda::kSmall;
using group_lists_cuda::Plan;

namespace {

void check(const Plan& plan, GroupProblem& problem) {
  CAPTURE(static_cast<int>(plan.kernel));
  CAPTURE(plan.tokens);
  CAPTURE(plan.splits);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(problem.rows);
  CAPTURE(problem.cols);
  CAPTURE(problem.depth);
  CAPTURE(problem.window);
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  REQUIRE(group_lists_cuda::run_plan(plan, problem.params(plan.splits), nullptr) == Status::kOk);
  CHECK(problem.first_wrong() == -1);
  CHECK(!problem.strayed());
}

struct Kind {
  int32_t rows, cols, depth, window;
};
// Every number of rows, panels shorter and longer than a turn and no multiple of one, 16-bit indices, windows that are
// smaller, larger and no divisor of a tile.
constexpr Kind kKinds[] = {{1, 1, 128, 128}, {1, 16, 64, 8},   {2, 1, 32, 5},   {4, 4, 256, 16},  {8, 1, 96, 3},
                           {16, 1, 128, 64}, {16, 4, 256, 4},  {32, 1, 48, 2},  {16, 16, 128, 1}, {1, 32, 256, 256},
                           {32, 32, 160, 7}, {1, 1, 512, 100}, {4, 1, 1024, 32}};

}  // namespace

TEST_CASE("group lists on CUDA: every kind, both tiles, ragged in every direction, exact on integers") {
  unsigned seed = 0;
  for (const Kind& kind : kKinds)
    for (const int tokens : {32, 128})
      for (const auto& [m, n, k] :
           {std::array<int64_t, 3>{tokens == 32 ? 35 : 7, 150, 300}, std::array<int64_t, 3>{3, 65, 129}}) {
        GroupOptions options;
        options.dtype = seed % 2 ? DType::kFloat16 : DType::kBFloat16;
        options.seed = ++seed;
        GroupProblem problem(m, n, k, kind.rows, kind.cols, kind.depth, kind.window, options);
        check({kExpanding, tokens, 1}, problem);
      }
  GroupProblem longer(130, 70, 1300, 1, 1, 128, 16, {});
  check({kExpanding, 128, 1}, longer);
  for (const int32_t cols : {8, 32}) {  // row vectors that begin anywhere
    GroupOptions options;
    options.list_offset = 3;
    GroupProblem problem(9, 70, 300, 1, cols, 96, 16, options);
    check({kExpanding, 32, 1}, problem);
  }
}

TEST_CASE("group lists on CUDA: few tokens, every kind, both tiles, ragged in every direction, exact on integers") {
  unsigned seed = 0;
  for (const Kind& kind : kKinds)
    for (const int tokens : {2, 4, 8})
      for (const auto& [m, n, k] :
           {std::array<int64_t, 3>{tokens, 150, 300}, std::array<int64_t, 3>{tokens + 3, 65, 129}}) {
        GroupOptions options;
        options.dtype = seed % 2 ? DType::kFloat16 : DType::kBFloat16;
        options.list_offset = seed % 3 == 2 ? 1 + seed % 7 : 0;
        options.seed = ++seed;
        GroupProblem problem(m, n, k, kind.rows, kind.cols, kind.depth, kind.window, options);
        check({kSmall, tokens, 1}, problem);
      }
  // More panels, and more columns, than a span has.
  for (const Kind& kind : {Kind{2, 2, 16, 40}, Kind{1, 1, 128, 200}, Kind{8, 1, 1024, 8}}) {
    GroupOptions options;
    if (kind.depth > 16) options.density = 0.05;
    GroupProblem longer(3, 70, kind.depth == 16 ? 613 : 4500, kind.rows, kind.cols, kind.depth, kind.window, options);
    check({kSmall, 8, 1}, longer);
    check({kSmall, 4, 2}, longer);
    check({kSmall, 2, 1}, longer);
  }
}

TEST_CASE("group lists on CUDA: with few tokens, what a list does not keep is not multiplied") {
  GroupOptions options;
  options.out_dtype = DType::kBFloat16;
  for (const auto& [rows, cols] : {std::pair{1, 1}, {2, 4}, {8, 1}}) {
    GroupProblem problem(2, 70, 200, rows, cols, 64, 16, options);
    const auto run = [&] {
      const cuda_emulation::ScopedOptions scoped(next_adversary(80));
      REQUIRE(group_lists_cuda::run_plan({kSmall, 2, 1}, problem.params(1), nullptr) == Status::kOk);
      std::vector<double> y;
      for (int64_t channel = 0; channel < problem.n; ++channel) y.push_back(problem.y.get(1, channel));
      return y;
    };
    const std::vector<double> finite = run();
    constexpr int64_t kColumn = 77;
    problem.x.set(1, kColumn, std::numeric_limits<float>::infinity());
    const std::vector<double> infinite = run();
    const int64_t blocks = cuda_linear::ceil_div(problem.k, cols);
    int64_t spared = 0;
    for (int64_t channel = 0; channel < problem.n; ++channel) {
      if (problem.mask[channel / rows * blocks + kColumn / cols]) continue;
      CHECK(infinite[channel] == finite[channel]);
      ++spared;
    }
    CHECK(spared > 0);
    CHECK(spared < problem.n);
    // Nor does a weight count for other lists, whose pieces it may lie in.
    GroupProblem other(5, 70, 200, rows, cols, 64, 16, options);
    const int64_t group = other.make_infinite();
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    REQUIRE(group_lists_cuda::run_plan({kSmall, 8, 1}, other.params(1), nullptr) == Status::kOk);
    CHECK(other.first_wrong_but_for(group) == -1);
  }
}

namespace {

// One block of threads, by the kernel for few tokens, with the bank conflicts of its accesses to shared memory.
template <int kRows, int kTokens>
cuda_emulation::Report run_small(GroupProblem& problem) {
  using Tile = group_lists_cuda::sm80::SmallTile<kRows, kTokens>;
  group_lists_cuda::LinearArguments args;
  args.p = problem.params(1);
  args.lists = group_lists_cuda::lists_of(problem.weight(), problem.n, problem.k);
  args.token_tiles = args.channel_tiles = 1;
  args.x_vectors = args.value_vectors = args.index_vectors = true;
  args.span_panels = group_lists_cuda::span_columns(kTokens) / problem.depth;
  args.panel_shares = group_lists_cuda::panel_shares(args.lists.panels, 1, args.span_panels);
  cuda_emulation::Config config;
  config.grid = dim3(1);
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  const cuda_emulation::Report report = cuda_emulation::launch(
      config, [&] { group_lists_cuda::sm80::group_lists_small<BFloat16, kRows, kTokens>(args); });
  CHECK(problem.first_wrong() == -1);
  return report;
}

// Of accesses whose places do not depend on the lists: rings, not x.
template <int kRows>
void check_banks(int32_t depth) {
  GroupProblem problem(2, 32, 2048, kRows, 1, depth, 16, {});
  int64_t executions = 0;
  for (const cuda_emulation::BankConflicts& place : run_small<kRows, 2>(problem).bank_conflicts)
    if (place.instruction == "ld.shared.v4.b32" || place.instruction == "ld.shared.v2.b32") {
      CAPTURE(place.instruction);
      CHECK(place.worst == 1);
      executions += place.executions;
    }
  CHECK(executions > 0);
}

// Of x, whose columns are random. Random places take 2.4 to 3.1 passes, those of groups of 8 and more columns would
// take 5 to 8 if columns lay in their order.
template <int kTokens>
void check_columns(int32_t cols, const char* instruction) {
  CAPTURE(cols);
  CAPTURE(kTokens);
  GroupOptions options;
  options.of_panel = 512 / cols / 4;  // lists of one length: lanes take their steps together
  GroupProblem problem(kTokens, 32, 2048, 1, cols, 512, 1, options);
  int64_t executions = 0, passes = 0;
  for (const cuda_emulation::BankConflicts& place : run_small<1, kTokens>(problem).bank_conflicts)
    if (place.instruction == instruction && place.worst > 1) {
      executions += place.executions;
      passes += place.passes;
    }
  REQUIRE(executions > 0);
  CHECK(static_cast<double>(passes) / static_cast<double>(executions) < 3.3);
}

}  // namespace

TEST_CASE("group lists on CUDA: with few tokens, rings are read without bank conflicts") {
  for (const int32_t depth : {128, 1024}) {  // indices of 8 and 16 bits
    check_banks<1>(depth);
    check_banks<4>(depth);
    check_banks<8>(depth);
  }
}

TEST_CASE("group lists on CUDA: with few tokens, groups of more columns find x in as many banks as single weights") {
  for (const int32_t cols : {1, 4, 8, 16, 32}) {
    check_columns<2>(cols, "ld.shared.b32");
    check_columns<4>(cols, "ld.shared.v2.b32");
    check_columns<8>(cols, "ld.shared.v4.b32");
  }
}

TEST_CASE("group lists on CUDA: splits of the panels sum to the same, more splits than panels included") {
  for (const Kind& kind : kKinds)
    for (const int splits : {2, 5}) {
      GroupOptions options;
      options.residual = true;
      options.out_dtype = DType::kBFloat16;
      options.activation = Activation::kRelu;
      GroupProblem problem(9, 70, 400, kind.rows, kind.cols, kind.depth, kind.window, options);
      check({kExpanding, 32, splits}, problem);
      check({kSmall, 8, splits}, problem);
    }
}

TEST_CASE("group lists on CUDA: views that begin and step anywhere, full and empty weights, nothing to do") {
  for (const auto& [offset, pad] : {std::pair{1, 0}, std::pair{0, 1}, std::pair{8, 24}}) {
    GroupOptions options;
    options.out_dtype = DType::kFloat16;
    options.residual = true;
    options.x_offset = options.y_offset = offset;
    options.x_pad = options.y_pad = pad;
    GroupProblem problem(13, 77, 150, 4, 1, 128, 32, options);
    check({kExpanding, 32, 1}, problem);
    check({kSmall, 8, 1}, problem);
    check({kSmall, 2, 2}, problem);
  }
  for (const double density : {0.0, 5.0}) {
    GroupOptions options;
    options.density = density;
    GroupProblem problem(5, 40, 200, 2, 1, 128, 8, options);
    check({kExpanding, 32, 1}, problem);
    check({kExpanding, 128, 2}, problem);
    check({kSmall, 8, 1}, problem);
    check({kSmall, 2, 2}, problem);
  }
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 40, 40}, {5, 0, 40}, {5, 40, 0}}) {
    GroupProblem problem(m, n, k, 4, 1, 32, 8, {});
    check({kExpanding, 32, 1}, problem);
    check({kSmall, 8, 1}, problem);
  }
}

TEST_CASE("group lists on CUDA: gradients of the values, ragged, from views that begin anywhere") {
  unsigned seed = 0;
  for (const Kind& kind : kKinds)
    for (const auto& [m, offset, pad] :
         {std::array<int64_t, 3>{5 * 64 + 3, 0, 0}, std::array<int64_t, 3>{7, 1, 1}, std::array<int64_t, 3>{0, 0, 0}}) {
      CAPTURE(kind.rows);
      CAPTURE(kind.cols);
      CAPTURE(kind.depth);
      CAPTURE(m);
      GroupOptions options;
      options.dtype = seed % 2 ? DType::kFloat16 : DType::kBFloat16;
      options.seed = ++seed;
      options.x_offset = offset;
      options.x_pad = pad;
      GroupProblem problem(m, 75, 210, kind.rows, kind.cols, kind.depth, kind.window, options);
      const cuda_emulation::ScopedOptions scoped(next_adversary(80));
      REQUIRE(group_lists_cuda_weight_grad(problem.grad_params(), nullptr) == Status::kOk);
      CHECK(problem.first_wrong_gradient() == -1);
      CHECK(!problem.strayed_behind_gradient());
    }
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{0, 40}, {40, 0}}) {
    GroupProblem problem(3, n, k, 4, 1, 32, 8, {});
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    REQUIRE(group_lists_cuda_weight_grad(problem.grad_params(), nullptr) == Status::kOk);
    CHECK(problem.first_wrong_gradient() == -1);
    CHECK(!problem.strayed_behind_gradient());
  }
}

TEST_CASE("group lists on CUDA: lists that hold anything lead nowhere outside") {
  for (int damage = 0; damage < 5; ++damage) {
    GroupProblem problem(5, 70, 200, 4, 1, 128, 8, {});
    switch (damage) {
      case 0: problem.starts[1] = INT32_MIN, problem.starts[2] = INT32_MAX; break;
      case 1: problem.starts[4] = INT32_MIN, problem.starts[5] = INT32_MAX; break;
      case 2:
        for (size_t i = 0; i < problem.index.size(); i += 3) problem.index[i] = static_cast<char>(255 - i % 7);
        break;
      case 3:
        for (size_t i = 0; i < problem.order.size(); ++i) problem.order[i] = static_cast<uint8_t>(255 * (i % 2));
        break;
      default: std::swap(problem.index[0], problem.index[5]);
    }
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    for (const Plan& plan : {Plan{kExpanding, 32, 1}, Plan{kSmall, 8, 1}}) {
      CHECK(group_lists_cuda::run_plan(plan, problem.params(1), nullptr) == Status::kOk);
      CHECK(!problem.strayed());
    }
    CHECK(group_lists_cuda_weight_grad(problem.grad_params(), nullptr) == Status::kOk);
    CHECK(!problem.strayed_behind_gradient());
  }
}

TEST_CASE("group lists on CUDA: what cannot be done is said, with what there is") {
  GroupProblem problem(4, 32, 64, 4, 1, 64, 8, {});
  const GroupListsParams good = problem.params(1);
  const auto says = [](const char* text) { return std::string(cuda_message()).find(text) != std::string::npos; };
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  GroupListsParams bad = good;
  bad.dtype = DType::kFloat32;
  CHECK(group_lists_cuda_linear(bad, nullptr) == Status::kUnsupportedDType);
  CHECK(
      says("There are group_lists_small_sm80: bfloat16, float16 on sm_80+, groups of sides 1, 2, 4, 8, 16, 32; "
           "group_lists_sm80: bfloat16, float16 on sm_80+, groups of sides 1, 2, 4, 8, 16, 32;"));
  bad = good;
  bad.weight.rows = 3;
  CHECK(group_lists_cuda_linear(bad, nullptr) == Status::kBadPattern);
  bad = good;
  bad.weight.depth = 24;
  CHECK(group_lists_cuda_linear(bad, nullptr) == Status::kBadPattern);
  CHECK(says("depth 24"));
  bad = good;
  bad.weight.records = -1;
  CHECK(group_lists_cuda_linear(bad, nullptr) == Status::kBadShape);
  bad = good;
  bad.weight.order = nullptr;
  CHECK(group_lists_cuda_linear(bad, nullptr) == Status::kNullPointer);
  bad = good;
  bad.weight.values = nullptr;
  CHECK(group_lists_cuda_linear(bad, nullptr) == Status::kNullPointer);
  CHECK(group_lists_cuda::run_plan({kExpanding, 32, 2}, good, nullptr) == Status::kOutOfMemory);
  bad = good;
  bad.weight.depth = 4096;
  CHECK(group_lists_cuda::run_plan({kSmall, 8, 1}, bad, nullptr) == Status::kBadPattern);
  CHECK(says("panels of at most 2048 columns, not 4096"));
  GroupListsGradParams grad = problem.grad_params();
  grad.out = nullptr;
  CHECK(group_lists_cuda_weight_grad(grad, nullptr) == Status::kNullPointer);
  grad = problem.grad_params();
  grad.m = -1;
  CHECK(group_lists_cuda_weight_grad(grad, nullptr) == Status::kBadShape);
  const auto plan_of = [](int64_t m, int64_t k, int32_t rows, int32_t cols, int32_t depth, double density) {
    GroupLists weight;
    weight.rows = rows, weight.cols = cols, weight.depth = depth;
    weight.records = static_cast<int64_t>(density * 4096 * static_cast<double>(k) / (rows * cols));
    return group_lists_cuda::choose_plan(m, 4096, k, weight);
  };
  const auto plan = [&](int64_t m, int32_t depth) { return plan_of(m, 4096, 1, 1, depth, 0.5); };
  for (const auto& [m, tokens] :
       {std::pair{1, 2}, std::pair{2, 2}, std::pair{3, 4}, std::pair{4, 4}, std::pair{5, 8}, std::pair{8, 8}}) {
    CHECK(plan(m, 128).kernel == kSmall);
    CHECK(plan(m, 128).tokens == tokens);
  }
  // More than a tile, one by one: up to which density, if at all.
  struct Few {
    int64_t m;
    int32_t rows, cols;
    double most;
  };
  for (const Few& few : {Few{9, 1, 1, 0.78}, Few{16, 1, 16, 0.173}, Few{17, 1, 1, 0.17}, Few{24, 1, 4, 0.17},
                         Few{25, 1, 1, 0.097}, Few{32, 1, 1, 0.097}, Few{16, 4, 1, 0.78}, Few{24, 4, 1, 0.24},
                         Few{32, 1, 32, 0.078}, Few{24, 1, 8, 0.107}, Few{32, 2, 1, 0.142}, Few{32, 16, 4, 0.142}}) {
    CAPTURE(few.m);
    CAPTURE(few.rows);
    CHECK(plan_of(few.m, 4096, few.rows, few.cols, 128, few.most - 0.01).kernel == kSmall);
    CHECK(plan_of(few.m, 4096, few.rows, few.cols, 128, few.most - 0.01).tokens == 8);
    CHECK(plan_of(few.m, 1024, few.rows, few.cols, 128, few.most - 0.01).kernel == kSmall);
    CHECK(plan_of(few.m, 4096, few.rows, few.cols, 128, few.most + 0.01).kernel == kExpanding);
    CHECK(plan_of(few.m, 4096, few.rows, few.cols, 128, few.most + 0.01).tokens == 32);
  }
  CHECK(plan_of(33, 4096, 4, 1, 128, 0.01).kernel == kExpanding);
  CHECK(plan_of(9, 4096, 1, 1, 2064, 0.01).kernel == kExpanding);
  CHECK(plan(1, 2048).kernel == kSmall);
  CHECK(plan(1, 2064).kernel == kExpanding);
  for (const auto& [name, kernel] : {std::pair{"group_lists_small_sm80", kSmall}, {"group_lists_sm80", kExpanding}}) {
    cuda_linear::ask_for_kernel(name);
    CHECK(plan(1, 128).kernel == kernel);
    CHECK(plan(64, 128).kernel == kernel);
    CHECK(plan(64, 128).tokens == (kernel == kSmall ? 8 : 32));
    CHECK(plan(1, 2064).kernel == kernel);
  }
  cuda_linear::ask_for_kernel("");
  GroupLists weight;
  weight.rows = weight.cols = 1, weight.depth = 128, weight.records = 508 * 16384 / 20;
  CHECK(group_lists_cuda_workspace(4096, 4096, 4096, weight) == 0);
  for (const int64_t m : {1, 20, 40}) {  // of whichever kernel takes them
    const Plan chosen = group_lists_cuda::choose_plan(m, 508, 16384, weight);
    CHECK(chosen.splits > 1);
    CHECK(group_lists_cuda_workspace(m, 508, 16384, weight) == chosen.splits * m * int64_t{512} * 4);
  }
}

// Block-sparse products on the emulator: every kernel, tile and type against float64, with adversarial schedules and
// copies.
#include <doctest/doctest.h>

#include <string>

#include "cuda/block_sparse/linear_small_sm80.cuh"
#include "cuda/tests/adversary.h"
#include "cuda/tests/block_sparse_problem.h"

using namespace sparsecore;
using block_sparse::Plan;

namespace {

constexpr int32_t kSizes[] = {16, 32, 64, 128};
using Kernel = Plan::Kernel;

void check_plan(const Plan& plan, BlockProblem& problem, double tolerance = 0) {
  CAPTURE(static_cast<int>(plan.kernel));
  CAPTURE(plan.tokens);
  CAPTURE(plan.splits);
  CAPTURE(problem.size);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  CAPTURE(problem.options.transposed);
  CAPTURE(static_cast<int>(problem.options.dtype));
  CAPTURE(static_cast<int>(problem.options.activation));
  const cuda_emulation::ScopedOptions scoped(next_adversary(plan.kernel == Kernel::kSm90 ? 90 : 80));
  problem.forget();
  const BlockSparseParams params = problem.params(block_sparse::workspace_bytes(plan, problem.m, problem.n));
  REQUIRE(block_sparse::run_plan(plan, params, nullptr) == Status::kOk);
  CHECK(problem.first_wrong(tolerance) == -1);
  CHECK(!problem.strayed());
}

const Plan kPlans[] = {{Kernel::kSmall, 8, 1},    {Kernel::kSmall, 16, 1}, {Kernel::kSmall, 32, 1},
                       {Kernel::kSm80, 32, 1},    {Kernel::kSm80, 128, 1}, {Kernel::kSm90, 128, 1},
                       {Kernel::kSm90, 256, 1, 2}};

}  // namespace

TEST_CASE("block-sparse product: every size, tile and type, both ways, ragged in every direction, exact on integers") {
  unsigned seed = 0;
  for (const Plan& plan : kPlans)
    for (const int32_t size : kSizes)
      for (const bool transposed : {false, true})
        for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
          if (transposed && plan.kernel == Kernel::kSm80 && plan.tokens == 32) continue;
          if (plan.kernel == Kernel::kSm90 && size < 64) continue;
          const int64_t s = size;
          std::vector<std::array<int64_t, 3>> shapes = {{plan.tokens - 1, 2 * s, 3 * s}, {1, 1, 1}};
          // Longer than the ring, more than one tile of tokens.
          if (dtype == DType::kBFloat16) shapes.push_back({plan.tokens + 3, 2 * s + 5, 64 * (size < 64 ? 7 : 5) + 9});
          for (const auto& [m, n, k] : shapes) {
            BlockOptions options;
            options.dtype = dtype;
            options.transposed = transposed;
            options.density = m > plan.tokens ? 0.9 : 0.5;
            options.seed = ++seed;
            BlockProblem problem(m, n, k, size, options);
            if (plan.kernel == Kernel::kSm90 && problem.used.index.empty()) continue;
            check_plan(plan, problem);
          }
        }
}

TEST_CASE("block-sparse product: splits of the entries sum to the same, more splits than entries included") {
  for (const int32_t size : kSizes)
    for (const int splits : {2, 7})
      for (const bool transposed : {false, true}) {
        BlockOptions options;
        options.transposed = transposed;
        options.residual = true;
        options.out_dtype = DType::kBFloat16;
        BlockProblem problem(9, 2 * size + 3, 5 * size - 9, size, options);
        check_plan({Kernel::kSm80, transposed ? 128 : 32, splits}, problem);
        check_plan({Kernel::kSmall, 16, splits}, problem);
        if (size >= 64) check_plan({Kernel::kSm90, 128, splits}, problem);
        if (size >= 64) check_plan({Kernel::kSm90, 256, splits, 2}, problem);
      }
}

TEST_CASE("block-sparse product: views that begin and step anywhere") {
  for (const int32_t size : kSizes)
    for (const auto& [offset, pad] : {std::pair{1, 0}, std::pair{0, 1}, std::pair{8, 24}}) {
      BlockOptions options;
      options.out_dtype = DType::kFloat16;
      options.residual = true;
      options.x_offset = options.y_offset = offset;
      options.x_pad = options.y_pad = pad;
      BlockProblem problem(13, 77, 150, size, options);
      check_plan({Kernel::kSm80, 32, 1}, problem);
      check_plan({Kernel::kSmall, 16, 1}, problem);
      options.transposed = true;
      BlockProblem transposed(13, 77, 150, size, options);
      check_plan({Kernel::kSmall, 16, 1}, transposed);
    }
}

TEST_CASE("block-sparse product: scales, biases, activations and residuals, in every type of output") {
  for (const int splits : {1, 2})
    for (const DType out : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      BlockOptions options;
      options.out_dtype = out;
      options.weight_scale = options.token_scale = options.residual = true;
      options.bias_dtype = out == DType::kFloat32 ? DType::kBFloat16 : out;
      options.activation = Activation::kRelu;
      BlockProblem exact(6, 70, 100, 32, options);
      check_plan({Kernel::kSm80, 32, splits}, exact);
      check_plan({Kernel::kSmall, 8, splits}, exact);
      options.integers = false;
      for (const Activation activation : {Activation::kNone, Activation::kGelu, Activation::kHardSwish}) {
        options.activation = activation;
        BlockProblem problem(6, 70, 100, 32, options);
        for (const Plan& plan : {Plan{Kernel::kSm80, 32, splits}, Plan{Kernel::kSmall, 8, splits}})
          check_plan(plan, problem, out == DType::kFloat32 ? 1e-5 : out == DType::kFloat16 ? 2e-3 : 1e-2);
      }
    }
}

TEST_CASE("block-sparse product: nothing to do, and rows without entries") {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 40, 40}, {5, 0, 40}, {5, 40, 0}}) {
    BlockOptions options;
    for (const bool transposed : {false, true}) {
      options.transposed = transposed;
      BlockProblem problem(m, n, k, 16, options);
      check_plan({Kernel::kSm80, transposed ? 128 : 32, 1}, problem);
      check_plan({Kernel::kSmall, 8, 1}, problem);
    }
  }
  BlockOptions empty;
  empty.density = 0;
  BlockProblem problem(5, 100, 100, 64, empty);
  check_plan({Kernel::kSm80, 128, 1}, problem);
  check_plan({Kernel::kSm80, 32, 2}, problem);
  check_plan({Kernel::kSmall, 8, 2}, problem);
}

namespace {

template <int32_t kSize, bool kTransposed>
void check_conflicts() {
  constexpr int kTokens = 16, kChannels = block_sparse::small_channels(kSize);
  using Tile = block_sparse::sm80::SmallTile<kChannels, kTokens>;
  BlockOptions options;
  options.transposed = kTransposed;
  BlockProblem problem(16, kSize, 300, kSize, options);
  block_sparse::LinearArguments args;
  args.p = problem.params(0);
  args.weight = problem.index.weight(problem.values.data(), kSize);
  args.rows = args.token_tiles = 1;
  args.x_vectors = true;
  cuda_emulation::Config config;
  config.grid = dim3(kSize / kChannels);
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  const cuda_emulation::Report report = cuda_emulation::launch(
      config, [&] { block_sparse::sm80::linear_small<BFloat16, kChannels, kTokens, kTransposed>(args); });
  CHECK(problem.first_wrong() == -1);
  int64_t executions = 0;
  const std::string weights = kTransposed ? "ldmatrix" : "ld.shared.v4.b32";
  for (const cuda_emulation::BankConflicts& place : report.bank_conflicts)
    if (place.instruction == weights || place.instruction == std::string("ld.shared.v4.b32")) {
      CHECK(place.worst == 1);
      executions += place.instruction == weights ? place.executions : 0;
    }
  CHECK(executions > 0);
}

}  // namespace

TEST_CASE("block-sparse product: with few tokens, rings are read without bank conflicts") {
  check_conflicts<64, false>();
  check_conflicts<64, true>();
  check_conflicts<16, true>();
}

TEST_CASE("block-sparse product: blocks that are not kept are not multiplied, an infinite x included") {
  for (const int32_t size : {16, 64})
    for (int64_t column = 0; column < 6; ++column)
      for (const Plan& plan : {Plan{Kernel::kSmall, 8, 1}, Plan{Kernel::kSmall, 16, 1}, Plan{Kernel::kSm80, 32, 1}}) {
        CAPTURE(size);
        CAPTURE(column);
        CAPTURE(plan.tokens);
        BlockProblem problem(5, 6 * size, 6 * size, size, {});
        problem.make_infinite(column);
        const cuda_emulation::ScopedOptions scoped(next_adversary(80));
        REQUIRE(block_sparse::run_plan(plan, problem.params(0), nullptr) == Status::kOk);
        CHECK(problem.first_wrong_without(column) == -1);
      }
}

TEST_CASE("block-sparse product: an index that holds anything leads nowhere outside") {
  for (int trial = 0; trial < 20; ++trial) {
    const bool transposed = trial % 2;
    const int damage = trial / 2 % 5;
    const int32_t size = trial < 10 ? 16 : 64;
    BlockOptions options;
    options.transposed = transposed;
    BlockProblem problem(5, 4 * size, 6 * size, size, options);
    switch (damage) {
      case 0: problem.index.starts[1] = INT32_MIN; break;
      case 1: problem.index.starts[2] = INT32_MAX; break;
      case 2: problem.index.index[3] = -1, problem.index.index[1] = INT32_MAX; break;
      case 3: problem.index.order[0] = -5, problem.index.order[1] = 4; break;
      default:
        if (transposed) problem.index.source[2] = -2, problem.index.source[0] = INT32_MAX;
    }
    const cuda_emulation::ScopedOptions scoped(next_adversary(90));
    for (const Kernel kernel : {Kernel::kSmall, Kernel::kSm80, Kernel::kSm90}) {
      if (kernel == Kernel::kSm90 && size < 64) continue;
      CHECK(block_sparse::run_plan({kernel, kernel == Kernel::kSmall ? 8 : 128, 1}, problem.params(0), nullptr) ==
            Status::kOk);
      CHECK(!problem.strayed());
    }
  }
}

TEST_CASE("block-sparse product: what cannot be done is said, with what there is") {
  BlockProblem problem(4, 32, 64, 16, {});
  const BlockSparseParams good = problem.params(0);
  const auto says = [](const char* text) { return std::string(cuda_message()).find(text) != std::string::npos; };
  BlockSparseParams bad = good;
  bad.dtype = DType::kInt8;
  CHECK(block_sparse_linear(bad, nullptr) == Status::kUnsupportedDType);
  CHECK(says("no kernel for int8"));
  bad = good;
  bad.weight.size = 48;
  CHECK(block_sparse_linear(bad, nullptr) == Status::kBadPattern);
  CHECK(says("blocks of 16, 32, 64, 128"));
  bad = good;
  bad.weight.values = static_cast<const char*>(good.weight.values) + 2;
  CHECK(block_sparse_linear(bad, nullptr) == Status::kBadShape);
  bad = good;
  bad.weight.starts = nullptr;
  CHECK(block_sparse_linear(bad, nullptr) == Status::kNullPointer);
  bad = good;
  bad.weight.order = nullptr;
  CHECK(block_sparse_linear(bad, nullptr) == Status::kNullPointer);
  bad = good;
  bad.weight.blocks = -1;
  CHECK(block_sparse_linear(bad, nullptr) == Status::kBadShape);
  bad = good;
  bad.y_row_stride = 31;
  CHECK(block_sparse_linear(bad, nullptr) == Status::kBadShape);
  {
    const cuda_emulation::ScopedOptions scoped(next_adversary(75));
    CHECK(block_sparse_linear(good, nullptr) == Status::kUnsupportedDType);
    CHECK(says("no kernel for bfloat16 on sm_75"));
    CHECK(says(
        "linear_small_sm80: bfloat16, float16 on sm_80+, blocks of 16, 32, 64, 128, values at multiples of 16 bytes; "
        "linear_sm90: bfloat16, float16 on sm_90, blocks of 64, 128,"));
  }
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  CHECK(block_sparse::run_plan({Kernel::kSm80, 32, 2}, good, nullptr) == Status::kOutOfMemory);
  CHECK(says("workspace"));
}

TEST_CASE("block-sparse product: the plan follows the shape") {
  const auto plan = [](int64_t m, int64_t n, int64_t k, int64_t blocks, int32_t size) {
    return block_sparse::choose_plan(m, n, k, blocks, size, false, DType::kBFloat16, 80, true);
  };
  for (const auto& [m, tokens] : {std::pair{1, 8}, std::pair{8, 8}, std::pair{9, 16}, std::pair{17, 32}}) {
    CHECK(plan(m, 4096, 4096, 1024, 64).kernel == Kernel::kSmall);
    CHECK(plan(m, 4096, 4096, 1024, 64).tokens == tokens);
  }
  CHECK(plan(33, 4096, 4096, 1024, 64).kernel == Kernel::kSm80);
  CHECK(plan(33, 4096, 4096, 1024, 64).tokens == 32);
  const auto transposed = [](int64_t m, int64_t n, int64_t k, int capability) {
    return block_sparse::choose_plan(m, n, k, 1024, 64, true, DType::kBFloat16, capability, true);
  };
  CHECK(transposed(1, 4096, 4096, 90).kernel == Kernel::kSmall);
  CHECK(transposed(32, 4096, 4096, 80).kernel == Kernel::kSmall);
  CHECK(transposed(33, 4096, 4096, 90).kernel == Kernel::kSm80);
  CHECK(transposed(33, 4096, 4096, 80).tokens == 128);
  CHECK(transposed(65, 4096, 4096, 90).kernel == Kernel::kSm90);
  CHECK(plan(4096, 4096, 4096, 1024, 64).tokens == 128);
  CHECK(plan(4096, 4096, 4096, 1024, 64).splits == 1);
  CHECK(plan(4096, 4096, 4096, 1024, 64).kernel == Kernel::kSm80);
  const auto newest = [](int64_t m, int64_t blocks, int32_t size, bool tensor_copies = true) {
    return block_sparse::choose_plan(m, 4096, 4096, blocks, size, false, DType::kBFloat16, 90, tensor_copies).kernel;
  };
  CHECK(newest(4096, 1024, 64) == Kernel::kSm90);
  const auto wide = [](int64_t m, int64_t n, int32_t size) {
    return block_sparse::choose_plan(m, n, 4096, 1024, size, false, DType::kBFloat16, 90, true);
  };
  CHECK(wide(4096, 4096, 128).tokens == 256);
  CHECK(wide(4096, 4096, 128).cluster == 2);
  CHECK(wide(4096 + 256, 4096, 64).cluster == 2);
  CHECK(wide(1280, 4096, 128).cluster == 1);
  CHECK(wide(512, 4096, 128).tokens == 128);
  CHECK(newest(4096, 1024, 32) == Kernel::kSm80);
  CHECK(newest(4096, 0, 64) == Kernel::kSm80);
  CHECK(newest(4096, 1024, 64, false) == Kernel::kSm80);
  CHECK(newest(64, 1024, 128) == Kernel::kSm80);
  CHECK(plan(1, 512, 16384, 1024, 64).splits > 1);
  CHECK(block_sparse_workspace(4096, 4096, 4096, 1024, 64) == 0);
  // Of the direction that splits more: with 33 to 64 tokens the transposed one has fewer tiles.
  CHECK(transposed(40, 508, 16384, 80).splits > plan(40, 508, 16384, 1024, 64).splits);
  CHECK(block_sparse_workspace(40, 508, 16384, 1024, 64) ==
        transposed(40, 508, 16384, 80).splits * 40 * int64_t{512} * 4);
}

namespace {

void check_grad(const block_sparse::GradPlan& plan, BlockGradProblem& problem) {
  CAPTURE(static_cast<int>(plan.kernel));
  CAPTURE(plan.splits);
  CAPTURE(problem.size);
  CAPTURE(problem.m);
  CAPTURE(problem.n);
  CAPTURE(problem.k);
  const cuda_emulation::ScopedOptions scoped(next_adversary(plan.kernel == Kernel::kSm90 ? 90 : 80));
  REQUIRE(block_sparse::run_grad(plan, problem.params(plan.splits), nullptr) == Status::kOk);
  CHECK(problem.first_wrong() == -1);
  CHECK(!problem.strayed());
}

}  // namespace

TEST_CASE("block-sparse gradient: every size and type, ragged, split or not, from views that begin anywhere") {
  unsigned seed = 0;
  for (const int32_t size : kSizes)
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16})
      for (const int32_t splits : {1, 3}) {
        struct Case {
          int64_t m, offset, pad;
          DType out;
        };
        for (const Case& c : {Case{5 * 64 + 7, 0, 0, DType::kFloat32}, Case{1, 1, 0, dtype}, Case{70, 8, 1, dtype},
                              Case{0, 0, 0, dtype}}) {
          BlockGradProblem problem(c.m, 2 * size + 3, 3 * size - 5, size, dtype, c.out, c.offset, c.pad, ++seed);
          check_grad({Kernel::kSm80, splits}, problem);
        }
      }
}

TEST_CASE("block-sparse gradient with wgmma: rows that share a tile of grad_y or not, ragged, split or not") {
  unsigned seed = 0;
  for (const int32_t size : {64, 128})
    for (const int32_t splits : {1, 3}) {
      struct Case {
        DType dtype, out;
        double density;
        int64_t m, offset, pad;
      };
      constexpr DType kBf16 = DType::kBFloat16, kFp16 = DType::kFloat16, kFp32 = DType::kFloat32;
      const Case cases[] = {{kBf16, kFp32, 0.2, 70, 0, 0},
                            {kBf16, kBf16, 0.9, 70, 0, 0},
                            {kFp16, kFp16, 0.5, 9 * (size / 2) + 7, 0, 0},  // longer than the ring
                            {kBf16, kBf16, 0.5, 1, 8, 16}};                 // splits without a turn; a view
      for (const Case& c : cases) {
        BlockGradProblem problem(c.m, 7 * 64 + 3, 9 * 64 - 5, size, c.dtype, c.out, c.offset, c.pad, ++seed, c.density);
        check_grad({Kernel::kSm90, splits}, problem);
      }
    }
}

TEST_CASE("block-sparse gradient: an index that holds anything leads nowhere outside") {
  for (const Kernel kernel : {Kernel::kSm80, Kernel::kSm90})
    for (int damage = 0; damage < 3; ++damage) {
      const int32_t size = kernel == Kernel::kSm90 ? 64 : 16;
      BlockGradProblem problem(70, 4 * size, 6 * size, size, DType::kBFloat16, DType::kFloat32, 0, 0, 1);
      if (damage == 0) problem.index.starts[1] = INT32_MIN, problem.index.starts[0] = INT32_MAX;
      if (damage == 1) problem.index.starts[3] = INT32_MAX, problem.index.starts[2] = 7;
      if (damage == 2) problem.index.index[3] = -1, problem.index.index[1] = INT32_MAX;
      const cuda_emulation::ScopedOptions scoped(next_adversary(90));
      CHECK(block_sparse::run_grad({kernel, 1}, problem.params(1), nullptr) == Status::kOk);
      CHECK(!problem.strayed());
    }
}

TEST_CASE("block-sparse gradient: the plan follows the shape") {
  const auto plan = [](int64_t m, int64_t blocks, int32_t size, int capability = 90, bool tensor_copies = true) {
    return block_sparse::choose_grad_plan(m, blocks, size, DType::kFloat16, capability, tensor_copies);
  };
  CHECK(plan(4096, 2048, 64).kernel == Kernel::kSm90);
  CHECK(plan(4096, 2048, 128).kernel == Kernel::kSm90);
  CHECK(plan(4096, 2048, 32).kernel == Kernel::kSm80);
  CHECK(plan(64, 2048, 64).kernel == Kernel::kSm80);
  CHECK(plan(4096, 2048, 64, 80).kernel == Kernel::kSm80);
  CHECK(plan(4096, 2048, 64, 90, false).kernel == Kernel::kSm80);
  CHECK(plan(4096, 2048, 64).splits == 1);
  CHECK(plan(16384, 8, 64).splits == 16);
  CHECK(plan(128, 8, 64).splits == 1);
  // 132 blocks of threads have 72 works: two splits of each are less than two rounds of halves.
  CHECK(plan(1 << 20, 72 * 8, 64).splits > 1);
  CHECK(block_sparse_weight_grad_workspace(16384, 8, 64) == int64_t{16} * 8 * 64 * 64 * 4);
}

TEST_CASE("block-sparse gradient: what cannot be done is said") {
  BlockGradProblem problem(70, 64, 96, 16, DType::kBFloat16, DType::kFloat32, 0, 0, 1);
  const BlockSparseGradParams good = problem.params(1);
  const auto says = [](const char* text) { return std::string(cuda_message()).find(text) != std::string::npos; };
  BlockSparseGradParams bad = good;
  bad.dtype = DType::kFloat32;
  CHECK(block_sparse_weight_grad(bad, nullptr) == Status::kUnsupportedDType);
  bad = good;
  bad.out_dtype = DType::kInt8;
  CHECK(block_sparse_weight_grad(bad, nullptr) == Status::kUnsupportedDType);
  bad = good;
  bad.k = 0;
  CHECK(block_sparse_weight_grad(bad, nullptr) == Status::kBadShape);
  bad = good;
  bad.out = static_cast<char*>(good.out) + 4;
  CHECK(block_sparse_weight_grad(bad, nullptr) == Status::kBadShape);
  bad = good;
  bad.x = nullptr;
  CHECK(block_sparse_weight_grad(bad, nullptr) == Status::kNullPointer);
  bad = good;
  bad.m = -1;
  CHECK(block_sparse_weight_grad(bad, nullptr) == Status::kBadShape);
  CHECK(block_sparse::run_grad({Kernel::kSm80, 2}, good, nullptr) == Status::kOutOfMemory);
  CHECK(says("workspace"));
  {
    const cuda_emulation::ScopedOptions newest(next_adversary(90));
    CHECK(block_sparse::run_grad({Kernel::kSm90, 1}, good, nullptr) == Status::kBadPattern);
    CHECK(says("blocks of 64, 128,"));
    BlockGradProblem unaligned(70, 64, 96, 64, DType::kBFloat16, DType::kFloat32, 1, 0, 1);
    CHECK(block_sparse::run_grad({Kernel::kSm90, 1}, unaligned.params(1), nullptr) == Status::kBadShape);
    CHECK(says("no tensor copies"));
  }
  const cuda_emulation::ScopedOptions scoped(next_adversary(75));
  CHECK(block_sparse_weight_grad(good, nullptr) == Status::kUnsupportedDType);
  CHECK(says("weight_grad_sm90: bfloat16, float16 on sm_90, blocks of 64, 128,"));
  CHECK(says("weight_grad_sm80: bfloat16, float16 on sm_80+, blocks of 16, 32, 64, 128,"));
}

TEST_CASE("block-sparse index: the first fault is named with its place") {
  const BlockIndex host = BlockProblem::draw(5, 7, 0.5, 1);
  const BlockIndex mirrored = host.transposed();
  REQUIRE(host.index.size() > 8);
  struct Case {
    std::function<void(DeviceIndex&, DeviceIndex&)> damage;
    BlockSparseFault fault;
    int64_t place;
  };
  const int32_t blocks = static_cast<int32_t>(host.index.size());
  const int32_t second = host.starts[2];  // the first entry of row 2; row 1 is empty
  REQUIRE(host.starts[3] > second + 1);
  const Case cases[] = {
      {[](DeviceIndex&, DeviceIndex&) {}, BlockSparseFault::kNone, -1},
      {[](DeviceIndex& d, DeviceIndex&) { d.starts[0] = 1; }, BlockSparseFault::kStarts, 0},
      {[&](DeviceIndex& d, DeviceIndex&) { d.starts[5] = blocks - 1; }, BlockSparseFault::kStarts, 4},
      {[](DeviceIndex& d, DeviceIndex&) { d.starts[3] = -1; }, BlockSparseFault::kStarts, 2},
      {[&](DeviceIndex& d, DeviceIndex&) { d.index[second] = 7; }, BlockSparseFault::kIndex, second},
      {[&](DeviceIndex& d, DeviceIndex&) { d.index[second + 1] = d.index[second]; }, BlockSparseFault::kIndex,
       second + 1},
      {[&](DeviceIndex& d, DeviceIndex&) { d.index[second + 1] = -3; }, BlockSparseFault::kIndex, second + 1},
      {[](DeviceIndex& d, DeviceIndex&) { std::swap(d.order[0], d.order[4]); }, BlockSparseFault::kOrder, 1},
      {[](DeviceIndex& d, DeviceIndex&) { d.order[3] = d.order[2]; }, BlockSparseFault::kOrder, 3},
      {[](DeviceIndex& d, DeviceIndex&) { d.order[4] = 5; }, BlockSparseFault::kOrder, 4},
      {[](DeviceIndex&, DeviceIndex& t) { t.starts[7] = 0; }, BlockSparseFault::kTransposed, 6},
      {[](DeviceIndex&, DeviceIndex& t) { t.index[0] = 5; }, BlockSparseFault::kTransposed, 0},
      {[](DeviceIndex&, DeviceIndex& t) { std::swap(t.source[0], t.source[1]); }, BlockSparseFault::kSource, 0},
      {[&](DeviceIndex&, DeviceIndex& t) { t.source[blocks - 1] = blocks; }, BlockSparseFault::kSource, blocks - 1},
      {[](DeviceIndex&, DeviceIndex& t) { t.source[2] = -1; }, BlockSparseFault::kSource, 2},
  };
  for (const Case& c : cases) {
    CAPTURE(static_cast<int>(c.fault));
    CAPTURE(c.place);
    DeviceIndex index(host), transposed(mirrored);
    c.damage(index, transposed);
    const BlockSparse weight = index.weight(nullptr, 16), other = transposed.weight(nullptr, 16);
    cuda_emulation::GlobalBuffer<int64_t> where(2);
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    REQUIRE(block_sparse_validate(weight, &other, 5 * 16 - 3, 7 * 16, where.data(), nullptr) == Status::kOk);
    CHECK(where[0] == static_cast<int64_t>(c.fault));
    CHECK(where[1] == c.place);
  }
}

TEST_CASE("block-sparse index: matrices without rows or columns") {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{0, 3}, {3, 0}, {0, 0}}) {
    const BlockIndex host(rows, columns, std::vector<uint8_t>(rows * columns));
    const BlockIndex mirrored = host.transposed();
    const DeviceIndex index(host), transposed(mirrored);
    const BlockSparse weight = index.weight(nullptr, 32), other = transposed.weight(nullptr, 32);
    cuda_emulation::GlobalBuffer<int64_t> where(2);
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    REQUIRE(block_sparse_validate(weight, &other, rows * 32, columns * 32, where.data(), nullptr) == Status::kOk);
    CHECK(where[0] == 0);
    CHECK(where[1] == -1);
  }
}

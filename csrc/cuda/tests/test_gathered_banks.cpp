// Bank conflicts of gathered products, which the emulator counts: every ldmatrix in the loops takes the fewest passes,
// and picking from whole tiles the passes that its picks ask for.
#include <doctest/doctest.h>

#include <algorithm>

#include "cuda/gathered/matmul_small_sm80.cuh"
#include "cuda/shared_lists/weight_grad_sm80.cuh"
#include "cuda/shared_lists/weights_sm80.cuh"
#include "cuda/tests/vnm_problem.h"
#include "cuda/vnm/picked_sm90.cuh"
#include "cuda/vnm/weights_sm80.cuh"

using namespace sparsecore;
using namespace sparsecore::gathered;

namespace {

void check_loops(const cuda_emulation::Report& report) {
  int64_t executions = 0;
  for (const cuda_emulation::BankConflicts& place : report.bank_conflicts)
    if (place.instruction == "ldmatrix") {
      CHECK(place.worst == 1);
      executions += place.executions;
    }
  CHECK(executions > 0);
}

template <class Weights, int kTokens, class Problem>
void check(Problem& problem, typename Weights::Arguments args) {
  cuda_emulation::GlobalBuffer<uint16_t> xt(problem.k * pitch_of(problem.m));
  args.linear.p = problem.params(0);
  args.linear.channel_tiles = 1;
  args.xt = xt.data();
  args.pitch = pitch_of(problem.m);
  cuda_emulation::Config config;
  config.grid = dim3(1);
  if constexpr (kTokens <= 32) {
    using Tile = gathered::sm80::SmallTile<Weights, kTokens>;
    config.block = dim3(Tile::kThreads);
    config.shared_bytes = Tile::kSharedBytes;
    check_loops(cuda_emulation::launch(config, [&] { gathered::sm80::gathered_matmul_small<Weights, kTokens>(args); }));
  } else {
    using Tile = gathered::sm80::Tile<Weights, kTokens>;
    config.block = dim3(Tile::kThreads);
    config.shared_bytes = Tile::kSharedBytes;
    check_loops(cuda_emulation::launch(config, [&] { gathered::sm80::gathered_matmul<Weights, kTokens>(args); }));
  }
}

template <int kSlices, int kTokens>
void check_lists() {
  SharedListsProblem<BFloat16> problem({kTokens, 16 * kSlices, 200, 16 * kSlices});
  cuda_shared_lists::MatmulArguments args;
  args.weight = problem.weight();
  check<cuda_shared_lists::sm80::Weights<BFloat16, kSlices>, kTokens>(problem, args);
}

}  // namespace

TEST_CASE("gathered products: tiles of every width are read without bank conflicts") {
  check_lists<1, 8>();
  check_lists<2, 32>();
  check_lists<4, 64>();
  check_lists<1, 128>();
  VnmProblem<BFloat16> problem({64, 32, 300, 32, 8});
  cuda_vnm::MatmulArguments args;
  args.weight = problem.weight();
  args.k_blocks = ceil_div(problem.picked, cuda_vnm::kBlockInputs);
  check<cuda_vnm::sm80::Weights<BFloat16, 2>, 64>(problem, args);
}

namespace {

// The passes of the worst part of an ldmatrix over 32 picks, added up over the list: a part is the picks of two groups,
// and those whose places are the same modulo 8 fall into the same banks.
int64_t expected_passes(const uint16_t* picks, int64_t picked) {
  int64_t passes = 0;
  for (int64_t span = 0; span < picked; span += 32) {
    int worst = 1;
    for (int64_t part = span; part < std::min(span + 32, picked); part += 8) {
      int rows[8] = {};
      for (int64_t i = part; i < std::min(part + 8, picked); ++i) worst = std::max(worst, ++rows[picks[i] % 8]);
    }
    passes += worst;
  }
  return passes;
}

// `most`: of the passes of a part.
void check_picking(VnmProblem<BFloat16>& problem, int most) {
  using Tile = cuda_vnm::sm90::PickedTile<4>;
  cuda_emulation::GlobalBuffer<uint16_t> xt(problem.k * pitch_of(problem.m));
  cuda_vnm::MatmulArguments args;
  args.weight = problem.weight();
  args.k_blocks = ceil_div(problem.picked, cuda_vnm::kBlockInputs);
  args.group = static_cast<int32_t>(problem.shape.group);
  args.linear.p = problem.params(0);
  args.linear.token_tiles = args.linear.channel_tiles = 1;
  args.xt = xt.data();
  args.pitch = pitch_of(problem.m);
  TensorShape rows;
  rows.address = xt.data();
  rows.sizes[0] = args.pitch;
  rows.sizes[1] = problem.k;
  rows.strides[1] = 2 * args.pitch;
  rows.box[0] = cuda_vnm::sm90::kHalfTokens;
  rows.box[1] = static_cast<uint32_t>(cuda_vnm::sm90::window_inputs(args.group));
  TensorMap map;
  REQUIRE(make_tensor_map(rows, &map));
  cuda_emulation::Config config;
  config.grid = dim3(1);
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::shared_bytes(args.group);
  const cuda_emulation::Report report =
      cuda_emulation::launch(config, [&] { cuda_vnm::sm90::picked_matmul<BFloat16, 4>(args, map, 1); });
  int64_t passes = 0, executions = 0;
  int worst = 0;
  for (const cuda_emulation::BankConflicts& place : report.bank_conflicts) {
    if (place.instruction != "ldmatrix") continue;
    worst = std::max(worst, place.worst);
    passes += place.passes;
    executions += place.executions;
  }
  // Four runs, and a tile's eights of tokens.
  int64_t expected = 0;
  for (int64_t run = 0; run < 4; ++run)
    expected += expected_passes(problem.columns.data() + run * problem.picked, problem.picked) * Tile::kTokens / 8;
  CHECK(executions == 4 * ceil_div(problem.picked, 32) * Tile::kTokens / 8);
  CHECK(passes == expected);
  CHECK(worst == most);
}

}  // namespace

TEST_CASE("V:N:M: picking meets the banks that its picks share") {
  VnmProblem<BFloat16> any({128, 256, 1024, 64, 8}), wide({128, 256, 2048, 64, 16}), apart({128, 256, 1024, 64, 8});
  check_picking(any, 2);
  check_picking(wide, 4);
  // Neighbouring groups that share no place.
  for (int64_t i = 0; i < static_cast<int64_t>(apart.columns.size()); ++i)
    apart.columns[i] = static_cast<uint16_t>(i % apart.picked / 4 * 8 + i % 8);
  check_picking(apart, 1);
}

TEST_CASE("shared lists: the gradient of the weights reads without bank conflicts") {
  SharedListsProblem<BFloat16> problem({64, 32, 200, 32});
  cuda_emulation::GlobalBuffer<uint16_t> grad_yt(32 * 64), xt(200 * 64);
  cuda_emulation::GlobalBuffer<float> out(problem.columns.size() * 32);
  cuda_shared_lists::WeightGradArguments args;
  args.weight = problem.weight();
  args.grad_yt = grad_yt.data();
  args.xt = xt.data();
  args.out = out.data();
  args.n = 32;
  args.k = 200;
  args.pitch = 64;
  using Tile = cuda_shared_lists::sm80::GradTile<2>;
  cuda_emulation::Config config;
  config.grid = dim3(1);
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  check_loops(
      cuda_emulation::launch(config, [&] { cuda_shared_lists::sm80::shared_lists_weight_grad<BFloat16, 2>(args); }));
}

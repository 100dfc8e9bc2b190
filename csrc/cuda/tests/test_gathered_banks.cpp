// Bank conflicts of gathered products, which the emulator counts: every ldmatrix in the loops takes the fewest passes.
#include <doctest/doctest.h>

#include "cuda/gathered/matmul_small_sm80.cuh"
#include "cuda/shared_lists/weight_grad_sm80.cuh"
#include "cuda/shared_lists/weights_sm80.cuh"
#include "cuda/tests/vnm_problem.h"
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

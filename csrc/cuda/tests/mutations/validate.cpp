// The checks of loaded weights under adversaries.h, against the host's: compiled with -DKERNEL_SHARED, _GROUPS or
// _BITMAP.
#include <string>

#include "cuda/bitmap_decode/validate_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/group_lists/validate_sm80.cuh"
#include "cuda/shared_lists/validate_sm80.cuh"
#include "cuda/tests/damaged.h"
#include "cuda/tests/mutations/adversaries.h"

using namespace sparsecore;

namespace {

LaunchConfig one_block() {
  LaunchConfig config;
  config.grid = dim3(1);
  config.block = dim3(cuda_linear::kValidateThreads);
  config.shared_bytes = cuda_linear::kValidateSharedBytes;
  return config;
}

// One trial; a bitmap's place is not compared, since the host has none.
std::string run(int trial) {
  cuda_emulation::GlobalBuffer<int64_t> where(2);
  Status status = Status::kOk;
  int64_t place = -1;
#if defined(KERNEL_SHARED)
  DamagedSharedLists problem(trial);
  status = shared_lists_validate(problem.weight(), problem.n, problem.k, &place);
  cuda_shared_lists::ValidateArguments args;
  args.weight = problem.weight();
  args.groups = problem.groups;
  args.k = problem.k;
  args.where = where.data();
  launch(one_block(), cuda_shared_lists::sm80::shared_lists_validate, args);
#elif defined(KERNEL_GROUPS)
  DamagedGroupLists problem(trial);
  status = group_lists_validate(problem.weight(), problem.n, problem.k, &place);
  group_lists_cuda::ValidateArguments args;
  args.lists = group_lists_cuda::lists_of(problem.weight(), problem.n, problem.k);
  args.k = problem.k;
  args.where = where.data();
  launch(one_block(), group_lists_cuda::sm80::group_lists_validate, args);
#else
  DamagedBitmap problem(trial);
  cuda_bitmap_decode::ValidateArguments args;
  args.weight = problem.weight();
  status = bitmap_decode_check(args.weight, problem.n, problem.k);
  args.n = problem.n;
  args.k = problem.k;
  args.where = where.data();
  launch(one_block(), cuda_bitmap_decode::sm80::bitmap_validate, args);
  place = where[1];
#endif
  if (where[0] != static_cast<int64_t>(status)) return "trial " + std::to_string(trial) + " has another verdict";
  if (where[1] == (status == Status::kOk ? -1 : place)) return "";
  return "trial " + std::to_string(trial) + " names another place";
}

}  // namespace

int main() {
  std::vector<int> trials(DamagedGroupLists::kTrials);
  std::iota(trials.begin(), trials.end(), 0);
  return survive_adversaries(80, trials, run);
}

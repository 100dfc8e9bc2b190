// What shared_lists_validate asks of shared lists, on the device: starts that ascend from 0 to the records (stage 0),
// columns inside of the weight that ascend in every list (stage 1). Threads take every kValidateThreads-th start and
// record; only a column that does not ascend has to be looked up among the starts.
#pragma once

#include "cuda/linear/faults.cuh"
#include "cuda/shared_lists/shared_lists.h"

namespace sparsecore::cuda_shared_lists {

struct ValidateArguments {
  SharedLists weight;
  int64_t groups = 0, k = 0;
  int64_t* where = nullptr;
};

namespace sm80 {

using cuda_linear::kValidateThreads;

// Budget of sm80::shared_lists_validate: 40 registers.
static __global__ void __launch_bounds__(kValidateThreads) shared_lists_validate(const ValidateArguments args) {
  const SharedLists& weight = args.weight;
  cuda_linear::FirstFault faults;
  for (int64_t g = threadIdx.x; g <= args.groups; g += kValidateThreads) {
    const int64_t start = weight.group_ptr[g];
    const int64_t next = g < args.groups ? weight.group_ptr[g + 1] : weight.records;
    if ((g == 0 && start != 0) || start > next || (g == args.groups && start != next))
      faults.add(0, 0, Status::kBadPointers);
  }
  for (int64_t r = threadIdx.x; r < weight.records; r += kValidateThreads) {
    const int column = weight.columns[r];
    if (column >= args.k) {
      faults.add(1, r, Status::kBadIndex);
    } else if (r > 0 && weight.columns[r - 1] >= column &&
               !cuda_linear::list_begins(weight.group_ptr, args.groups, r)) {
      faults.add(1, r, Status::kUnsorted);
    }
  }
  cuda_linear::write_first_fault(faults, ptx::smem(), args.where);
}

}  // namespace sm80
}  // namespace sparsecore::cuda_shared_lists

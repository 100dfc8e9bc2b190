// mma and mma.sp of sm_80's element types.
#include "cuda/conformance/mma_check.h"

namespace sparsecore::conformance {

void add_mma_checks(std::vector<Check>& checks) {
  checks.push_back({"mma_sparse.bf16.selector0", 80, 0, check_mma_sparse<BFloat16, 0>});
  checks.push_back({"mma_sparse.bf16.selector1", 80, 0, check_mma_sparse<BFloat16, 1>});
  checks.push_back({"mma.bf16", 80, 0, check_mma<BFloat16>});
  checks.push_back({"mma_sparse.f16.selector0", 80, 1, check_mma_sparse<Float16, 0>});
  checks.push_back({"mma_sparse.f16.selector1", 80, 1, check_mma_sparse<Float16, 1>});
  checks.push_back({"mma.f16", 80, 1, check_mma<Float16>});
  checks.push_back({"mma_sparse.s8", 80, 1, check_mma_sparse<int8_t, 0>});
  checks.push_back({"mma.s8", 80, 1, check_mma<int8_t>});
  checks.push_back({"mma.tf32", 80, 5, check_mma<TFloat32>});
}

}  // namespace sparsecore::conformance

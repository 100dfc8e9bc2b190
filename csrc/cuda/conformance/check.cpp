#include "cuda/conformance/check.h"

#include <algorithm>

namespace sparsecore::conformance {

std::vector<Check> all_checks() {
  std::vector<Check> checks;
  add_mma_checks(checks);
  add_float8_checks(checks);
  add_shared_memory_checks(checks);
  add_barrier_checks(checks);
  add_copy_checks(checks);
  add_wgmma_checks(checks);
  add_wgmma_box_checks(checks);
  std::stable_sort(checks.begin(), checks.end(), [](const Check& a, const Check& b) { return a.value < b.value; });
  return checks;
}

}  // namespace sparsecore::conformance

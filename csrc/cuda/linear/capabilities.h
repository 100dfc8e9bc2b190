// What each kernel of a family can do, as a list that its chooser walks and its error prints.
#pragma once

#include <span>
#include <string>

#include "sparsecore/types.h"

namespace sparsecore::cuda_linear {

constexpr int kAnyNewer = 999;

struct Capability {
  int kernel;  // the family's own number of it
  const char* name;
  DType dtype;
  int from, to;  // compute capability, as 80
};

bool has(std::span<const Capability> list, int kernel, DType dtype, int capability);
// "matmul_sm80: bfloat16 sm_80+, float16 sm_80+, ..; .."
std::string describe(std::span<const Capability> list);
// Refuses what the list does not have, in the words of `function`.
Status check_kernel(const char* function, std::span<const Capability> list, int kernel, DType dtype, int capability);

}  // namespace sparsecore::cuda_linear

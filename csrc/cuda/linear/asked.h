// A kernel that is asked for by name, past the chooser's rule: for measurements, and to leave out one that misbehaves.
#pragma once

#include <string>

namespace sparsecore::cuda_linear {

// Empty where the rule holds. From SPARSECORE_CUDA_KERNEL at first.
std::string asked_kernel();
// Of all threads, from the next call on.
void ask_for_kernel(const std::string& name);

}  // namespace sparsecore::cuda_linear

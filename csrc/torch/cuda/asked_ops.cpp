// Which kernel products take, by name.
#include "cuda/linear/asked.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

std::string use_kernel(std::string name) {
  std::string before = cuda_linear::asked_kernel();
  cuda_linear::ask_for_kernel(name);
  return before;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CompositeExplicitAutograd, m) {
  m.impl("cuda_use_kernel", TORCH_BOX(&use_kernel));
}

}  // namespace sparsecore

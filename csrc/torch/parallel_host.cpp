// Kernels run on torch's own threads: torch.set_num_threads() holds, and nothing is oversubscribed.
#include <torch/csrc/stable/ops.h>

#include "sparsecore/parallel.h"

namespace sparsecore {
namespace {

void run(int64_t count, Task task, void* context) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) task(context, i);
  });
}

int threads() { return static_cast<int>(torch::stable::get_num_threads()); }

const bool installed = [] {
  set_parallel_host({run, threads});
  return true;
}();

}  // namespace
}  // namespace sparsecore

// Kernels run on torch's own threads: torch.set_num_threads() holds, and nothing is oversubscribed.
//
// A child of fork() has none of its parent's threads, and OpenMP, where the parent has used them, waits for them for
// ever. Such a child runs everything on the thread that calls.
#include <torch/csrc/stable/ops.h>

#include <atomic>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "sparsecore/parallel.h"

namespace sparsecore {
namespace {

std::atomic<bool> threads_used = false, threads_lost = false;

void run(int64_t count, Task task, void* context) {
  threads_used.store(true, std::memory_order_relaxed);
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) task(context, i);
  });
}

int threads() {
  return threads_lost.load(std::memory_order_relaxed) ? 1 : static_cast<int>(torch::stable::get_num_threads());
}

const bool installed = [] {
  set_parallel_host({run, threads});
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { threads_lost = threads_used.load(); });
#endif
  return true;
}();

}  // namespace
}  // namespace sparsecore

// The one place where kernels meet threads. The host installs how to run tasks: torch's pool inside torch, own
// threads in the benchmarks, nothing (serial) in WebAssembly.
#pragma once

#include <type_traits>

#include "sparsecore/types.h"

namespace sparsecore {

// A task reads and writes only its own part of the output, so results never depend on the number of threads.
using Task = void (*)(void* context, int64_t task);

struct ParallelHost {
  // Runs task(context, i) once for every i in [0, count), in any order, and returns when all are done.
  void (*run)(int64_t count, Task task, void* context);
  // How many threads run() uses when called from the current thread; at least 1.
  int (*num_threads)();
};

// Call before the first kernel; not to be raced with running kernels. A null run restores the serial host.
SPARSECORE_API void set_parallel_host(ParallelHost host);
// 1 inside a task: what a task starts, it runs by itself.
SPARSECORE_API int num_threads();

// Every task runs with denormals flushed to zero (inputs and results); the caller's mode is restored after it.
SPARSECORE_API void parallel_tasks(int64_t count, Task task, void* context);

// `body` is called as body(int64_t task).
template <typename Body>
void parallel_for_each(int64_t count, Body&& body) {
  using Decayed = typename std::remove_reference<Body>::type;
  parallel_tasks(
      count, [](void* context, int64_t task) { (*static_cast<Decayed*>(context))(task); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Runs body() once, on one of the host's threads, while the others stand by: what it starts in parallel begins and ends
// some times faster than by itself. For bodies of many short steps, from which nothing is called that uses the host's
// threads in other ways. Denormals are flushed in all of it.
SPARSECORE_API void parallel_steps_with(Task body, void* context);
template <typename Body>
void parallel_steps(Body&& body) {
  using Decayed = typename std::remove_reference<Body>::type;
  parallel_steps_with([](void* context, int64_t) { (*static_cast<Decayed*>(context))(); },
                      const_cast<void*>(static_cast<const void*>(&body)));
}

// Memory of this thread that grows and is kept, 64-byte aligned, so that hot paths do not allocate. Contents are
// undefined. Slots keep nested users apart. Null where memory cannot be had.
enum class Scratch : int { kPanel = 0, kSums = 1, kCompressed = 2, kWidened = 3, kCall = 4, kCount = 5 };
SPARSECORE_API void* scratch(Scratch slot, size_t bytes);

// Bytes held by the calling thread's scratch memory, and giving them back.
SPARSECORE_API size_t scratch_bytes();
SPARSECORE_API void release_scratch();

}  // namespace sparsecore

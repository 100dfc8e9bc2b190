#include "sparsecore/parallel.h"

#include <algorithm>
#include <cstdlib>

#include "cpu/arch.h"
#if !defined(SPARSECORE_WASM)
#include "cpu/crew.h"
#endif

#if defined(SPARSECORE_X86)
#include <immintrin.h>
#endif

namespace sparsecore {
namespace {

ParallelHost host = {nullptr, nullptr};

// Denormal operands cost a hundred times a normal product. The mode belongs to the thread, so every task sets it and
// puts the caller's back.
class FlushDenormals {
 public:
#if defined(SPARSECORE_X86)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(SPARSECORE_ARM)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" ::"r"(saved_ | (1ull << 24)));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#else
  FlushDenormals() {}
#endif
};

struct Block {
  void* memory = nullptr;
  size_t bytes = 0;
};

struct ThreadScratch {
  Block blocks[static_cast<int>(Scratch::kCount)];
  ~ThreadScratch() { release(); }
  void release() {
    for (Block& block : blocks) {
      std::free(block.memory);
      block = Block();
    }
  }
};

#if defined(SPARSECORE_WASM)
ThreadScratch thread_scratch;  // one thread, and its runtime cannot destroy thread-local objects
bool in_task = false;
#else
thread_local ThreadScratch thread_scratch;
thread_local bool in_task = false;  // of a call that runs on several threads

// The crew that this thread leads, if it does.
struct Lead {
  Crew* crew = nullptr;
  int member = 0;
};
thread_local Lead lead;

// However the body ends, the others must not wait for more.
class LeadWhile {
 public:
  explicit LeadWhile(Lead value) { lead = value; }
  ~LeadWhile() {
    lead.crew->dismiss();
    lead = Lead();
  }
  LeadWhile(const LeadWhile&) = delete;
  LeadWhile& operator=(const LeadWhile&) = delete;
};
#endif

void run_on_all(int64_t count, Task task, void* context) {
#if !defined(SPARSECORE_WASM)
  if (lead.crew && count <= UINT32_MAX) return lead.crew->run(lead.member, count, task, context);
#endif
  host.run(count, task, context);
}

}  // namespace

void set_parallel_host(ParallelHost value) { host = value; }

int num_threads() {
  if (in_task || !host.num_threads) return 1;
#if !defined(SPARSECORE_WASM)
  if (lead.crew) return lead.crew->members();
#endif
  return host.num_threads();
}

void parallel_tasks(int64_t count, Task task, void* context) {
  struct Call {
    Task task;
    void* context;
  } call = {task, context};
  const Task flushed = [](void* opaque, int64_t i) {
    const Call& inner = *static_cast<Call*>(opaque);
    FlushDenormals mode;
    in_task = true;
    inner.task(inner.context, i);
    in_task = false;
  };
  if (count <= 0) return;
  if (count > 1 && host.run && num_threads() > 1) {
    run_on_all(count, flushed, &call);
  } else {
    FlushDenormals mode;
    for (int64_t i = 0; i < count; ++i) task(context, i);
  }
}

void parallel_steps_with(Task body, void* context) {
#if !defined(SPARSECORE_WASM)
  const int members = std::min(num_threads(), Crew::kMost);
  if (members > 1 && host.run && !lead.crew) {
    struct Call {
      Task body;
      void* context;
      Crew crew;
    } call = {body, context, Crew(members)};
    const Task join = [](void* opaque, int64_t i) {
      Call& inner = *static_cast<Call*>(opaque);
      const int member = static_cast<int>(i);
      if (!inner.crew.lead()) return inner.crew.serve(member);
      const LeadWhile leads({&inner.crew, member});
      FlushDenormals mode;
      inner.body(inner.context, 0);
    };
    return host.run(members, join, &call);
  }
#endif
  FlushDenormals mode;
  body(context, 0);
}

void* scratch(Scratch slot, size_t bytes) {
  Block& block = thread_scratch.blocks[static_cast<int>(slot)];
  if (block.bytes < bytes) {
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    std::free(block.memory);
    block.memory = std::aligned_alloc(4096, rounded);
    block.bytes = block.memory ? rounded : 0;
  }
  return block.memory;
}

size_t scratch_bytes() {
  size_t total = 0;
  for (const Block& block : thread_scratch.blocks) total += block.bytes;
  return total;
}

void release_scratch() { thread_scratch.release(); }

}  // namespace sparsecore

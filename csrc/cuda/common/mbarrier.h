// mbarrier: a barrier in shared memory that counts arrivals and bytes. A phase completes when as many threads as
// mbarrier_init named have arrived and every byte that was announced has been copied; the next phase then begins by
// itself. Waiting for parity p waits for the completion of phases 0, 2, 4.. (p = 0) or 1, 3, 5.. (p = 1): a wait for
// the parity of the phase before the current one returns at once. sm_90.
//
// One thread initialises, then fence_mbarrier_init() and a block or cluster barrier, before anybody else touches it.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/shared_memory.h"
#if SC_EMULATED
#include "cuda/emulation/mbarrier.h"
#include "cuda/emulation/memory.h"
#endif

namespace sparsecore::ptx {

SC_DEVICE void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
#if SC_EMULATED
  cuda_emulation::mbarrier_init(barrier, arrivals);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#endif
}

// Of a ring of stages: full[s], which as many `writers` complete, and empty[s], which as many `readers` do.
SC_DEVICE void mbarrier_init_ring(uint64_t* full, uint64_t* empty, int stages, uint32_t writers, uint32_t readers) {
  for (int stage = 0; stage < stages; ++stage) {
    mbarrier_init(&full[stage], writers);
    mbarrier_init(&empty[stage], readers);
  }
}

// Before the memory serves another purpose.
SC_DEVICE void mbarrier_invalidate(uint64_t* barrier) {
#if SC_EMULATED
  cuda_emulation::mbarrier_invalidate(barrier);
#else
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

// Makes initialised barriers known to the cluster and to the copy engine.
SC_DEVICE void fence_mbarrier_init() {
#if SC_EMULATED
  cuda_emulation::fence_mbarrier_init();
#else
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

SC_DEVICE void mbarrier_arrive(uint64_t* barrier) {
#if SC_EMULATED
  cuda_emulation::mbarrier_arrive(barrier);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

// Arrives, and announces that so many bytes will be copied in this phase.
SC_DEVICE void mbarrier_arrive_expect_bytes(uint64_t* barrier, uint32_t bytes) {
#if SC_EMULATED
  cuda_emulation::mbarrier_arrive_expect_tx(barrier, bytes);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
#endif
}

// At the same barrier of a block of the cluster, this one or another: for memory that this thread only had read, by
// instructions it has waited for, and that is given back to a copy. What it wrote is not ordered before: that would
// need .release.cluster here, which waits for all of its memory accesses, and .acquire.cluster in the wait.
SC_DEVICE void mbarrier_arrive_remote(uint64_t* barrier, uint32_t rank) {
#if SC_EMULATED
  cuda_emulation::mbarrier_arrive(static_cast<uint64_t*>(cuda_emulation::map_shared_rank(barrier, rank)));
#else
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
#endif
}

// This thread's earlier cp.async arrive at the barrier when they are done, instead of the thread: the arrival is one of
// those that mbarrier_init counted.
SC_DEVICE void mbarrier_arrive_after_cp_async(uint64_t* barrier) {
#if SC_EMULATED
  cuda_emulation::cp_async_mbarrier_arrive_noinc(barrier);
#else
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

// Whether the phase of this parity is complete; waits a little before it says no.
SC_DEVICE bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
#if SC_EMULATED
  return cuda_emulation::mbarrier_try_wait(barrier, parity);
#else
  uint32_t complete;
  asm volatile(
      "{\n"
      ".reg .pred complete;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
      "selp.u32 %0, 1, 0, complete;\n"
      "}"
      : "=r"(complete)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return complete != 0;
#endif
}

SC_DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

}  // namespace sparsecore::ptx

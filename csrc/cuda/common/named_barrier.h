// Barriers 1 to 15 (0 is __syncthreads) for some warps of a block. `threads` counts those that sync and those that only
// arrive, and is a multiple of 32.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#if SC_EMULATED
#include "cuda/emulation/barrier.h"
#endif

namespace sparsecore::ptx {

SC_DEVICE void named_barrier_sync(uint32_t barrier, uint32_t threads) {
#if SC_EMULATED
  cuda_emulation::named_barrier_sync(barrier, threads);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#endif
}

// Counts as come, and goes on.
SC_DEVICE void named_barrier_arrive(uint32_t barrier, uint32_t threads) {
#if SC_EMULATED
  cuda_emulation::named_barrier_arrive(barrier, threads);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#endif
}

}  // namespace sparsecore::ptx

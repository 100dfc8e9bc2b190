// Fences between the two ways to memory: the generic one (ordinary loads and stores, ldmatrix, cp.async) and the async
// one (bulk and tensor copies, wgmma's shared operands). A write through the generic proxy is seen by the async proxy
// after a fence of the thread that wrote, and a barrier between that fence and the reader; a cp.async is written when
// its thread has waited for it. A fence of the reading thread alone is not enough. sm_90.
#pragma once

#include "cuda/common/device.h"
#if SC_EMULATED
#include "cuda/emulation/memory.h"
#endif

namespace sparsecore::ptx {

// Shared memory of this block.
SC_DEVICE void fence_proxy_async_shared() {
#if SC_EMULATED
  cuda_emulation::fence_proxy_async_shared();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace sparsecore::ptx

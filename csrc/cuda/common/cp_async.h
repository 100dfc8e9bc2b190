// cp.async: 4, 8 or 16 bytes from global to shared memory without a register between, both aligned to their size.
// What a thread issued becomes visible to it after cp_async_wait, to others after a barrier that follows.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/shared_memory.h"
#if SC_EMULATED
#include "cuda/emulation/async.h"
#endif

namespace sparsecore::ptx {

// kGlobal leaves nothing in L1, for data read once by this block; it copies 16 bytes only.
enum class CacheAt { kAll, kGlobal };

// The first `source_bytes` of kBytes are copied, the others become zero; with 0 the source is not touched.
template <int kBytes, CacheAt kCache>
SC_DEVICE void cp_async_zfill(void* shared, const void* global, int source_bytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  static_assert(kCache == CacheAt::kAll || kBytes == 16, "cp.async past L1 copies 16 bytes");
#if SC_EMULATED
  cuda_emulation::cp_async(shared, global, kBytes, source_bytes);
#else
  if constexpr (kCache == CacheAt::kAll) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(kBytes), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(source_bytes)
                 : "memory");
  }
#endif
}

template <int kBytes, CacheAt kCache>
SC_DEVICE void cp_async(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  static_assert(kCache == CacheAt::kAll || kBytes == 16, "cp.async past L1 copies 16 bytes");
#if SC_EMULATED
  cuda_emulation::cp_async(shared, global, kBytes, kBytes);
#else
  if constexpr (kCache == CacheAt::kAll) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)), "l"(global), "n"(kBytes)
                 : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
  }
#endif
}

// 16 bytes past L1, with an L2 policy of cache_hints.h.
SC_DEVICE void cp_async_hinted(void* shared, const void* global, uint64_t policy) {
#if SC_EMULATED
  cuda_emulation::cp_async(shared, global, 16, 16);
#else
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "l"(policy)
               : "memory");
#endif
}

// Closes a group over what this thread issued since the last one; an empty group counts.
SC_DEVICE void cp_async_commit() {
#if SC_EMULATED
  cuda_emulation::cp_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most kPending of this thread's newest groups are unfinished.
template <int kPending>
SC_DEVICE void cp_async_wait() {
#if SC_EMULATED
  cuda_emulation::cp_async_wait(kPending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace sparsecore::ptx

// Global loads and stores that say how long the data should stay in the caches, and L2 policies for copies. A hint
// changes no value; the emulator checks only alignment.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#if SC_EMULATED
#include "cuda/emulation/instructions/load_store.h"
#endif

namespace sparsecore::ptx {

// Read once, such as weights: the first to go.
SC_DEVICE uint64_t policy_evict_first() {
#if SC_EMULATED
  return 0;
#else
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#endif
}
// Read by every block, such as activations: the last to go.
SC_DEVICE uint64_t policy_evict_last() {
#if SC_EMULATED
  return 0;
#else
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#endif
}

// As without a policy, for instructions that want one.
SC_DEVICE uint64_t policy_evict_normal() {
#if SC_EMULATED
  return 0;
#else
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#endif
}

// Bytes that nobody writes while the kernel runs, not kept in L1.
SC_DEVICE uint4 load_once_16(const void* global) {
#if SC_EMULATED
  return cuda_emulation::load_global<uint4>(global, "ld.global.v4");
#else
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(global));
  return value;
#endif
}
SC_DEVICE uint32_t load_once_4(const void* global) {
#if SC_EMULATED
  return cuda_emulation::load_global<uint32_t>(global, "ld.global");
#else
  uint32_t value;
  asm volatile("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(value) : "l"(global));
  return value;
#endif
}
// The same with an L2 policy.
SC_DEVICE uint4 load_streaming_16(const void* global, uint64_t policy) {
#if SC_EMULATED
  return cuda_emulation::load_global<uint4>(global, "ld.global.v4");
#else
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.b32 {%0,%1,%2,%3}, [%4], %5;"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(global), "l"(policy));
  return value;
#endif
}
SC_DEVICE uint2 load_streaming_8(const void* global, uint64_t policy) {
#if SC_EMULATED
  return cuda_emulation::load_global<uint2>(global, "ld.global.v2");
#else
  uint2 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v2.b32 {%0,%1}, [%2], %3;"
               : "=r"(value.x), "=r"(value.y)
               : "l"(global), "l"(policy));
  return value;
#endif
}
SC_DEVICE uint32_t load_streaming_4(const void* global, uint64_t policy) {
#if SC_EMULATED
  return cuda_emulation::load_global<uint32_t>(global, "ld.global");
#else
  uint32_t value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.b32 %0, [%1], %2;"
               : "=r"(value)
               : "l"(global), "l"(policy));
  return value;
#endif
}

SC_DEVICE void store_hinted_16(void* global, uint4 value, uint64_t policy) {
#if SC_EMULATED
  cuda_emulation::store_global(global, value, "st.global.v4");
#else
  asm volatile("st.global.L2::cache_hint.v4.b32 [%0], {%1,%2,%3,%4}, %5;" ::"l"(global), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w), "l"(policy)
               : "memory");
#endif
}

// Asks for the line that holds this address.
SC_DEVICE void prefetch_l2(const void* global) {
#if SC_EMULATED
  (void)global;
#else
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
#endif
}

}  // namespace sparsecore::ptx

// Dynamic shared memory, its 32-bit addresses, and 2 to 16-byte accesses that the emulator checks and whose bank
// conflicts it counts.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#if SC_EMULATED
#include "cuda/emulation/instructions/load_store.h"
#endif

namespace sparsecore::ptx {

// Begins at a multiple of 1024 bytes, as 128-byte swizzles want it.
SC_DEVICE char* smem() {
#if SC_EMULATED
  return reinterpret_cast<char*>(cuda_emulation::shared_memory());
#else
  extern __shared__ __align__(1024) char dynamic_shared_memory[];
  return dynamic_shared_memory;
#endif
}

// The address inside the block's shared window: what descriptors and cluster instructions carry.
SC_DEVICE uint32_t shared_address(const void* shared) {
#if SC_EMULATED
  return cuda_emulation::shared_offset(shared);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#endif
}

// Two bytes, in the lower half of the result.
SC_DEVICE uint32_t load_shared_2(const void* shared) {
#if SC_EMULATED
  return cuda_emulation::load_shared<uint16_t>(shared, "ld.shared.u16");
#else
  uint32_t value;
  asm volatile("ld.shared.u16 %0, [%1];" : "=r"(value) : "r"(shared_address(shared)) : "memory");
  return value;
#endif
}
SC_DEVICE uint32_t load_shared_4(const void* shared) {
#if SC_EMULATED
  return cuda_emulation::load_shared<uint32_t>(shared, "ld.shared.b32");
#else
  uint32_t value;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(shared_address(shared)) : "memory");
  return value;
#endif
}
SC_DEVICE uint2 load_shared_8(const void* shared) {
#if SC_EMULATED
  return cuda_emulation::load_shared<uint2>(shared, "ld.shared.v2.b32");
#else
  uint2 value;
  asm volatile("ld.shared.v2.b32 {%0,%1}, [%2];"
               : "=r"(value.x), "=r"(value.y)
               : "r"(shared_address(shared))
               : "memory");
  return value;
#endif
}
SC_DEVICE uint4 load_shared_16(const void* shared) {
#if SC_EMULATED
  return cuda_emulation::load_shared<uint4>(shared, "ld.shared.v4.b32");
#else
  uint4 value;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(shared_address(shared))
               : "memory");
  return value;
#endif
}

SC_DEVICE void store_shared_4(void* shared, uint32_t value) {
#if SC_EMULATED
  cuda_emulation::store_shared(shared, value, "st.shared.b32");
#else
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared_address(shared)), "r"(value) : "memory");
#endif
}
SC_DEVICE void store_shared_8(void* shared, uint2 value) {
#if SC_EMULATED
  cuda_emulation::store_shared(shared, value, "st.shared.v2.b32");
#else
  asm volatile("st.shared.v2.b32 [%0], {%1,%2};" ::"r"(shared_address(shared)), "r"(value.x), "r"(value.y) : "memory");
#endif
}
SC_DEVICE void store_shared_16(void* shared, uint4 value) {
#if SC_EMULATED
  cuda_emulation::store_shared(shared, value, "st.shared.v4.b32");
#else
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(shared)), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
#endif
}

}  // namespace sparsecore::ptx

// Blocks of a cluster: their ranks, their barrier, and each other's shared memory. sm_90.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/shared_memory.h"
#if SC_EMULATED
#include "cuda/emulation/barrier.h"
#include "cuda/emulation/instructions/load_store.h"
#endif

namespace sparsecore::ptx {

SC_DEVICE uint32_t cluster_rank() {
#if SC_EMULATED
  return cuda_emulation::cluster_block_rank();
#else
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#endif
}
SC_DEVICE uint32_t cluster_size() {
#if SC_EMULATED
  return cuda_emulation::cluster_blocks();
#else
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
#endif
}

// What a thread wrote before it arrives is seen by every thread of the cluster after it waited.
SC_DEVICE void cluster_arrive() {
#if SC_EMULATED
  cuda_emulation::cluster_arrive();
#else
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
SC_DEVICE void cluster_wait() {
#if SC_EMULATED
  cuda_emulation::cluster_wait();
#else
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
SC_DEVICE void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

// The address of the same place in the shared memory of the block with this rank.
SC_DEVICE uint32_t cluster_address(const void* shared, uint32_t rank) {
#if SC_EMULATED
  return cuda_emulation::map_shared_rank(cuda_emulation::shared_offset(shared), rank);
#else
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(shared)), "r"(rank));
  return address;
#endif
}

SC_DEVICE uint4 load_cluster_16(uint32_t address) {
#if SC_EMULATED
  return cuda_emulation::load_cluster<uint4>(address, "ld.shared::cluster.v4");
#else
  uint4 value;
  asm volatile("ld.shared::cluster.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address)
               : "memory");
  return value;
#endif
}
SC_DEVICE float load_cluster_float(uint32_t address) {
#if SC_EMULATED
  return cuda_emulation::load_cluster<float>(address, "ld.shared::cluster");
#else
  float value;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
  return value;
#endif
}
SC_DEVICE void store_cluster_16(uint32_t address, uint4 value) {
#if SC_EMULATED
  cuda_emulation::store_cluster(address, value, "st.shared::cluster.v4");
#else
  asm volatile("st.shared::cluster.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
#endif
}

}  // namespace sparsecore::ptx

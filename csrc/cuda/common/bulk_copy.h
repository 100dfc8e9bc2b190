// The copy engine (TMA): runs of bytes and boxes of tensors between global and shared memory, issued by one thread.
// sm_90.
//
// Runs of bytes: addresses and sizes are multiples of 16. Boxes: the tensor map (tensor_map.h) says shape, strides, box
// and swizzle; coordinates are of the box's first element, the innermost dimension first; what lies outside the tensor
// is read as zero and not written. The shared address is 128-byte aligned, and a multiple of the swizzle's tile.
//
// Loads report to an mbarrier, which has to expect their bytes (mbarrier_arrive_expect_bytes): of a box always all of
// it. A multicast load writes the same place of every block whose bit is set in `blocks`, and reports to the same
// place's barrier in each. Stores and reductions are waited for in groups by the thread that issued them, and read
// shared memory through the async proxy: fence_proxy_async_shared() and a barrier come before.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/shared_memory.h"
#include "cuda/common/tensor_map.h"
#if SC_EMULATED
#include "cuda/emulation/async.h"
#include "cuda/emulation/tensor_copy.h"
#endif

namespace sparsecore::ptx {

SC_DEVICE void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
#if SC_EMULATED
  cuda_emulation::bulk_load(shared, global, bytes, barrier);
#else
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(global), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
#endif
}
SC_DEVICE void bulk_load_hinted(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, uint64_t policy) {
#if SC_EMULATED
  cuda_emulation::bulk_load(shared, global, bytes, barrier);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
#endif
}
SC_DEVICE void bulk_load_multicast(void* shared, const void* global, uint32_t bytes, uint64_t* barrier,
                                   uint16_t blocks) {
#if SC_EMULATED
  cuda_emulation::bulk_load_multicast(shared, global, bytes, barrier, blocks);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
      "%4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
#endif
}

// To another block of the cluster: `destination` and `barrier` are addresses of its shared memory (cluster.h).
SC_DEVICE void bulk_copy_to_block(uint32_t destination, const void* shared, uint32_t bytes, uint32_t barrier) {
#if SC_EMULATED
  cuda_emulation::bulk_copy_to_block(destination, shared, bytes, barrier);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination),
      "r"(shared_address(shared)), "r"(bytes), "r"(barrier)
      : "memory");
#endif
}

SC_DEVICE void bulk_store(void* global, const void* shared, uint32_t bytes) {
#if SC_EMULATED
  cuda_emulation::bulk_store(global, shared, bytes);
#else
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global), "r"(shared_address(shared)),
               "r"(bytes)
               : "memory");
#endif
}
SC_DEVICE void bulk_store_hinted(void* global, const void* shared, uint32_t bytes, uint64_t policy) {
#if SC_EMULATED
  cuda_emulation::bulk_store(global, shared, bytes);
#else
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%0], [%1], %2, %3;" ::"l"(global),
               "r"(shared_address(shared)), "r"(bytes), "l"(policy)
               : "memory");
#endif
}

// global[i] += shared[i], each float once, in no order with other blocks.
SC_DEVICE void bulk_add_float(float* global, const float* shared, uint32_t bytes) {
#if SC_EMULATED
  cuda_emulation::bulk_add_float(global, shared, bytes);
#else
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global),
               "r"(shared_address(shared)), "r"(bytes)
               : "memory");
#endif
}

SC_DEVICE void bulk_prefetch_l2(const void* global, uint32_t bytes) {
#if SC_EMULATED
  cuda_emulation::check_global(global, bytes, 16, "cp.async.bulk.prefetch");
#else
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes));
#endif
}

SC_DEVICE void bulk_commit() {
#if SC_EMULATED
  cuda_emulation::bulk_commit();
#else
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}
// Until at most kPending of this thread's newest groups are unfinished: their writes are visible to it.
template <int kPending>
SC_DEVICE void bulk_wait() {
#if SC_EMULATED
  cuda_emulation::bulk_wait(kPending);
#else
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}
// Until they no longer read shared memory, which may then be written.
template <int kPending>
SC_DEVICE void bulk_wait_read() {
#if SC_EMULATED
  cuda_emulation::bulk_wait_read(kPending);
#else
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
#endif
}

// Brings the map to where the copy engine reads it.
SC_DEVICE void tensor_prefetch_map(const TensorMap* map) {
#if SC_EMULATED
  (void)map;
#else
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}

template <int kRank>
SC_DEVICE void tensor_load(void* shared, const TensorMap* map, const int32_t (&at)[kRank], uint64_t* barrier) {
  static_assert(kRank >= 2 && kRank <= 5, "boxes have 2 to 5 dimensions");
#if SC_EMULATED
  cuda_emulation::tensor_load(shared, map, at, kRank, barrier);
#else
  if constexpr (kRank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
        "[%4];" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(shared_address(barrier))
        : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
        "[%5];" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(shared_address(barrier))
        : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, "
        "%5}], [%6];" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(shared_address(barrier))
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5, "
        "%6}], [%7];" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "r"(shared_address(barrier))
        : "memory");
  }
#endif
}

template <int kRank>
SC_DEVICE void tensor_load_hinted(void* shared, const TensorMap* map, const int32_t (&at)[kRank], uint64_t* barrier,
                                  uint64_t policy) {
  static_assert(kRank >= 2 && kRank <= 5, "boxes have 2 to 5 dimensions");
#if SC_EMULATED
  cuda_emulation::tensor_load(shared, map, at, kRank, barrier);
#else
  if constexpr (kRank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
        "{%2, %3}], [%4], %5;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(shared_address(barrier)), "l"(policy)
        : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
        "{%2, %3, %4}], [%5], %6;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(shared_address(barrier)), "l"(policy)
        : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
        "{%2, %3, %4, %5}], [%6], %7;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(shared_address(barrier)), "l"(policy)
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
        "{%2, %3, %4, %5, %6}], [%7], %8;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "r"(shared_address(barrier)), "l"(policy)
        : "memory");
  }
#endif
}

template <int kRank>
SC_DEVICE void tensor_load_multicast(void* shared, const TensorMap* map, const int32_t (&at)[kRank], uint64_t* barrier,
                                     uint16_t blocks, uint64_t policy) {
  static_assert(kRank >= 2 && kRank <= 5, "boxes have 2 to 5 dimensions");
#if SC_EMULATED
  cuda_emulation::tensor_load_multicast(shared, map, at, kRank, barrier, blocks);
#else
  if constexpr (kRank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_"
        "hint [%0], [%1, {%2, %3}], [%4], %5, %6;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(shared_address(barrier)), "h"(blocks), "l"(policy)
        : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_"
        "hint [%0], [%1, {%2, %3, %4}], [%5], %6, %7;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(shared_address(barrier)), "h"(blocks), "l"(policy)
        : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_"
        "hint [%0], [%1, {%2, %3, %4, %5}], [%6], %7, %8;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(shared_address(barrier)), "h"(blocks), "l"(policy)
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_"
        "hint [%0], [%1, {%2, %3, %4, %5, %6}], [%7], %8, %9;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "r"(shared_address(barrier)), "h"(blocks),
        "l"(policy)
        : "memory");
  }
#endif
}

template <int kRank>
SC_DEVICE void tensor_store(const TensorMap* map, const int32_t (&at)[kRank], const void* shared) {
  static_assert(kRank >= 2 && kRank <= 5, "boxes have 2 to 5 dimensions");
#if SC_EMULATED
  cuda_emulation::tensor_store(map, at, kRank, shared);
#else
  if constexpr (kRank == 2) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(shared_address(shared)), "r"(at[0]), "r"(at[1])
                 : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
                 "r"(shared_address(shared)), "r"(at[0]), "r"(at[1]), "r"(at[2])
                 : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
                 "r"(shared_address(shared)), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
                 : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(map),
        "r"(shared_address(shared)), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4])
        : "memory");
  }
#endif
}

// Adds a box to the tensor, each element once, in no order with other blocks.
template <int kRank>
SC_DEVICE void tensor_add(const TensorMap* map, const int32_t (&at)[kRank], const void* shared) {
  static_assert(kRank >= 2 && kRank <= 5, "boxes have 2 to 5 dimensions");
#if SC_EMULATED
  cuda_emulation::tensor_add(map, at, kRank, shared);
#else
  if constexpr (kRank == 2) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
        "r"(shared_address(shared)), "r"(at[0]), "r"(at[1])
        : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
        "r"(shared_address(shared)), "r"(at[0]), "r"(at[1]), "r"(at[2])
        : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(
            map),
        "r"(shared_address(shared)), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
        : "memory");
  } else {
    asm volatile(
        "cp.reduce.async.bulk.tensor.5d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(
            map),
        "r"(shared_address(shared)), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4])
        : "memory");
  }
#endif
}

}  // namespace sparsecore::ptx

// Barriers in shared memory that count arrivals and bytes.
//
// A phase ends when all expected arrivals came and the bytes announced and the bytes delivered are equal; the next one
// begins at once. Waiting is by parity: it ends when the phase of that parity has ended, and a phase can be missed.
// The eight bytes in shared memory hold a mark, so that data written over a barrier is noticed.
#pragma once

#include <cstdint>

namespace cuda_emulation {

void mbarrier_init(uint64_t* barrier, uint32_t count);
void mbarrier_invalidate(uint64_t* barrier);
// fence.mbarrier_init.release.cluster: what the running thread initialised can be used by the async proxy and by other
// blocks. fence.proxy.async does the same here.
void fence_mbarrier_init();

// Barriers of the own block, or of another block of the cluster through a mapped address.
void mbarrier_arrive(uint64_t* barrier, uint32_t count = 1);
void mbarrier_expect_tx(uint64_t* barrier, uint32_t bytes);
void mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes);
void mbarrier_complete_tx(uint64_t* barrier, uint32_t bytes);

// try_wait: suspends the thread until the phase ends, or for a while: false when everything else is stuck too.
bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity);
bool mbarrier_test_wait(uint64_t* barrier, uint32_t parity);  // does not suspend
void mbarrier_wait(uint64_t* barrier, uint32_t parity);       // the loop around try_wait

// An arrival, without raising the pending count, once all earlier cp.async of the running thread are done.
void cp_async_mbarrier_arrive_noinc(uint64_t* barrier);

}  // namespace cuda_emulation

// __syncthreads, named barriers, the cluster barrier, and the fences that are only about order.
#pragma once

#include <cstdint>

namespace cuda_emulation {

void sync_threads();
int sync_threads_count(int predicate);
int sync_threads_or(int predicate);
int sync_threads_and(int predicate);

// Barriers 0 to 15 of a block; `threads` is a multiple of 32 and counts those that sync and those that only arrive.
void named_barrier_sync(int id, int threads);
void named_barrier_arrive(int id, int threads);

// `.aligned`: whole warps, all lanes from the same place.
void cluster_arrive();
void cluster_wait();
inline void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

uint32_t cluster_block_rank();
uint32_t cluster_blocks();

// setmaxnreg: all warps of a warpgroup, a multiple of 8 from 24 to 256. What one gives back another may take, and waits
// for: the block owns what it was launched with, which is as many as __launch_bounds__(threads, 1) allows.
void set_max_registers(int registers, bool increase);
// griddepcontrol: grids run one after another here, so there is nothing to wait for.
void grid_dependency_wait();
void grid_launch_dependents();

}  // namespace cuda_emulation

// Instructions that several threads execute together.
//
// Each lane brings a pointer to its arguments and waits; the one that completes the set runs the operation for all.
// A lane that has exited, or that is in another instruction or at another place, can never come: that is a violation,
// also where hardware would happen to work.
#pragma once

#include <cstdint>

#include "machine.h"

namespace cuda_emulation {

// Returns the arguments of the lanes, by lane, when the running one completes the set, and nullptr in all the others,
// after the operation ran. The one that got them calls finish_meeting().
void** meet_warp(const char* instruction, uint32_t mask, void* arguments, bool aligned);
void** meet_warpgroup(const char* instruction, void* arguments);
void finish_warp_meeting(void** arguments);
void finish_warpgroup_meeting();

// op(Args* const lanes[32]) once, with a null pointer for lanes that are not in the mask.
template <class Args, class Op>
void masked_collective(const char* instruction, uint32_t mask, Args& arguments, Op op) {
  if (void** lanes = meet_warp(instruction, mask, &arguments, false)) {
    op(reinterpret_cast<Args**>(lanes));
    finish_warp_meeting(lanes);
  }
}

// op(Args* const lanes[32]) once; `.sync.aligned` instructions, which all 32 lanes execute.
template <class Args, class Op>
void warp_collective(const char* instruction, Args& arguments, Op op) {
  if (void** lanes = meet_warp(instruction, kFullMask, &arguments, true)) {
    op(*reinterpret_cast<Args*(*)[32]>(lanes));
    finish_warp_meeting(lanes);
  }
}

// op(Args* const lanes[128]) once; the 128 threads of four consecutive warps, the first of which is a multiple of four.
template <class Args, class Op>
void warpgroup_collective(const char* instruction, Args& arguments, Op op) {
  if (void** lanes = meet_warpgroup(instruction, &arguments)) {
    op(*reinterpret_cast<Args*(*)[128]>(lanes));
    finish_warpgroup_meeting();
  }
}

}  // namespace cuda_emulation

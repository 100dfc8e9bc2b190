// Programmatic dependent launch: a grid may begin while the one before it on the stream still runs. Nothing that grid
// writes may be read before wait_for_previous_grid(). Both do nothing unless the launch asked for the overlap. sm_90.
#pragma once

#include "cuda/common/device.h"
#if SC_EMULATED
#include "cuda/emulation/barrier.h"
#endif

namespace sparsecore::ptx {

SC_DEVICE void wait_for_previous_grid() {
#if SC_EMULATED
  cuda_emulation::grid_dependency_wait();
#else
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next grid may begin once every block of this one has said so or exited.
SC_DEVICE void let_next_grid_begin() {
#if SC_EMULATED
  cuda_emulation::grid_launch_dependents();
#else
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace sparsecore::ptx

// setmaxnreg: a warpgroup gives registers back, or asks for more and waits until they are free. All its warps execute
// it; the count is a multiple of 8 from 24 to 256. ptxas honours it only where __launch_bounds__(threads, 1) fixes the
// count a kernel starts with, and says so otherwise (advisory C7508, which the build log lint makes an error). sm_90a.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#if SC_EMULATED
#include "cuda/emulation/barrier.h"
#endif

namespace sparsecore::ptx {

template <uint32_t kRegisters>
SC_DEVICE void give_registers_back() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0, "a multiple of 8 from 24 to 256");
#if SC_EMULATED
  cuda_emulation::set_max_registers(kRegisters, false);
#else
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

template <uint32_t kRegisters>
SC_DEVICE void take_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0, "a multiple of 8 from 24 to 256");
#if SC_EMULATED
  cuda_emulation::set_max_registers(kRegisters, true);
#else
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

}  // namespace sparsecore::ptx

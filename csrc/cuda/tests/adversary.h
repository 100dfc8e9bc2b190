// A different schedule and kind of copy for each call, all of them in turn.
#pragma once

#include <vector>

#include "cuda/emulation/emulator.h"

namespace sparsecore {

inline cuda_emulation::Options next_adversary(int capability) {
  static const std::vector<cuda_emulation::Options> all = cuda_emulation::adversaries(90);
  static size_t turn = 0;
  cuda_emulation::Options options = all[turn++ % all.size()];
  options.capability = capability;
  return options;
}

}  // namespace sparsecore

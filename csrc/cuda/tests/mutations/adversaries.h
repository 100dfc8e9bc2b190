// What every program of this folder does: a kernel on the emulator, with every adversary and shape.
// tools/cuda_mutations.py compiles it again and again with one line of the kernel changed. Exit status 0: every answer
// right and no rule broken; 1: caught, with the reason in one line.
#pragma once

#include <cstdio>
#include <string>

#include "cuda/emulation/emulator.h"

namespace sparsecore {

// run(shape) says what is wrong, and nothing where all is right.
template <class Shapes, class Run>
int survive_adversaries(int capability, const Shapes& shapes, Run run) {
  for (const cuda_emulation::Options& options : cuda_emulation::adversaries(capability))
    for (const auto& shape : shapes) {
      const cuda_emulation::ScopedOptions scoped(options);
      std::string problem;
      try {
        problem = run(shape);
      } catch (const cuda_emulation::Violation& violation) {
        problem = violation.what();
      }
      if (problem.empty()) continue;
      std::printf("%s\n", problem.substr(0, problem.find('\n')).c_str());
      return 1;
    }
  return 0;
}

}  // namespace sparsecore

// Shorthand for tests of the emulator: launches, and the sentence a launch is refused with.
#pragma once

#include <functional>
#include <string>

#include "cuda/emulation/cuda.h"

inline cuda_emulation::Config threads(unsigned count, size_t shared_bytes = 0) {
  cuda_emulation::Config config;
  config.block = dim3(count);
  config.shared_bytes = shared_bytes;
  return config;
}

// The sentence of the violation that the kernel commits, "" if none.
inline std::string violation_of(const cuda_emulation::Config& config, const std::function<void()>& kernel,
                                const cuda_emulation::Options& options = {}) {
  try {
    cuda_emulation::launch(config, kernel, options);
    return "";
  } catch (const cuda_emulation::Violation& violation) {
    return violation.what();
  }
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Compilers merge equal beginnings and ends of two branches, which makes one place of two.
inline void keep_apart() { asm volatile(""); }

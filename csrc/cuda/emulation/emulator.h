// Runs a CUDA kernel as C++: launch() takes a grid, a function for every thread, and the ways in which to be unkind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "vector_types.h"
#include "violation.h"

namespace cuda_emulation {

struct Config {
  dim3 grid, block, cluster;
  size_t shared_bytes = 0;
};

// When an asynchronous copy happens between the moment it is issued and the moment somebody waits for it.
enum class Copies {
  kLate,   // at the last moment: when waited for, or when nothing else can run
  kEarly,  // at once
  kMixed,  // by the seed, in any order the machine allows
};

struct Options {
  uint64_t seed = 0;  // of the schedule, the order of blocks and of mixed copies
  Copies copies = Copies::kLate;
  int capability = 90;         // 80, 86, 89 or 90: an instruction of a newer device is a violation
  int multiprocessors = 3;     // what the device says it has
  int resident_clusters = 1;   // interleaved on one host thread
  int host_threads = 1;        // each runs clusters of its own; the schedule inside a cluster does not depend on it
  bool bank_conflicts = true;  // count them
  // Of a grid that is too large to wait for: run only so many clusters, those with the highest numbers. 0: all.
  uint64_t only_last = 0;
};

// Of the running host thread: what launch() uses when it is given none. Starts from CUDA_EMULATION_SEED,
// CUDA_EMULATION_COPIES (late, early, mixed) and CUDA_EMULATION_CAPABILITY in the environment.
Options& default_options();

class ScopedOptions {
 public:
  explicit ScopedOptions(const Options& options) : before_(default_options()) { default_options() = options; }
  ~ScopedOptions() { default_options() = before_; }
  ScopedOptions(const ScopedOptions&) = delete;
  ScopedOptions& operator=(const ScopedOptions&) = delete;

 private:
  Options before_;
};

// Options to test one kernel with: every kind of copy with several seeds.
std::vector<Options> adversaries(int capability, int seeds = 3);

// What one place's accesses to shared memory cost. An access of a warp goes in parts of 128 bytes; `worst` is the most
// passes that a part took: 1 is free of conflicts.
struct BankConflicts {
  std::string instruction;
  Site site;
  int64_t executions = 0;
  int64_t passes = 0;  // of each access's worst part, added up
  int worst = 0;
};

struct Report {
  std::map<std::string, int64_t> instructions;  // collectives and copies executed, by name
  std::vector<BankConflicts> bank_conflicts;
  int worst_bank_conflict() const;
};

// Dynamic shared memory that a block may have.
size_t shared_memory_limit(int capability);

// Runs body once per thread of the grid. Throws Violation, or what the body throws.
Report launch(const Config& config, const std::function<void()>& body, const Options& options = default_options());

}  // namespace cuda_emulation

// Questions to a GPU: small kernels that show what one resource gives, asked before kernels are tuned. Every question
// is answered twice, with few repetitions and a comparison with scalar code, then with many and a clock. The emulator
// does the first in the tests.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "cuda/common/device.h"
#include "cuda/common/launch.h"
#include "cuda/conformance/check.h"

namespace sparsecore::questions {

using conformance::DeviceArray;
using conformance::finish;
using conformance::first_difference;
using conformance::product;
using conformance::require;

// Numbers that were measured; what is 0 does not apply. On the emulator nothing is measured.
struct Answer {
  std::string wrong;                 // empty where the results are those of scalar code
  double seconds = 0, cycles = 0;    // of one launch; of its slowest block
  double operations = 0, bytes = 0;  // of one launch
  double in_flight = 0;              // bytes that a multiprocessor waits for at a time
  int blocks = 1;
};

struct Question {
  std::string name;
  int capability;
  int value;  // 0 first
  std::function<Answer()> ask;
};

// Ordered by value.
std::vector<Question> all_questions();

// One file each.
void add_mma_questions(std::vector<Question>& questions);
void add_wgmma_questions(std::vector<Question>& questions);
void add_load_questions(std::vector<Question>& questions);
void add_bulk_questions(std::vector<Question>& questions);
void add_box_questions(std::vector<Question>& questions);
void add_reduction_questions(std::vector<Question>& questions);

SC_DEVICE long long cycle_counter() {
#if SC_EMULATED
  return 0;
#else
  return clock64();
#endif
}

// One block on each multiprocessor; two on the emulator.
inline int all_blocks() { return SC_EMULATED ? 2 : current_device().multiprocessors; }
// Of what is timed; the emulator goes through the same lines once more.
constexpr int scaled(int on_a_gpu, int on_the_emulator) { return SC_EMULATED ? on_the_emulator : on_a_gpu; }

// Seconds of one call of `enqueue`, which launches on the default stream: the median of seven, after one.
template <class Enqueue>
double seconds_of(const Enqueue& enqueue) {
  enqueue();
  finish();
#if SC_EMULATED
  return 0;
#else
  cudaEvent_t start, end;
  require(cudaEventCreate(&start));
  require(cudaEventCreate(&end));
  std::vector<float> milliseconds(7);
  for (float& sample : milliseconds) {
    require(cudaEventRecord(start));
    enqueue();
    require(cudaEventRecord(end));
    require(cudaEventSynchronize(end));
    require(cudaEventElapsedTime(&sample, start, end));
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  require(cudaEventDestroy(start));
  require(cudaEventDestroy(end));
  return milliseconds[3] * 1e-3;
#endif
}

inline double slowest(const std::vector<long long>& cycles) {
  return static_cast<double>(*std::max_element(cycles.begin(), cycles.end()));
}

}  // namespace sparsecore::questions

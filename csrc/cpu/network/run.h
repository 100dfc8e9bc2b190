// Runs one step: the operators called with where its values lie.
#pragma once

#include <chrono>

#include "cpu/network/bands.h"

namespace sparsecore::network {

// A value of the image that is being computed.
struct Place {
  float* data = nullptr;  // the caller's arrays are only read
  int64_t stride = 0;     // between planes (between pixels where hwc)
  Shape shape;
  bool hwc = false;
  bool rolling = false;   // a buffer of a chain, that nobody else writes
  int64_t first_row = 0;  // of the image, that data begins with
};

// Adds the seconds of its life to *sum, if there is one.
class StepTimer {
 public:
  explicit StepTimer(double* sum) : sum_(sum) {
    if (sum_) begin_ = Clock::now();
  }
  ~StepTimer() {
    if (sum_) *sum_ += std::chrono::duration<double>(Clock::now() - begin_).count();
  }
  StepTimer(const StepTimer&) = delete;
  StepTimer& operator=(const StepTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double* sum_;
  Clock::time_point begin_;
};

// Drops the rows before `kept` of a rolling value that holds rows up to `end`.
void roll(Place* place, int64_t kept, int64_t end);
// Rows [begin, end) of what a convolution writes; the rows it reads are there.
Status run_rows(const Step& step, const Place* places, int64_t begin, int64_t end);
Status run_step(const Step& step, const Place* places);
// The row of the dispatch table that serves a step under the current instruction set.
const char* kernel_name(const Step& step);

// Between arrays of the caller, [C, H, W] or [H, W, C] without gaps, and places.
void copy_in(const float* array, bool hwc, const Place& place);
void copy_out(const Place& place, bool hwc, float* array);

}  // namespace sparsecore::network

// Runs one step: the operators called with where its values lie.
#pragma once

#include "cpu/network/graph.h"

namespace sparsecore::network {

// A value of the image that is being computed.
struct Place {
  float* data = nullptr;  // the caller's arrays are only read
  int64_t stride = 0;     // between planes (between pixels where hwc)
  Shape shape;
  bool hwc = false;
};

Status run_step(const Step& step, const Place* places);
// The row of the dispatch table that serves a step under the current instruction set.
const char* kernel_name(const Step& step);

// Between arrays of the caller, [C, H, W] or [H, W, C] without gaps, and places.
void copy_in(const float* array, bool hwc, const Place& place);
void copy_out(const Place& place, bool hwc, float* array);

}  // namespace sparsecore::network

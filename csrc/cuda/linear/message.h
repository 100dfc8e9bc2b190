// The sentence behind a status that is not kOk.
#pragma once

#include "sparsecore/linear_cuda.h"

namespace sparsecore::cuda_linear {

const char* name_of(DType dtype);
// Keeps the sentence for cuda_message() and returns the status.
[[gnu::format(printf, 2, 3)]] Status refuse(Status status, const char* format, ...);

// A launch's answer: kOk, or kLaunchFailed with the driver's own words.
template <class LaunchError>
Status launched(const char* function, const LaunchError& error) {
  return error ? refuse(Status::kLaunchFailed, "%s: the launch failed: %s", function, error.message()) : Status::kOk;
}

}  // namespace sparsecore::cuda_linear

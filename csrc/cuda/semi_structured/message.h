// The sentence behind a status that is not kOk, and the checks that every function of the family shares.
#pragma once

#include "sparsecore/semi_structured_cuda.h"

namespace sparsecore::semi_structured {

const char* name_of(DType dtype);
// Keeps the sentence for semi_structured_message() and returns the status.
[[gnu::format(printf, 2, 3)]] Status refuse(Status status, const char* format, ...);
Status check_weight(const char* function, const SemiStructured& weight, DType dtype, int64_t n, int64_t k);

// A launch's answer: kOk, or kLaunchFailed with the driver's own words.
template <class LaunchError>
Status launched(const char* function, const LaunchError& error) {
  return error ? refuse(Status::kLaunchFailed, "%s: the launch failed: %s", function, error.message()) : Status::kOk;
}

}  // namespace sparsecore::semi_structured

// From float sums in scratch memory, channels x lanes, to y: planes or pixels of any type.
#pragma once

#include "cpu/group_lists/group_lists.h"

namespace sparsecore::group_lists {

constexpr int64_t kFinishChannels = 128;  // turned into pixels at once

struct Staged {
  const ConvIo& io;
  const Kernel& kernel;
  Activation activation;  // what is left of it
  const float* sums;      // [channels, lanes]
  int lanes;
  int64_t image, pixel;
  int pixels;  // at most `lanes`
  int64_t first_channel, channels;
  float* rows;  // [kFinishChannels * lanes] of scratch
};
void unstage(const Staged& staged);

}  // namespace sparsecore::group_lists

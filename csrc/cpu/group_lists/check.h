// What the two convolution calls of the family check before they look at a weight.
#pragma once

#include "sparsecore/group_lists.h"

namespace sparsecore::group_lists {

Status check_sides(int64_t images, int64_t channels, int64_t out_channels, const Window& window);

// One side: planes (or pixels) do not overlap, and neither do padded planes.
bool good_strides(int64_t images, int64_t image_stride, int64_t stride, ImageLayout layout, int64_t channels,
                  int64_t pixels, bool padded);

}  // namespace sparsecore::group_lists

#include "cpu/planes/vector_lanes4.h"

// Templates over Vector.
#include "cpu/planes/depthwise_padded.h"
#include "cpu/planes/pool_wide.h"
#include "cpu/planes/stem_wide.h"
#include "cpu/planes/whole_planes_wide.h"

namespace sparsecore::planes::neon {

const Kernel kKernel = {.isa = Isa::kNeon,
                        .name = "neon::planes",
                        .depthwise = Padded<Vector>::run,
                        .depthwise_scratch = Padded<Vector>::scratch,
                        .stem = Stem<Vector>::run,
                        .stem_scratch = Stem<Vector>::scratch,
                        .pool = Pooling<Vector>::run,
                        .pool_scratch = Pooling<Vector>::scratch,
                        .sum = WholePlanes<Vector>::sum,
                        .line = WholePlanes<Vector>::line,
                        .dense = WholePlanes<Vector>::dense};

}  // namespace sparsecore::planes::neon

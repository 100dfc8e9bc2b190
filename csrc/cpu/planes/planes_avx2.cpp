#include "cpu/planes/vector_avx2.h"

// Templates over Vector.
#include "cpu/planes/depthwise_direct.h"
#include "cpu/planes/pool_wide.h"
#include "cpu/planes/stem_wide.h"
#include "cpu/planes/whole_planes_wide.h"

namespace sparsecore::planes::avx2 {

const Kernel kKernel = {.isa = Isa::kAvx2,
                        .name = "avx2::planes",
                        .depthwise = Depthwise<Vector>::run,
                        .depthwise_scratch = Depthwise<Vector>::scratch,
                        .stem = Stem<Vector>::run,
                        .stem_scratch = Stem<Vector>::scratch,
                        .pool = Pooling<Vector>::run,
                        .pool_scratch = Pooling<Vector>::scratch,
                        .sum = WholePlanes<Vector>::sum,
                        .line = WholePlanes<Vector>::line,
                        .dense = WholePlanes<Vector>::dense};

}  // namespace sparsecore::planes::avx2

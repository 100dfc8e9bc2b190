#include "cpu/planes/vector_avx512.h"

// Templates over Vector.
#include "cpu/planes/depthwise_direct.h"
#include "cpu/planes/depthwise_narrow_avx512.h"
#include "cpu/planes/pool_wide.h"
#include "cpu/planes/stem_wide.h"
#include "cpu/planes/whole_planes_wide.h"

namespace sparsecore::planes::avx512 {
namespace {

void depthwise(const DepthwiseRows& rows) {
  const Window& window = *rows.window;
  if (Narrow<3, 1>::serves(window)) return Narrow<3, 1>::run(rows);
  if (Narrow<3, 2>::serves(window)) return Narrow<3, 2>::run(rows);
  if (Narrow<5, 1>::serves(window)) return Narrow<5, 1>::run(rows);
  if (Narrow<5, 2>::serves(window)) return Narrow<5, 2>::run(rows);
  Depthwise<Vector>::run(rows);
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx512,
                        .name = "avx512::planes",
                        .depthwise = depthwise,
                        .depthwise_scratch = Depthwise<Vector>::scratch,
                        .stem = Stem<Vector>::run,
                        .stem_scratch = Stem<Vector>::scratch,
                        .pool = Pooling<Vector>::run,
                        .pool_scratch = Pooling<Vector>::scratch,
                        .sum = WholePlanes<Vector>::sum,
                        .line = WholePlanes<Vector>::line,
                        .dense = WholePlanes<Vector>::dense};

}  // namespace sparsecore::planes::avx512

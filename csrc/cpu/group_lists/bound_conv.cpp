#include "sparsecore/group_lists.h"

namespace sparsecore {

struct BoundConv {
  ConvIo io;
  GroupLists weight;
};

BoundConv* bind_conv(const ConvIo& io, const GroupLists& weight) { return new BoundConv{io, weight}; }

int32_t sparsecore_bound_conv_run(const BoundConv* bound) {
  return static_cast<int32_t>(group_lists_conv(bound->io, bound->weight));
}

void sparsecore_bound_conv_free(BoundConv* bound) { delete bound; }

}  // namespace sparsecore

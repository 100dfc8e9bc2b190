#include "torch/bound_conv.h"

namespace sparsecore {

struct BoundConv {
  ConvIo io;
  GroupLists lists;
  std::vector<Tensor> tensors;
  std::vector<const void*> places;

  bool moved() const {
    for (size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i].const_data_ptr() != places[i]) return true;
    return false;
  }
};

BoundConv* bind_conv(const ConvIo& io, const GroupLists& lists, std::vector<Tensor> tensors) {
  std::vector<const void*> places;
  for (const Tensor& tensor : tensors) places.push_back(tensor.const_data_ptr());
  return new BoundConv{io, lists, std::move(tensors), std::move(places)};
}

}  // namespace sparsecore

using namespace sparsecore;

int32_t sparsecore_bound_conv_run(const BoundConv* bound) {
  return bound->moved() ? -1 : static_cast<int32_t>(group_lists_conv(bound->io, bound->lists));
}

void sparsecore_bound_conv_free(BoundConv* bound) { delete bound; }

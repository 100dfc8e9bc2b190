#include "cpu/group_lists/staging.h"

#include <algorithm>

#include "cpu/epilogue/epilogue.h"

namespace sparsecore::group_lists {

void unstage(const Staged& s) {
  const ConvIo& io = s.io;
  const epilogue::BlockFunction finish = epilogue::block_function();
  char* y = static_cast<char*>(io.y) + s.image * io.y_image_stride * size_of(io.dtype);
  epilogue::Block block = {};
  block.activation = s.activation;
  block.y_row_stride = io.y_stride;
  block.dtype = io.dtype;
  if (io.y_layout == ImageLayout::kChw) {
    block.sums = s.sums, block.sums_stride = s.lanes;
    block.y = y + (s.first_channel * io.y_stride + s.pixel) * size_of(io.dtype);
    block.rows = s.channels, block.n = s.pixels;
    return finish(block);
  }
  const bool directly = io.dtype == DType::kFloat32 && s.activation == Activation::kNone;
  for (int64_t c = 0; c < s.channels; c += kFinishChannels) {
    const int64_t count = std::min(kFinishChannels, s.channels - c);
    char* to = y + (s.pixel * io.y_stride + s.first_channel + c) * size_of(io.dtype);
    const float* sums = s.sums + c * s.lanes;
    if (directly) {
      s.kernel.unpack(sums, count, s.lanes, s.pixels, reinterpret_cast<float*>(to), io.y_stride);
      continue;
    }
    s.kernel.unpack(sums, count, s.lanes, s.pixels, s.rows, kFinishChannels);
    block.sums = s.rows, block.sums_stride = kFinishChannels;
    block.y = to;
    block.rows = s.pixels, block.n = count;
    finish(block);
  }
}

}  // namespace sparsecore::group_lists

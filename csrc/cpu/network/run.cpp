#include "cpu/network/run.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/group_lists/group_lists.h"
#include "cpu/planes/planes.h"

namespace sparsecore::network {
namespace {

class StepRun {
 public:
  StepRun(const Step& step, const Place* places)
      : step_(step), weights_(step.weights), places_(places), window_(step.window) {}

  // Narrows a convolution to some rows of its output. Kernels may touch the rest of a register behind the last row only
  // where nobody has rows there: in a rolling buffer, behind the last row of all, or where nothing is left of it.
  StepRun& narrow(int64_t begin, int64_t end) {
    const Rows read = rows_read(step_.window, begin, end);
    window_.height = read.end - read.begin;
    window_.pad_top = std::max<int64_t>(0, window_.pad_top - begin * window_.stride_h);
    window_.out_height = end - begin;
    x_offset_ = (read.begin - x().first_row) * window_.width * (x().hwc ? x().stride : 1);
    y_offset_ = (begin - y().first_row) * window_.out_width;
    residual_offset_ = begin * window_.out_width;
    const bool whole = y().rolling || end == step_.window.out_height ||
                       (y_offset_ + window_.out_height * window_.out_width) % kPlaneLanes == 0;
    padded_ =
        whole && x_offset_ % kPlaneLanes == 0 && y_offset_ % kPlaneLanes == 0 && residual_offset_ % kPlaneLanes == 0;
    return *this;
  }

  Status run() const {
    switch (step_.op) {
      case Op::kConv: return conv();
      case Op::kStem: return stem();
      case Op::kDepthwise: return depthwise();
      case Op::kLinear:
      case Op::kDense: return linear();
      case Op::kAveragePool: return pool(step_.count_include_pad ? Pool::kAverageWithPadding : Pool::kAverage);
      case Op::kMaxPool: return pool(Pool::kMaximum);
      case Op::kGlobalAveragePool: return average_planes(planes());
      case Op::kSqueezeExcite: return excite();
      case Op::kAdd: return add_planes(planes());
      case Op::kScale: return scale_planes(planes());
      case Op::kActivation: return activate_planes(planes());
      case Op::kConcat: return concat();
      case Op::kFlatten: return flatten();
      case Op::kSoftmax: return softmax();
    }
    return Status::kBadPattern;
  }

 private:
  const Place& place(int value) const { return places_[value]; }
  const Place& x() const { return place(step_.x); }
  const Place& y() const { return place(step_.y); }

  Status conv() const {
    ConvIo io;
    io.x = x().data + x_offset_;
    io.y = y().data + y_offset_;
    io.channels = x().shape.channels;
    io.out_channels = y().shape.channels;
    io.x_stride = x().stride;
    io.y_stride = y().stride;
    if (step_.x2 >= 0) {
      io.residual = place(step_.x2).data + residual_offset_;
      io.residual_stride = place(step_.x2).stride;
    }
    io.bias = weights_.bias;
    io.weight_scale = weights_.scale;
    io.weight_dtype = weights_.dtype;
    io.x_layout = x().hwc ? ImageLayout::kHwc : ImageLayout::kChw;
    io.window = window_;
    io.activation = step_.activation;
    io.padded = padded_;
    return group_lists_conv(io, weights_.lists);
  }

  Status stem() const {
    StemIo io;
    io.x = x().data + x_offset_;
    io.y = y().data + y_offset_;
    io.weight = weights_.weight;
    io.bias = weights_.bias;
    io.channels = x().shape.channels;
    io.out_channels = y().shape.channels;
    io.x_stride = x().stride;
    io.y_stride = y().stride;
    io.x_layout = x().hwc ? ImageLayout::kHwc : ImageLayout::kChw;
    io.window = window_;
    io.activation = step_.activation;
    io.padded = padded_;
    return stem_conv(io);
  }

  Status depthwise() const {
    DepthwiseIo io;
    io.x = x().data + x_offset_;
    io.y = y().data + y_offset_;
    io.weight = weights_.weight;
    io.bias = weights_.bias;
    io.channels = x().shape.channels;
    io.x_stride = x().stride;
    io.y_stride = y().stride;
    io.window = window_;
    io.activation = step_.activation;
    io.padded = padded_;
    return depthwise_conv(io);
  }

  Status linear() const {
    LinearIo io;
    io.x = x().data;
    io.y = y().data;
    io.bias = weights_.bias;
    io.weight_scale = weights_.scale;
    io.m = 1;
    io.n = io.y_row_stride = y().shape.channels;
    io.k = io.x_row_stride = x().shape.channels;
    io.weight_dtype = weights_.dtype;
    io.activation = step_.activation;
    return group_lists_linear(io, weights_.lists);
  }

  Status pool(Pool kind) const {
    PoolIo io;
    io.x = x().data;
    io.y = y().data;
    io.channels = x().shape.channels;
    io.x_stride = x().stride;
    io.y_stride = y().stride;
    io.window = step_.window;
    io.pool = kind;
    return pool_planes(io);
  }

  // A vector is one plane, except where each of its elements meets an own factor.
  PlanesIo planes() const {
    const bool vector = x().shape.rank == 1, factors = step_.op == Op::kScale;
    PlanesIo io;
    io.x = x().data;
    io.y = y().data;
    io.channels = vector && !factors ? 1 : x().shape.channels;
    io.pixels = vector && !factors ? x().shape.channels : x().shape.pixels();
    io.x_stride = vector && !factors ? io.pixels : x().stride;
    io.y_stride = vector && !factors ? io.pixels : y().stride;
    if (step_.x2 >= 0) {
      io.x2 = place(step_.x2).data;
      io.x2_stride = vector && !factors ? io.pixels : place(step_.x2).stride;
    }
    io.activation = step_.activation;
    io.padded = !vector;
    return io;
  }

  Status excite() const {
    SqueezeExciteIo io;
    io.planes = planes();
    io.weight1 = weights_.weight1;
    io.bias1 = weights_.bias1;
    io.weight2 = weights_.weight2;
    io.bias2 = weights_.bias2;
    io.squeezed = weights_.squeezed;
    io.inner = step_.inner;
    io.gate = step_.gate;
    return squeeze_excite(io);
  }

  Status concat() const {
    float* to = y().data;
    for (const int source : step_.xs) {
      const Place& from = place(source);
      for (int64_t c = 0; c < from.shape.channels; ++c, to += y().stride)
        std::memcpy(to, from.data + c * from.stride, static_cast<size_t>(from.shape.pixels()) * sizeof(float));
    }
    return Status::kOk;
  }

  Status flatten() const {
    copy_out(x(), false, y().data);
    return Status::kOk;
  }

  Status softmax() const {
    const int64_t count = x().shape.channels;
    const float *from = x().data, largest = *std::max_element(from, from + count);
    float* to = y().data;
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += to[i] = std::exp(from[i] - largest);
    const float factor = static_cast<float>(1 / sum);
    for (int64_t i = 0; i < count; ++i) to[i] *= factor;
    return Status::kOk;
  }

  const Step& step_;
  const Weights& weights_;
  const Place* places_;
  Window window_;
  int64_t x_offset_ = 0, y_offset_ = 0, residual_offset_ = 0;
  bool padded_ = true;
};

}  // namespace

Status run_step(const Step& step, const Place* places) { return StepRun(step, places).run(); }

Status run_rows(const Step& step, const Place* places, int64_t begin, int64_t end) {
  return StepRun(step, places).narrow(begin, end).run();
}

void roll(Place* place, int64_t kept, int64_t end) {
  if (kept == place->first_row) return;
  const int64_t width = place->shape.width, from = (kept - place->first_row) * width;
  for (int64_t c = 0; c < place->shape.channels; ++c) {
    float* plane = place->data + c * place->stride;
    std::memmove(plane, plane + from, static_cast<size_t>((end - kept) * width) * sizeof(float));
  }
  place->first_row = kept;
}

const char* kernel_name(const Step& step) {
  switch (step.op) {
    case Op::kConv:
    case Op::kLinear:
    case Op::kDense: return group_lists::kernel().name;
    case Op::kConcat:
    case Op::kFlatten:
    case Op::kSoftmax: return "portable";
    default: return planes::kernel().name;
  }
}

void copy_in(const float* array, bool hwc, const Place& place) {
  const int64_t channels = place.shape.channels, pixels = place.shape.pixels();
  for (int64_t c = 0; c < channels; ++c) {
    float* plane = place.data + c * place.stride;
    if (hwc)
      for (int64_t p = 0; p < pixels; ++p) plane[p] = array[p * channels + c];
    else
      std::memcpy(plane, array + c * pixels, static_cast<size_t>(pixels) * sizeof(float));
  }
}

void copy_out(const Place& place, bool hwc, float* array) {
  const int64_t channels = place.shape.channels, pixels = place.shape.pixels();
  // Where element (c, p) lies on either side.
  const int64_t channel_step = place.hwc ? 1 : place.stride, pixel_step = place.hwc ? place.stride : 1;
  const int64_t array_channel_step = hwc ? 1 : pixels, array_pixel_step = hwc ? channels : 1;
  for (int64_t c = 0; c < channels; ++c) {
    const float* from = place.data + c * channel_step;
    float* to = array + c * array_channel_step;
    if (pixel_step == 1 && array_pixel_step == 1)
      std::memcpy(to, from, static_cast<size_t>(pixels) * sizeof(float));
    else
      for (int64_t p = 0; p < pixels; ++p) to[p * array_pixel_step] = from[p * pixel_step];
  }
}

}  // namespace sparsecore::network

// Dense operators of image networks on planes: float32, whatever window.
#include <torch/headeronly/util/Exception.h>

#include "sparsecore/planes.h"
#include "torch/images.h"

namespace sparsecore {
namespace {

void require_float(const char* function, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, function, ": ", name, " must be float32. Convert it.");
}

const float* bias_of(const char* function, const std::optional<Tensor>& bias, const char* name, int64_t channels) {
  if (!bias) return nullptr;
  require(function, name, *bias, ScalarType::Float, 1);
  STD_TORCH_CHECK(bias->size(0) == channels, function, ": ", name, " must have ", channels, " entries, got ",
                  bias->size(0), ".");
  return static_cast<const float*>(bias->const_data_ptr());
}

void done(const char* function, Status status) {
  STD_TORCH_CHECK(status == Status::kOk, function, ": ", describe(status),
                  ". Padding may be at most what the kernel reaches over.");
}

Tensor depthwise(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias, Sizes stride, Sizes padding,
                 Sizes dilation, int64_t activation) {
  constexpr const char* function = "depthwise_conv2d";
  require_image(function, "input", input);
  require_float(function, "input", input);
  require(function, "weight", weight, ScalarType::Float, 4);
  require_activation(function, activation);
  STD_TORCH_CHECK(weight.size(0) == input.size(1) && weight.size(1) == 1, function, ": weight must be (", input.size(1),
                  ", 1, kernel_h, kernel_w), got (", weight.size(0), ", ", weight.size(1), ", ", weight.size(2), ", ",
                  weight.size(3), ").");
  const Image x = as_image(input, ImageLayout::kChw);
  DepthwiseIo io;
  io.window = window_of(function, input, {weight.size(2), weight.size(3)}, stride, padding, dilation);
  io.images = input.size(0), io.channels = input.size(1);
  const int64_t area = io.window.out_height * io.window.out_width;
  Tensor output = empty_image(io.images, io.channels, io.window, ScalarType::Float, ImageLayout::kChw);
  io.x = static_cast<const float*>(x.tensor.const_data_ptr());
  io.y = static_cast<float*>(output.mutable_data_ptr());
  io.weight = static_cast<const float*>(weight.const_data_ptr());
  io.bias = bias_of(function, bias, "bias", io.channels);
  io.x_image_stride = x.image_stride, io.x_stride = x.stride;
  io.y_image_stride = io.channels * area, io.y_stride = area;
  io.activation = static_cast<Activation>(activation);
  done(function, depthwise_conv(io));
  return output;
}

// weight [out_channels, kernel_h, kernel_w, channels]
Tensor stem(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias, Sizes stride, Sizes padding,
            Sizes dilation, int64_t activation) {
  constexpr const char* function = "stem_conv2d";
  require_image(function, "input", input);
  require_float(function, "input", input);
  require(function, "weight", weight, ScalarType::Float, 4);
  require_activation(function, activation);
  STD_TORCH_CHECK(weight.size(3) == input.size(1), function, ": weight must be for ", input.size(1), " channels, got ",
                  weight.size(3), ".");
  const Image x = as_image(input);
  StemIo io;
  io.window = window_of(function, input, {weight.size(1), weight.size(2)}, stride, padding, dilation);
  io.images = input.size(0), io.channels = input.size(1), io.out_channels = weight.size(0);
  const int64_t area = io.window.out_height * io.window.out_width;
  Tensor output = empty_image(io.images, io.out_channels, io.window, ScalarType::Float, ImageLayout::kChw);
  io.x = static_cast<const float*>(x.tensor.const_data_ptr());
  io.y = static_cast<float*>(output.mutable_data_ptr());
  io.weight = static_cast<const float*>(weight.const_data_ptr());
  io.bias = bias_of(function, bias, "bias", io.out_channels);
  io.x_image_stride = x.image_stride, io.x_stride = x.stride, io.x_layout = x.layout;
  io.y_image_stride = io.out_channels * area, io.y_stride = area;
  io.activation = static_cast<Activation>(activation);
  done(function, stem_conv(io));
  return output;
}

Tensor squeeze(const Tensor& input, const Tensor& weight1, std::optional<Tensor> bias1, const Tensor& weight2,
               std::optional<Tensor> bias2, int64_t inner, int64_t gate) {
  constexpr const char* function = "squeeze_excite";
  require_image(function, "input", input);
  require_float(function, "input", input);
  require(function, "weight1", weight1, ScalarType::Float, 2);
  require(function, "weight2", weight2, ScalarType::Float, 2);
  require_activation(function, inner);
  require_activation(function, gate);
  const int64_t channels = input.size(1), squeezed = weight1.size(0);
  STD_TORCH_CHECK(weight1.size(1) == channels && weight2.size(0) == channels && weight2.size(1) == squeezed, function,
                  ": weight1 must be (squeezed, ", channels, ") and weight2 (", channels, ", squeezed), got (",
                  weight1.size(0), ", ", weight1.size(1), ") and (", weight2.size(0), ", ", weight2.size(1), ").");
  const Image x = as_image(input, ImageLayout::kChw);
  Window same;
  same.out_height = input.size(2), same.out_width = input.size(3);
  Tensor output = empty_image(input.size(0), channels, same, ScalarType::Float, ImageLayout::kChw);
  SqueezeExciteIo io;
  io.planes.channels = channels, io.planes.pixels = input.size(2) * input.size(3);
  io.planes.x_stride = x.stride, io.planes.y_stride = io.planes.pixels;
  io.weight1 = static_cast<const float*>(weight1.const_data_ptr());
  io.weight2 = static_cast<const float*>(weight2.const_data_ptr());
  io.bias1 = bias_of(function, bias1, "bias1", squeezed);
  io.bias2 = bias_of(function, bias2, "bias2", channels);
  io.squeezed = squeezed;
  io.inner = static_cast<Activation>(inner), io.gate = static_cast<Activation>(gate);
  for (int64_t i = 0; i < input.size(0); ++i) {
    io.planes.x = static_cast<const float*>(x.tensor.const_data_ptr()) + i * x.image_stride;
    io.planes.y = static_cast<float*>(output.mutable_data_ptr()) + i * channels * io.planes.pixels;
    done(function, squeeze_excite(io));
  }
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("depthwise_conv2d", TORCH_BOX(&depthwise));
  m.impl("stem_conv2d", TORCH_BOX(&stem));
  m.impl("squeeze_excite", TORCH_BOX(&squeeze));
}

}  // namespace sparsecore

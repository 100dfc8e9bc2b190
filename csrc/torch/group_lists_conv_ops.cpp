// Convolutions over group lists. An image tensor is [N, C, H, W] and goes to the kernels as it lies, as planes
// (contiguous tensors and slices of channels) or as pixels (channels_last); anything else is copied into planes. The
// output lies like the input.
#include <torch/headeronly/util/Exception.h>

#include "torch/bound_conv.h"
#include "torch/group_lists_view.h"
#include "torch/images.h"

namespace sparsecore {
namespace {

// Scales of images whose inverse is a normal float.
constexpr double kSmallestScale = 1e-29, kLargestScale = 1e29;

int64_t columns_of(const char* function, const Tensor& input, const Window& w) {
  const int64_t taps = w.kernel_h * w.kernel_w, channels = input.size(1);
  STD_TORCH_CHECK(taps <= INT32_MAX && taps * channels <= INT32_MAX, function, ": ", channels,
                  " channels under a kernel of ", w.kernel_h, " x ", w.kernel_w, " are too many.");
  return taps * channels;
}

// What a call needs; the tensors keep its arrays alive.
struct Call {
  ConvIo io;
  GroupLists lists;
  Image x, y, added;
};

Call call_of(const char* function, const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order,
             const Tensor& starts, const std::optional<Tensor>& scale, const std::optional<Tensor>& bias,
             const std::optional<Tensor>& residual, int64_t out_channels, const Sizes& kernel, const Sizes& stride,
             const Sizes& padding, const Sizes& dilation, int64_t depth, int64_t window, int64_t activation,
             int64_t compute, double x_scale, const std::optional<Tensor>& out) {
  require_image(function, "input", input);
  require_activation(function, activation);
  STD_TORCH_CHECK(compute >= 0 && compute <= static_cast<int64_t>(Compute::kInt8), function,
                  ": compute must be 0..2 (float32, float16, int8), got ", compute, ".");
  STD_TORCH_CHECK(compute != static_cast<int64_t>(Compute::kInt8) || values.scalar_type() == ScalarType::Char, function,
                  ": int8 products need int8 values. Pack the weight with dtype=torch.int8.");
  STD_TORCH_CHECK(x_scale == 0 || (x_scale >= kSmallestScale && x_scale <= kLargestScale), function,
                  ": x_scale must be 0 (a scale for each image) or ", kSmallestScale, "..", kLargestScale, ", got ",
                  x_scale, ".");
  STD_TORCH_CHECK(x_scale == 0 || compute == static_cast<int64_t>(Compute::kInt8), function,
                  ": x_scale is the scale of int8 products, and compute is not int8. Leave it 0.");
  STD_TORCH_CHECK(out_channels >= 0, function, ": out_channels must not be negative, got ", out_channels, ".");
  Call call;
  ConvIo& io = call.io;
  io.window = window_of(function, input, kernel, stride, padding, dilation);
  const int64_t k = columns_of(function, input, io.window);
  io.dtype = dtype_of(function, "input", input);
  io.weight_dtype = dtype_of(function, "values", values, true);
  io.activation = static_cast<Activation>(activation);
  io.compute = static_cast<Compute>(compute);
  io.x_scale = static_cast<float>(x_scale);
  io.images = input.size(0), io.channels = input.size(1), io.out_channels = out_channels;
  const Channelwise vectors = channelwise(function, values, scale, bias, out_channels);
  io.weight_scale = vectors.scale, io.bias = vectors.bias, io.bias_dtype = vectors.bias_dtype;
  call.lists = group_lists_view(function, values, index, order, starts, depth, window, out_channels, k);

  Image &x = call.x, &y = call.y;
  x = as_image(input);
  io.x = x.tensor.const_data_ptr();
  io.x_layout = x.layout, io.x_stride = x.stride, io.x_image_stride = x.image_stride;

  const auto has_output_shape = [&](const Tensor& t) {
    return t.dim() == 4 && t.size(0) == io.images && t.size(1) == out_channels && t.size(2) == io.window.out_height &&
           t.size(3) == io.window.out_width && t.scalar_type() == input.scalar_type() && t.is_cpu();
  };
  if (out) {
    STD_TORCH_CHECK(has_output_shape(*out), function, ": out must be a CPU tensor of the input's type and of shape (",
                    io.images, ", ", out_channels, ", ", io.window.out_height, ", ", io.window.out_width, ").");
    STD_TORCH_CHECK(
        lies_as(*out, x.layout, y) || lies_as(*out, ImageLayout::kChw, y) || lies_as(*out, ImageLayout::kHwc, y),
        function, ": out must be contiguous or channels_last.");
  } else {
    lies_as(empty_image(io.images, out_channels, io.window, input.scalar_type(), x.layout), x.layout, y);
  }
  io.y = y.tensor.mutable_data_ptr();
  io.y_layout = y.layout, io.y_stride = y.stride, io.y_image_stride = y.image_stride;

  if (residual) {
    STD_TORCH_CHECK(has_output_shape(*residual), function,
                    ": residual must be a CPU tensor of the input's type and of the output's shape, (", io.images, ", ",
                    out_channels, ", ", io.window.out_height, ", ", io.window.out_width, ").");
    call.added = as_image(*residual, y.layout);
    io.residual = call.added.tensor.const_data_ptr();
    io.residual_stride = call.added.stride, io.residual_image_stride = call.added.image_stride;
  }
  return call;
}

Tensor run(const char* function, const Call& call) {
  raise_unless_ok(function, group_lists_conv(call.io, call.lists));
  return call.y.tensor;
}

Tensor conv(const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order, const Tensor& starts,
            std::optional<Tensor> scale, std::optional<Tensor> bias, std::optional<Tensor> residual,
            int64_t out_channels, Sizes kernel, Sizes stride, Sizes padding, Sizes dilation, int64_t depth,
            int64_t window, int64_t activation, int64_t compute, std::optional<Tensor>, std::optional<Tensor>,
            std::optional<Tensor>, std::optional<Tensor>, double x_scale) {
  constexpr const char* function = "group_lists_conv2d";
  return run(function,
             call_of(function, input, values, index, order, starts, scale, bias, residual, out_channels, kernel, stride,
                     padding, dilation, depth, window, activation, compute, x_scale, std::nullopt));
}

void conv_out(const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order, const Tensor& starts,
              std::optional<Tensor> scale, std::optional<Tensor> bias, std::optional<Tensor> residual,
              int64_t out_channels, Sizes kernel, Sizes stride, Sizes padding, Sizes dilation, int64_t depth,
              int64_t window, int64_t activation, int64_t compute, Tensor out, double x_scale) {
  constexpr const char* function = "group_lists_conv2d_out";
  run(function, call_of(function, input, values, index, order, starts, scale, bias, residual, out_channels, kernel,
                        stride, padding, dilation, depth, window, activation, compute, x_scale, out));
}

// The address of a BoundConv. It watches the tensors of its caller, so that none may be a copy made here.
int64_t conv_bind(const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order,
                  const Tensor& starts, std::optional<Tensor> scale, std::optional<Tensor> bias,
                  std::optional<Tensor> residual, int64_t out_channels, Sizes kernel, Sizes stride, Sizes padding,
                  Sizes dilation, int64_t depth, int64_t window, int64_t activation, int64_t compute, Tensor out,
                  double x_scale) {
  constexpr const char* function = "group_lists_conv2d_bind";
  const Call call = call_of(function, input, values, index, order, starts, scale, bias, residual, out_channels, kernel,
                            stride, padding, dilation, depth, window, activation, compute, x_scale, out);
  STD_TORCH_CHECK(call.io.x == input.const_data_ptr() && (!residual || call.io.residual == residual->const_data_ptr()),
                  function, ": input and residual must be contiguous or channels_last, the residual like out. Bind ",
                  "copies of them, and copy into those before a call.");
  std::vector<Tensor> tensors = {input, values, index, order, starts, out};
  for (const std::optional<Tensor>& tensor : {scale, bias, residual})
    if (tensor) tensors.push_back(*tensor);
  return reinterpret_cast<int64_t>(bind_conv(call.io, call.lists, std::move(tensors)));
}

Tensor weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& index, const Tensor& order,
                   const Tensor& starts, int64_t rows, int64_t cols, Sizes kernel, Sizes stride, Sizes padding,
                   Sizes dilation, int64_t depth, int64_t window) {
  constexpr const char* function = "group_lists_conv2d_weight_grad";
  require_image(function, "input", input);
  require_image(function, "grad_output", grad_output);
  ConvGradIo io;
  io.window = window_of(function, input, kernel, stride, padding, dilation);
  const int64_t k = columns_of(function, input, io.window);
  STD_TORCH_CHECK(grad_output.size(0) == input.size(0) && grad_output.size(2) == io.window.out_height &&
                      grad_output.size(3) == io.window.out_width && grad_output.scalar_type() == input.scalar_type(),
                  function, ": grad_output must have the input's type and the shape of the output, (", input.size(0),
                  ", out_channels, ", io.window.out_height, ", ", io.window.out_width, ").");
  io.dtype = dtype_of(function, "input", input);
  io.images = input.size(0), io.channels = input.size(1), io.out_channels = grad_output.size(1);
  const GroupLists lists =
      group_lists_view(function, nullptr, index, order, starts, rows, cols, depth, window, io.out_channels, k);
  const Image x = as_image(input), grad = as_image(grad_output, x.layout);
  io.layout = x.layout;
  io.x = x.tensor.const_data_ptr(), io.grad_y = grad.tensor.const_data_ptr();
  io.x_stride = x.stride, io.x_image_stride = x.image_stride;
  io.grad_y_stride = grad.stride, io.grad_y_image_stride = grad.image_stride;
  Tensor out = empty({lists.records + 1, cols, rows}, ScalarType::Float);
  io.out = static_cast<float*>(out.mutable_data_ptr());
  raise_unless_ok(function, group_lists_conv_weight_grad(io, lists));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("group_lists_conv2d", TORCH_BOX(&conv));
  m.impl("group_lists_conv2d_out", TORCH_BOX(&conv_out));
  m.impl("group_lists_conv2d_bind", TORCH_BOX(&conv_bind));
  m.impl("group_lists_conv2d_weight_grad", TORCH_BOX(&weight_grad));
}

}  // namespace sparsecore

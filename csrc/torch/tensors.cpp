#include "torch/tensors.h"

#include <torch/headeronly/util/Exception.h>

namespace sparsecore {

const char* type_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Double: return "float64";
    case ScalarType::Char: return "int8";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    case ScalarType::Float8_e4m3fn: return "float8_e4m3fn";
    default: return "another type";
  }
}

int64_t row_stride(const Tensor& tensor) {
  const int64_t dims = tensor.dim();
  if (dims == 0) return -1;
  if (tensor.size(dims - 1) > 1 && tensor.stride(dims - 1) != 1) return -1;
  if (dims == 1) return tensor.size(0);
  const int64_t stride = tensor.stride(dims - 2);
  int64_t expected = stride * tensor.size(dims - 2);
  for (int64_t d = dims - 3; d >= 0; --d) {
    if (tensor.size(d) != 1 && tensor.stride(d) != expected) return -1;
    expected *= tensor.size(d);
  }
  return stride < 0 ? -1 : stride;
}

int64_t leading_count(const Tensor& tensor) {
  int64_t count = 1;
  for (int64_t d = 0; d + 1 < tensor.dim(); ++d) count *= tensor.size(d);
  return count;
}

Tensor with_dense_rows(const Tensor& tensor) {
  return row_stride(tensor) < 0 ? torch::stable::contiguous(tensor) : tensor;
}

DType dtype_of(const char* function, const char* name, const Tensor& tensor, bool allow_int8) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::Char:
      if (allow_int8) return DType::kInt8;
      [[fallthrough]];
    default:
      STD_TORCH_CHECK(false, function, ": ", name, " is ", type_name(tensor.scalar_type()),
                      "; the kernels take float32, bfloat16 and float16", allow_int8 ? " and int8" : "",
                      ". Convert it, or use sparsecore.reference.");
      return DType::kFloat32;
  }
}

void require(const char* function, const char* name, const Tensor& tensor, ScalarType type, int64_t dims) {
  STD_TORCH_CHECK(tensor.is_cpu(), function, ": ", name, " must be a CPU tensor. Move it with .cpu().");
  STD_TORCH_CHECK(tensor.scalar_type() == type, function, ": ", name, " must be ", type_name(type), ", got ",
                  type_name(tensor.scalar_type()), ".");
  STD_TORCH_CHECK(tensor.dim() == dims, function, ": ", name, " must have ", dims, " dimensions, got ", tensor.dim(),
                  ".");
  STD_TORCH_CHECK(tensor.is_contiguous(), function, ": ", name, " must be contiguous. Call .contiguous() on it.");
}

void raise_unless_ok(const char* function, Status status) {
  const char* advice = ". The packed weight is damaged or does not belong to this shape; pack it again.";
  if (status == Status::kUnsupportedDType) advice = ". Store the weight as float32, bfloat16 or float16.";
  if (status == Status::kOutOfMemory) advice = ". Free some memory, or pass fewer rows at once.";
  STD_TORCH_CHECK(status == Status::kOk, function, ": ", describe(status), advice);
}

void require_activation(const char* function, int64_t activation) {
  STD_TORCH_CHECK(
      activation >= 0 && activation <= kLastActivation, function,
      ": activation must be 0..8 (none, relu, gelu, gelu_tanh, silu, relu6, hard_swish, hard_sigmoid, sigmoid), got ",
      activation, ".");
}

Channelwise channelwise(const char* function, const Tensor& values, const std::optional<Tensor>& scale,
                        const std::optional<Tensor>& bias, int64_t channels) {
  STD_TORCH_CHECK(values.is_cpu() && values.is_contiguous(), function, ": values must be a contiguous CPU tensor.");
  Channelwise found;
  if (scale) {
    require(function, "scale", *scale, ScalarType::Float, 1);
    STD_TORCH_CHECK(scale->size(0) == channels, function, ": scale must have ", channels, " entries, got ",
                    scale->size(0), ".");
    found.scale = static_cast<const float*>(scale->const_data_ptr());
  }
  STD_TORCH_CHECK(values.scalar_type() != ScalarType::Char || scale, function,
                  ": int8 values need a scale per output channel.");
  if (bias) {
    found.bias_dtype = dtype_of(function, "bias", *bias);
    require(function, "bias", *bias, bias->scalar_type(), 1);
    STD_TORCH_CHECK(bias->size(0) == channels, function, ": bias must have ", channels, " entries, got ", bias->size(0),
                    ".");
    found.bias = bias->const_data_ptr();
  }
  return found;
}

Tensor empty(std::vector<int64_t> sizes, ScalarType type) { return torch::stable::empty(sizes, type); }

DenseSide dense_side(const char* function, const Tensor& input, const Tensor& values,
                     const std::optional<Tensor>& scale, const std::optional<Tensor>& bias, int64_t out_features,
                     int64_t activation, int64_t compute, const std::optional<Tensor>& out) {
  STD_TORCH_CHECK(input.is_cpu(), function, ": input must be a CPU tensor. Move it with .cpu().");
  STD_TORCH_CHECK(input.dim() >= 1, function, ": input must be (..., in_features), got a scalar.");
  STD_TORCH_CHECK(out_features >= 0, function, ": out_features must not be negative, got ", out_features, ".");
  require_activation(function, activation);
  STD_TORCH_CHECK(compute >= 0 && compute <= static_cast<int64_t>(Compute::kInt8), function,
                  ": compute must be 0..2 (float32, float16, int8), got ", compute, ".");
  DenseSide side;
  LinearIo& io = side.io;
  io.dtype = dtype_of(function, "input", input);
  io.weight_dtype = dtype_of(function, "values", values, true);
  io.n = out_features;
  io.k = input.size(input.dim() - 1);
  io.m = leading_count(input);
  io.activation = static_cast<Activation>(activation);
  io.compute = static_cast<Compute>(compute);
  side.input = with_dense_rows(input);
  io.x_row_stride = row_stride(side.input);
  io.x = side.input.const_data_ptr();

  const Channelwise vectors = channelwise(function, values, scale, bias, io.n);
  io.weight_scale = vectors.scale, io.bias = vectors.bias, io.bias_dtype = vectors.bias_dtype;

  if (out) {
    side.output = *out;
    STD_TORCH_CHECK(out->is_cpu() && out->scalar_type() == input.scalar_type(), function,
                    ": out must be a CPU tensor of the input's type, ", type_name(input.scalar_type()), ".");
    STD_TORCH_CHECK(out->dim() == input.dim() && out->size(out->dim() - 1) == io.n && leading_count(*out) == io.m,
                    function, ": out must have the shape of input with ", io.n, " as last dimension.");
    STD_TORCH_CHECK(row_stride(*out) >= io.n || io.m <= 1, function, ": out must have dense, evenly spaced rows.");
  } else {
    std::vector<int64_t> sizes;
    for (int64_t d = 0; d + 1 < input.dim(); ++d) sizes.push_back(input.size(d));
    sizes.push_back(io.n);
    side.output = empty(sizes, input.scalar_type());
  }
  io.y_row_stride = io.m > 1 ? row_stride(side.output) : io.n;
  io.y = side.output.mutable_data_ptr();
  return side;
}

GradSide grad_side(const char* function, const Tensor& grad_output, const Tensor& input) {
  STD_TORCH_CHECK(grad_output.is_cpu() && input.is_cpu(), function, ": grad_output and input must be CPU tensors.");
  STD_TORCH_CHECK(grad_output.dim() >= 1 && input.dim() >= 1 && leading_count(grad_output) == leading_count(input),
                  function, ": grad_output and input must have the same leading dimensions.");
  STD_TORCH_CHECK(grad_output.scalar_type() == input.scalar_type(), function,
                  ": grad_output and input must have the same type, got ", type_name(grad_output.scalar_type()),
                  " and ", type_name(input.scalar_type()), ".");
  GradSide side;
  side.grad_output = with_dense_rows(grad_output);
  side.input = with_dense_rows(input);
  side.io.dtype = dtype_of(function, "input", input);
  side.io.grad_y = side.grad_output.const_data_ptr();
  side.io.x = side.input.const_data_ptr();
  side.io.m = leading_count(input);
  side.io.n = grad_output.size(grad_output.dim() - 1);
  side.io.k = input.size(input.dim() - 1);
  side.io.grad_y_row_stride = row_stride(side.grad_output);
  side.io.x_row_stride = row_stride(side.input);
  return side;
}

}  // namespace sparsecore

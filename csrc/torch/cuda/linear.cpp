#include "torch/cuda/linear.h"

#include <torch/headeronly/util/Exception.h>

namespace sparsecore {
namespace {

const float* scale_of(const char* function, const char* name, const std::optional<Tensor>& scale, const Tensor& beside,
                      int64_t entries) {
  if (!scale) return nullptr;
  require_vector(function, name, *scale, beside, entries);
  STD_TORCH_CHECK(scale->scalar_type() == ScalarType::Float, function, ": ", name, " must be float32, got ",
                  type_name(scale->scalar_type()), ".");
  return static_cast<const float*>(scale->const_data_ptr());
}

// The input with dense rows, once it is known to be one of ours.
Tensor checked(const char* function, const Tensor& input, const Tensor& weight) {
  require_on_device(function, "input", input);
  STD_TORCH_CHECK(input.dim() >= 1, function, ": input must be (..., in_features), got a scalar.");
  STD_TORCH_CHECK(input.scalar_type() == weight.scalar_type(), function, ": input is ", type_name(input.scalar_type()),
                  " and the weight ", type_name(weight.scalar_type()), "; convert one of them.");
  require_beside(function, "values", weight, input);
  return dense_rows(function, "input", input);
}

Tensor output_of(const char* function, const Tensor& input, int64_t out_features, ScalarType out_dtype) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d + 1 < input.dim(); ++d) sizes.push_back(input.size(d));
  sizes.push_back(out_features);
  return allocate(function, "the output", input, sizes, out_dtype);
}

// As torch writes it.
std::string device_name(const Tensor& tensor) {
  const int32_t index = device_index(tensor);
  return index < 0 ? "the host" : "cuda:" + std::to_string(index);
}

template <class Allocate>
Tensor allocated(const char* function, const std::string& what, const Tensor& beside, int64_t bytes,
                 const Allocate& allocate) {
  try {
    return allocate();
  } catch (const std::exception&) {
    STD_TORCH_CHECK(
        false, function, ": ", what, " needs ", bytes, " bytes, which ", device_name(beside),
        " could not give. Pass fewer tokens at once, or free memory first. torch says: ", allocation_failure());
  }
}

// A contiguous copy in memory of its own.
Tensor copied(const char* function, const char* name, const Tensor& tensor) {
  return allocated(function, std::string("a copy of ") + name + " in one piece", tensor,
                   tensor.numel() * static_cast<int64_t>(tensor.element_size()),
                   [&] { return copy_on_device(tensor); });
}

int64_t bytes_of(const std::vector<int64_t>& sizes, ScalarType type) {
  int64_t bytes = static_cast<int64_t>(aoti_torch_dtype_element_size(static_cast<int32_t>(type)));
  for (const int64_t size : sizes) bytes *= size;
  return bytes;
}

}  // namespace

void raise_unless_launched(Status status) { STD_TORCH_CHECK(status == Status::kOk, cuda_message(), "."); }

void require_on_device(const char* function, const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(device_index(tensor) >= 0, function, ": ", name, " is on ", device_name(tensor),
                  " and must be on a CUDA device. Move it with .to('cuda').");
}

void require_beside(const char* function, const char* name, const Tensor& tensor, const Tensor& beside) {
  STD_TORCH_CHECK(device_index(tensor) == device_index(beside), function, ": ", name, " is on ", device_name(tensor),
                  " and the other tensors are on ", device_name(beside), ". Move it with .to('", device_name(beside),
                  "').");
}

Tensor allocate(const char* function, const char* what, const Tensor& like, const std::vector<int64_t>& sizes,
                ScalarType type) {
  return allocated(function, what, like, bytes_of(sizes, type), [&] { return empty_on_device(like, sizes, type); });
}

Tensor multiply(const char* function, const Tensor& a, const Tensor& b) {
  const int64_t bytes = leading_count(a) * b.size(1) * static_cast<int64_t>(a.element_size());
  return allocated(function, "the dense product", a, bytes, [&] { return matmul_on_device(a, b); });
}

Tensor allocate_workspace(const char* function, const Tensor& like, int64_t bytes) {
  return allocate(function, "the workspace", like, {bytes}, ScalarType::Byte);
}

Tensor dense_rows(const char* function, const char* name, const Tensor& tensor) {
  return row_stride(tensor) < 0 ? copied(function, name, tensor) : tensor;
}

Tensor contiguous(const char* function, const char* name, const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : copied(function, name, tensor);
}

void require_vector(const char* function, const char* name, const Tensor& tensor, const Tensor& beside,
                    int64_t entries) {
  require_beside(function, name, tensor, beside);
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == entries && tensor.is_contiguous(), function, ": ", name,
                  " must be contiguous with shape (", entries, ",).");
}

Tensor aligned(const char* function, const char* name, const Tensor& tensor, const Tensor& beside) {
  require_beside(function, name, tensor, beside);
  STD_TORCH_CHECK(tensor.is_contiguous(), function, ": ", name, " must be contiguous. Call .contiguous() on it.");
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 ? copied(function, name, tensor) : tensor;
}

DType matrix_type(const char* function, const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::Char: return DType::kInt8;
    case ScalarType::Float8_e4m3fn: return kFloat8E4M3;
    default:
      STD_TORCH_CHECK(false, function, ": ", name, " is ", type_name(tensor.scalar_type()),
                      "; tensor cores take bfloat16, float16, int8 and float8_e4m3fn. Convert it first.");
      return DType::kBFloat16;
  }
}

DType float_type(const char* function, const char* name, ScalarType type) {
  switch (type) {
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Half: return DType::kFloat16;
    default:
      STD_TORCH_CHECK(false, function, ": ", name, " is ", type_name(type), ", needs float32, bfloat16 or float16.");
      return DType::kFloat32;
  }
}

void fill_epilogue(const char* function, DeviceLinear* params, const Tensor& input, const LinearExtras& extras,
                   int64_t out_features, int64_t activation, ScalarType out_dtype) {
  require_activation(function, activation);
  DeviceLinear& p = *params;
  p.out_dtype = float_type(function, "out_dtype", out_dtype);
  p.m = leading_count(input), p.n = out_features, p.k = input.size(input.dim() - 1);
  p.activation = static_cast<Activation>(activation);
  p.weight_scale = scale_of(function, "scale", extras.scale, input, p.n);
  p.token_scale = scale_of(function, "token_scale", extras.token_scale, input, p.m);
  if (extras.bias) {
    require_vector(function, "bias", *extras.bias, input, p.n);
    p.bias = extras.bias->const_data_ptr();
    p.bias_dtype = float_type(function, "bias", extras.bias->scalar_type());
  }
}

DeviceSide::DeviceSide(const char* function, DeviceLinear* params, const Tensor& given, const Tensor& weight,
                       const LinearExtras& extras, int64_t out_features, int64_t activation, ScalarType out_dtype)
    : input(checked(function, given, weight)), output(output_of(function, given, out_features, out_dtype)) {
  fill_epilogue(function, params, given, extras, out_features, activation, out_dtype);
  DeviceLinear& p = *params;
  p.dtype = matrix_type(function, "input", given);
  p.x = input.const_data_ptr();
  p.x_row_stride = p.m > 1 ? row_stride(input) : p.k;
  p.y = output.mutable_data_ptr();
  p.y_row_stride = p.n;
  if (extras.residual) {
    const Tensor& added = *extras.residual;
    require_beside(function, "residual", added, given);
    STD_TORCH_CHECK(added.scalar_type() == out_dtype && added.dim() == given.dim() &&
                        added.size(added.dim() - 1) == p.n && leading_count(added) == p.m,
                    function, ": residual must have the output's shape and type, ", type_name(out_dtype), ".");
    residual = dense_rows(function, "residual", added);
    p.residual = residual->const_data_ptr();
    p.residual_row_stride = p.m > 1 ? row_stride(*residual) : p.n;
  }
}

void DeviceSide::add_workspace(const char* function, DeviceLinear* params, int64_t bytes) {
  if (bytes == 0) return;
  workspace = allocate_workspace(function, input, bytes);
  params->workspace = workspace->mutable_data_ptr();
  params->workspace_bytes = bytes;
}

}  // namespace sparsecore

#include <torch/headeronly/util/Exception.h>

#include "sparsecore/bitmap_decode_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

// Every array has the type and the size that n x k asks for. The values are the caller's to add.
BitmapDecode places(const char* function, const Tensor& bitmap, const Tensor& row_ptr, int64_t n, int64_t k,
                    const Tensor& beside) {
  STD_TORCH_CHECK(n >= 0 && k >= 0, function, ": out_features and in_features must not be negative, got ", n, " and ",
                  k, ".");
  for (const auto& [name, tensor, type, dims] :
       {std::tuple{"bitmap", &bitmap, ScalarType::Long, 2}, std::tuple{"row_ptr", &row_ptr, ScalarType::Int, 1}}) {
    require_beside(function, name, *tensor, beside);
    STD_TORCH_CHECK(tensor->scalar_type() == type && tensor->dim() == dims && tensor->is_contiguous(), function, ": ",
                    name, " must be contiguous, ", type_name(type), ", with ", dims, " dimension(s), got ",
                    type_name(tensor->scalar_type()), " with ", tensor->dim(), ".");
  }
  const int64_t words = (k + 63) / 64;
  STD_TORCH_CHECK(bitmap.size(0) == n && bitmap.size(1) == words, function, ": bitmap must be (", n, ", ", words,
                  "), got (", bitmap.size(0), ", ", bitmap.size(1), ").");
  STD_TORCH_CHECK(row_ptr.size(0) == n + 1, function, ": row_ptr must have ", n + 1, " entries, got ", row_ptr.size(0),
                  ".");
  BitmapDecode weight;
  weight.bitmap = static_cast<const uint64_t*>(bitmap.const_data_ptr());
  weight.row_ptr = static_cast<const int32_t*>(row_ptr.const_data_ptr());
  return weight;
}

BitmapDecode view(const char* function, const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr, int64_t n,
                  int64_t k, const Tensor& beside) {
  require_beside(function, "values", values, beside);
  STD_TORCH_CHECK(values.dim() == 1 && values.is_contiguous(), function, ": values must be contiguous with one ",
                  "dimension, got ", values.dim(), ".");
  BitmapDecode weight = places(function, bitmap, row_ptr, n, k, beside);
  weight.values = values.const_data_ptr();
  weight.nnz = values.size(0);
  return weight;
}

Tensor to_dense(const char* function, const BitmapDecode& weight, const Tensor& values, int64_t n, int64_t k,
                ScalarType type) {
  Tensor dense = allocate(function, "the dense weight", values, {n, k}, type);
  BitmapDecodeDenseParams params;
  params.weight = weight;
  params.dense = dense.mutable_data_ptr();
  params.n = n, params.k = k;
  params.weight_dtype = dtype_of(function, "values", values, true);
  params.dtype = dtype_of(function, "the dense weight", dense, true);
  const DeviceScope scope(values);
  raise_unless_launched(bitmap_decode_to_dense(params, scope.stream()));
  return dense;
}

// The weight unpacked and multiplied by torch, whose product is rounded to the input's type before the epilogue.
Tensor dense_product(const char* function, const Tensor& input, const Tensor& values, const BitmapDecode& weight,
                     const LinearExtras& extras, int64_t out_features, int64_t activation) {
  const ScalarType type = input.scalar_type();
  STD_TORCH_CHECK(values.scalar_type() == type || values.scalar_type() == ScalarType::Char, function, ": input is ",
                  type_name(type), " and the weight ", type_name(values.scalar_type()), "; convert one of them.");
  STD_TORCH_CHECK(values.scalar_type() != ScalarType::Char || extras.scale, function,
                  ": int8 values need a scale for each channel.");
  DeviceLinear params;
  fill_epilogue(function, &params, input, extras, out_features, activation, type);
  const Tensor dense = to_dense(function, weight, values, params.n, params.k, type);
  Tensor output = multiply(function, input, torch::stable::transpose(dense, 0, 1));
  if (!extras.scale && !extras.bias && params.activation == Activation::kNone) return output;
  params.y = output.mutable_data_ptr();
  params.y_row_stride = params.n;
  const DeviceScope scope(input);
  raise_unless_launched(finish_linear(params, scope.stream()));
  return output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
              int64_t compute) {
  constexpr const char* function = "bitmap_decode_linear";
  STD_TORCH_CHECK(compute == 0, function, ": on CUDA compute must be float32, got number ", compute, ".");
  require_on_device(function, "input", input);
  STD_TORCH_CHECK(input.dim() >= 1, function, ": input must be (..., in_features), got a scalar.");
  const int64_t k = input.size(input.dim() - 1);
  const BitmapDecode weight = view(function, values, bitmap, row_ptr, out_features, k, input);
  const LinearExtras extras{scale, std::nullopt, bias, std::nullopt};
  if (input.scalar_type() == ScalarType::Float || leading_count(input) > kBitmapDecodeMostTokens)
    return dense_product(function, input, values, weight, extras, out_features, activation);
  const bool int8 = values.scalar_type() == ScalarType::Char;
  BitmapDecodeMatmulParams params;
  // Values of 8 bits become the input's type in the kernel.
  DeviceSide side(function, &params, input, int8 ? input : values, extras, out_features, activation,
                  input.scalar_type());
  params.weight = weight;
  params.weight_dtype = int8 ? DType::kInt8 : params.dtype;
  side.add_workspace(function, &params, bitmap_decode_matmul_workspace(params.m, params.n, params.k));
  const DeviceScope scope(input);
  raise_unless_launched(bitmap_decode_matmul(params, scope.stream()));
  return side.output;
}

Tensor unpack(const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr, int64_t n, int64_t k) {
  constexpr const char* function = "bitmap_decode_unpack";
  require_on_device(function, "values", values);
  return to_dense(function, view(function, values, bitmap, row_ptr, n, k, values), values, n, k, values.scalar_type());
}

Tensor gather(const Tensor& given, const Tensor& bitmap, const Tensor& row_ptr, int64_t stored) {
  constexpr const char* function = "bitmap_decode_gather";
  require_on_device(function, "dense", given);
  STD_TORCH_CHECK(given.dim() == 2, function, ": dense must be (out_features, in_features), got ", given.dim(),
                  " dimensions.");
  const Tensor dense = contiguous(function, "dense", given);
  STD_TORCH_CHECK(stored >= 0, function, ": stored must not be negative, got ", stored, ".");
  BitmapDecodeGatherParams params;
  params.n = dense.size(0), params.k = dense.size(1);
  params.weight = places(function, bitmap, row_ptr, params.n, params.k, dense);
  params.weight.nnz = stored;
  params.dense = dense.const_data_ptr();
  params.dtype = dtype_of(function, "dense", dense, true);
  Tensor values = allocate(function, "the values", dense, {stored}, dense.scalar_type());
  params.values = values.mutable_data_ptr();
  const DeviceScope scope(dense);
  raise_unless_launched(bitmap_decode_gather(params, scope.stream()));
  return values;
}

Tensor fault(const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr, int64_t n, int64_t k) {
  constexpr const char* function = "bitmap_decode_fault";
  require_on_device(function, "values", values);
  STD_TORCH_CHECK(n >= 0 && k >= 0, function, ": out_features and in_features must not be negative, got ", n, " and ",
                  k, ".");
  const BitmapDecode weight = view(function, values, bitmap, row_ptr, n, k, values);
  Tensor where = allocate(function, "the result", values, {2}, ScalarType::Long);
  const DeviceScope scope(values);
  raise_unless_launched(
      bitmap_decode_validate_device(weight, n, k, static_cast<int64_t*>(where.mutable_data_ptr()), scope.stream()));
  return where;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) {
  m.impl("bitmap_decode_linear", TORCH_BOX(&linear));
  m.impl("bitmap_decode_unpack", TORCH_BOX(&unpack));
  m.impl("bitmap_decode_gather", TORCH_BOX(&gather));
  m.impl("bitmap_decode_fault", TORCH_BOX(&fault));
}

}  // namespace sparsecore

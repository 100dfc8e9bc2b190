#include <torch/headeronly/util/Exception.h>

#include "sparsecore/semi_structured_cuda.h"
#include "torch/cuda/device.h"

namespace sparsecore {
namespace {

// Of one block: 64 channels by 128 bytes of inputs.
constexpr int64_t kBlockChannels = 64, kBlockRowBytes = 128, kBlockValueBytes = 4096, kBlockMetadata = 256;

DType weight_type(const char* function, const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::Char: return DType::kInt8;
    case ScalarType::Float8_e4m3fn: return kFloat8E4M3;
    default:
      STD_TORCH_CHECK(false, function, ": ", name, " is ", type_name(tensor.scalar_type()),
                      "; 2:4 kernels take bfloat16, float16, int8 and float8_e4m3fn. Convert it first.");
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

void require_here(const char* function, const char* name, const Tensor& tensor, const Tensor& beside) {
  STD_TORCH_CHECK(on_device(tensor) && tensor.get_device_index() == beside.get_device_index(), function, ": ", name,
                  " must be on the same ", kDeviceName, " device as the other tensors. Move it with .to().");
}

void require_vector(const char* function, const char* name, const Tensor& tensor, const Tensor& beside,
                    int64_t entries) {
  require_here(function, name, tensor, beside);
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == entries && tensor.is_contiguous(), function, ": ", name,
                  " must be contiguous with shape (", entries, ",).");
}

const float* scale_of(const char* function, const char* name, const std::optional<Tensor>& scale, const Tensor& beside,
                      int64_t entries) {
  if (!scale) return nullptr;
  require_vector(function, name, *scale, beside, entries);
  STD_TORCH_CHECK(scale->scalar_type() == ScalarType::Float, function, ": ", name, " must be float32, got ",
                  type_name(scale->scalar_type()), ".");
  return static_cast<const float*>(scale->const_data_ptr());
}

void raise_unless_done(Status status) { STD_TORCH_CHECK(status == Status::kOk, semi_structured_message(), "."); }

struct Shape {
  std::vector<int64_t> values, metadata;
};

Shape packed_shape(int64_t n, int64_t k, int64_t element) {
  const int64_t depth = kBlockRowBytes / element;
  const int64_t rows = (n + kBlockChannels - 1) / kBlockChannels, columns = (k + depth - 1) / depth;
  return {{rows, columns, kBlockValueBytes / element}, {rows, columns, kBlockMetadata / element}};
}

SemiStructured view(const char* function, const Tensor& values, const Tensor& metadata, int64_t n, int64_t k,
                    DType dtype) {
  STD_TORCH_CHECK(on_device(values), function, ": values must be a ", kDeviceName, " tensor.");
  require_here(function, "metadata", metadata, values);
  STD_TORCH_CHECK(metadata.scalar_type() == ScalarType::Int, function, ": metadata must be int32, got ",
                  type_name(metadata.scalar_type()), ".");
  STD_TORCH_CHECK(n >= 0 && k >= 0, function, ": out_features and in_features must not be negative, got ", n, " and ",
                  k, ".");
  STD_TORCH_CHECK(values.is_contiguous() && metadata.is_contiguous(), function,
                  ": values and metadata must be contiguous. Call .contiguous() on them.");
  SemiStructured weight;
  weight.values = values.const_data_ptr();
  weight.metadata = static_cast<const uint32_t*>(metadata.const_data_ptr());
  weight.value_bytes = values.numel() * size_of(dtype);
  weight.metadata_words = metadata.numel();
  return weight;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> compress(const Tensor& weight, std::optional<Tensor> mask, int64_t selection,
                                                    bool transposed) {
  constexpr const char* function = "semi_structured_compress";
  const DType dtype = weight_type(function, "weight", weight);
  STD_TORCH_CHECK(on_device(weight), function, ": weight must be a ", kDeviceName, " tensor.");
  STD_TORCH_CHECK(weight.dim() == 2, function, ": weight must be (out_features, in_features), got ", weight.dim(),
                  " dimensions.");
  STD_TORCH_CHECK(selection >= 0 && selection <= static_cast<int64_t>(SemiStructuredSelection::kTwoWay), function,
                  ": selection must be 0 (mask), 1 (by row) or 2 (two-way), got ", selection, ".");
  SemiStructuredCompressParams params;
  params.n = weight.size(0), params.k = weight.size(1), params.dtype = dtype;
  params.selection = static_cast<SemiStructuredSelection>(selection);
  STD_TORCH_CHECK(mask.has_value() == (params.selection == SemiStructuredSelection::kMask), function,
                  ": a mask is for selection 0, and selection 0 needs one.");
  if (mask) {
    require_here(function, "mask", *mask, weight);
    STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool && mask->dim() == 2 && mask->size(0) == params.n &&
                        mask->size(1) == params.k && mask->is_contiguous(),
                    function, ": mask must be bool, contiguous and of the weight's shape (", params.n, ", ", params.k,
                    ").");
    params.mask = static_cast<const uint8_t*>(mask->const_data_ptr());
  }
  const Tensor dense = with_dense_rows(weight);
  params.dense = dense.const_data_ptr();
  params.row_stride = params.n > 1 ? row_stride(dense) : params.k;

  const int64_t element = size_of(dtype);
  const Shape shape = packed_shape(params.n, params.k, element);
  const Shape other = transposed ? packed_shape(params.k, params.n, element) : Shape{{0, 0, 0}, {0, 0, 0}};
  Tensor values = torch::stable::new_empty(weight, shape.values);
  Tensor metadata = torch::stable::new_empty(weight, shape.metadata, ScalarType::Int);
  Tensor values_t = torch::stable::new_empty(weight, other.values);
  Tensor metadata_t = torch::stable::new_empty(weight, other.metadata, ScalarType::Int);
  params.values = values.mutable_data_ptr();
  params.metadata = static_cast<uint32_t*>(metadata.mutable_data_ptr());
  if (transposed) {
    params.values_t = values_t.mutable_data_ptr();
    params.metadata_t = static_cast<uint32_t*>(metadata_t.mutable_data_ptr());
  }
  const DeviceScope scope(weight);
  raise_unless_done(semi_structured_compress(params, scope.stream()));
  return {values, metadata, values_t, metadata_t};
}

Tensor decompress(const Tensor& values, const Tensor& metadata, int64_t out_features, int64_t in_features) {
  constexpr const char* function = "semi_structured_decompress";
  const DType dtype = weight_type(function, "values", values);
  const SemiStructured weight = view(function, values, metadata, out_features, in_features, dtype);
  Tensor dense = torch::stable::new_empty(values, {out_features, in_features});
  const DeviceScope scope(values);
  raise_unless_done(semi_structured_decompress(weight, dtype, out_features, in_features, dense.mutable_data_ptr(),
                                               in_features, scope.stream()));
  return dense;
}

Tensor validate(const Tensor& values, const Tensor& metadata, int64_t out_features, int64_t in_features) {
  constexpr const char* function = "semi_structured_validate";
  const DType dtype = weight_type(function, "values", values);
  const SemiStructured weight = view(function, values, metadata, out_features, in_features, dtype);
  Tensor where = torch::stable::new_empty(values, {1}, ScalarType::Long);
  const DeviceScope scope(values);
  raise_unless_done(semi_structured_validate_device(weight, dtype, out_features, in_features,
                                                    static_cast<int64_t*>(where.mutable_data_ptr()), scope.stream()));
  return where;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& metadata, std::optional<Tensor> scale,
              std::optional<Tensor> token_scale, std::optional<Tensor> bias, std::optional<Tensor> residual,
              int64_t out_features, int64_t activation, ScalarType out_dtype, std::optional<Tensor>,
              std::optional<Tensor>) {
  constexpr const char* function = "semi_structured_linear";
  STD_TORCH_CHECK(on_device(input), function, ": input must be a ", kDeviceName, " tensor.");
  STD_TORCH_CHECK(input.dim() >= 1, function, ": input must be (..., in_features), got a scalar.");
  STD_TORCH_CHECK(input.scalar_type() == values.scalar_type(), function, ": input is ", type_name(input.scalar_type()),
                  " and the weight ", type_name(values.scalar_type()), "; convert one of them.");
  require_here(function, "values", values, input);
  require_activation(function, activation);
  SemiStructuredMatmulParams params;
  params.dtype = weight_type(function, "input", input);
  params.out_dtype = float_type(function, "out_dtype", out_dtype);
  params.m = leading_count(input), params.n = out_features, params.k = input.size(input.dim() - 1);
  params.weight = view(function, values, metadata, params.n, params.k, params.dtype);
  params.activation = static_cast<Activation>(activation);
  params.weight_scale = scale_of(function, "scale", scale, input, params.n);
  params.token_scale = scale_of(function, "token_scale", token_scale, input, params.m);
  if (bias) {
    require_vector(function, "bias", *bias, input, params.n);
    params.bias = bias->const_data_ptr();
    params.bias_dtype = float_type(function, "bias", bias->scalar_type());
  }
  const Tensor rows = with_dense_rows(input);
  params.x = rows.const_data_ptr();
  params.x_row_stride = params.m > 1 ? row_stride(rows) : params.k;

  std::vector<int64_t> sizes;
  for (int64_t d = 0; d + 1 < input.dim(); ++d) sizes.push_back(input.size(d));
  sizes.push_back(params.n);
  Tensor output = torch::stable::new_empty(input, sizes, out_dtype);
  params.y = output.mutable_data_ptr();
  params.y_row_stride = params.n;
  std::optional<Tensor> added;
  if (residual) {
    require_here(function, "residual", *residual, input);
    STD_TORCH_CHECK(residual->scalar_type() == out_dtype && residual->dim() == input.dim() &&
                        residual->size(residual->dim() - 1) == params.n && leading_count(*residual) == params.m,
                    function, ": residual must have the output's shape and type, ", type_name(out_dtype), ".");
    added = with_dense_rows(*residual);
    params.residual = added->const_data_ptr();
    params.residual_row_stride = params.m > 1 ? row_stride(*added) : params.n;
  }
  params.workspace_bytes = semi_structured_matmul_workspace(params.m, params.n, params.k, params.dtype);
  const Tensor workspace = torch::stable::new_empty(input, {params.workspace_bytes}, ScalarType::Byte);
  params.workspace = workspace.mutable_data_ptr();
  const DeviceScope scope(input);
  raise_unless_done(semi_structured_matmul(params, scope.stream()));
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) {
  m.impl("semi_structured_compress", TORCH_BOX(&compress));
  m.impl("semi_structured_decompress", TORCH_BOX(&decompress));
  m.impl("semi_structured_validate", TORCH_BOX(&validate));
  m.impl("semi_structured_linear", TORCH_BOX(&linear));
}

}  // namespace sparsecore

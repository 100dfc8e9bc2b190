#include <torch/headeronly/util/Exception.h>

#include "sparsecore/semi_structured_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

// Of one block: 64 channels by 128 bytes of inputs.
constexpr int64_t kBlockChannels = 64, kBlockRowBytes = 128, kBlockValueBytes = 4096, kBlockMetadata = 256;

struct Shape {
  std::vector<int64_t> values, metadata;
};

Shape packed_shape(int64_t n, int64_t k, int64_t element) {
  const int64_t depth = kBlockRowBytes / element;
  const int64_t rows = (n + kBlockChannels - 1) / kBlockChannels, columns = (k + depth - 1) / depth;
  return {{rows, columns, kBlockValueBytes / element}, {rows, columns, kBlockMetadata / element}};
}

// A packed weight, checked; the tensors are what the pointers point into.
struct Stored {
  Tensor values, metadata;
  SemiStructured weight;
};

Stored stored(const char* function, const Tensor& values, const Tensor& metadata, int64_t n, int64_t k, DType dtype) {
  require_on_device(function, "values", values);
  STD_TORCH_CHECK(metadata.scalar_type() == ScalarType::Int, function, ": metadata must be int32, got ",
                  type_name(metadata.scalar_type()), ".");
  STD_TORCH_CHECK(n >= 0 && k >= 0, function, ": out_features and in_features must not be negative, got ", n, " and ",
                  k, ".");
  Stored found{aligned(function, "values", values, values), aligned(function, "metadata", metadata, values), {}};
  found.weight.values = found.values.const_data_ptr();
  found.weight.metadata = static_cast<const uint32_t*>(found.metadata.const_data_ptr());
  found.weight.value_bytes = values.numel() * size_of(dtype);
  found.weight.metadata_words = metadata.numel();
  return found;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> compress(const Tensor& weight, std::optional<Tensor> mask, int64_t selection,
                                                    bool transposed) {
  constexpr const char* function = "semi_structured_compress";
  const DType dtype = matrix_type(function, "weight", weight);
  require_on_device(function, "weight", weight);
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
    require_beside(function, "mask", *mask, weight);
    STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool && mask->dim() == 2 && mask->size(0) == params.n &&
                        mask->size(1) == params.k && mask->is_contiguous(),
                    function, ": mask must be bool, contiguous and of the weight's shape (", params.n, ", ", params.k,
                    ").");
    params.mask = static_cast<const uint8_t*>(mask->const_data_ptr());
  }
  const Tensor dense = dense_rows(function, "weight", weight);
  params.dense = dense.const_data_ptr();
  params.row_stride = params.n > 1 ? row_stride(dense) : params.k;

  const int64_t element = size_of(dtype);
  const Shape shape = packed_shape(params.n, params.k, element);
  const Shape other = transposed ? packed_shape(params.k, params.n, element) : Shape{{0, 0, 0}, {0, 0, 0}};
  const auto packed = [&](const std::vector<int64_t>& sizes, ScalarType type) {
    return allocate(function, "the packed weight", weight, sizes, type);
  };
  Tensor values = packed(shape.values, weight.scalar_type());
  Tensor metadata = packed(shape.metadata, ScalarType::Int);
  Tensor values_t = packed(other.values, weight.scalar_type());
  Tensor metadata_t = packed(other.metadata, ScalarType::Int);
  params.values = values.mutable_data_ptr();
  params.metadata = static_cast<uint32_t*>(metadata.mutable_data_ptr());
  if (transposed) {
    params.values_t = values_t.mutable_data_ptr();
    params.metadata_t = static_cast<uint32_t*>(metadata_t.mutable_data_ptr());
  }
  const DeviceScope scope(weight);
  raise_unless_launched(semi_structured_compress(params, scope.stream()));
  return {values, metadata, values_t, metadata_t};
}

Tensor decompress(const Tensor& values, const Tensor& metadata, int64_t out_features, int64_t in_features) {
  constexpr const char* function = "semi_structured_decompress";
  const DType dtype = matrix_type(function, "values", values);
  const Stored packed = stored(function, values, metadata, out_features, in_features, dtype);
  Tensor dense = allocate(function, "the dense weight", values, {out_features, in_features}, values.scalar_type());
  const DeviceScope scope(values);
  raise_unless_launched(semi_structured_decompress(packed.weight, dtype, out_features, in_features,
                                                   dense.mutable_data_ptr(), in_features, scope.stream()));
  return dense;
}

Tensor validate(const Tensor& values, const Tensor& metadata, int64_t out_features, int64_t in_features) {
  constexpr const char* function = "semi_structured_validate";
  const DType dtype = matrix_type(function, "values", values);
  const Stored packed = stored(function, values, metadata, out_features, in_features, dtype);
  Tensor where = allocate(function, "the result", values, {1}, ScalarType::Long);
  const DeviceScope scope(values);
  raise_unless_launched(semi_structured_validate_device(packed.weight, dtype, out_features, in_features,
                                                        static_cast<int64_t*>(where.mutable_data_ptr()),
                                                        scope.stream()));
  return where;
}

Tensor product(const char* function, const Tensor& input, const Tensor& values, const Tensor& metadata,
               const LinearExtras& extras, int64_t out_features, int64_t activation, ScalarType out_dtype,
               int64_t group) {
  SemiStructuredMatmulParams params;
  STD_TORCH_CHECK(is_lift_group(group), function, ": group must be an even number from ", kSmallestLiftGroup, " to ",
                  kLargestLiftGroup, ", got ", group, ".");
  params.group = static_cast<int32_t>(group);
  STD_TORCH_CHECK(out_features >= 0, function, ": out_features must not be negative, got ", out_features, ".");
  DeviceSide side(function, &params, input, values, extras, out_features, activation, out_dtype);
  const Stored packed = stored(function, values, metadata, params.n, params.k, params.dtype);
  params.weight = packed.weight;
  side.add_workspace(function, &params,
                     semi_structured_matmul_workspace(params.m, params.n, params.k, params.dtype, params.group));
  const DeviceScope scope(input);
  raise_unless_launched(semi_structured_matmul(params, scope.stream()));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& metadata, std::optional<Tensor> scale,
              std::optional<Tensor> token_scale, std::optional<Tensor> bias, std::optional<Tensor> residual,
              int64_t out_features, int64_t activation, ScalarType out_dtype, std::optional<Tensor>,
              std::optional<Tensor>, int64_t group, int64_t) {
  return product("semi_structured_linear", input, values, metadata, {scale, token_scale, bias, residual}, out_features,
                 activation, out_dtype, group);
}

// weight is what values and metadata were packed from: the backward pass is about it.
Tensor masked_linear(const Tensor& input, const Tensor& weight, std::optional<Tensor> bias, const Tensor& values,
                     const Tensor& metadata, std::optional<Tensor>, std::optional<Tensor>, double) {
  constexpr const char* function = "semi_structured_masked_linear";
  STD_TORCH_CHECK(weight.dim() == 2, function, ": weight must be (out_features, in_features), got ", weight.dim(),
                  " dimensions.");
  return product(function, input, values, metadata, {std::nullopt, std::nullopt, bias, std::nullopt}, weight.size(0), 0,
                 input.scalar_type(), kSmallestLiftGroup);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) {
  m.impl("semi_structured_compress", TORCH_BOX(&compress));
  m.impl("semi_structured_decompress", TORCH_BOX(&decompress));
  m.impl("semi_structured_validate", TORCH_BOX(&validate));
  m.impl("semi_structured_linear", TORCH_BOX(&linear));
  m.impl("semi_structured_masked_linear", TORCH_BOX(&masked_linear));
}

}  // namespace sparsecore

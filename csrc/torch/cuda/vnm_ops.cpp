#include <torch/headeronly/util/Exception.h>

#include "sparsecore/vnm_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& metadata, const Tensor& columns,
              std::optional<Tensor> scale, std::optional<Tensor> token_scale, std::optional<Tensor> bias,
              std::optional<Tensor> residual, int64_t out_features, int64_t vector, int64_t activation,
              ScalarType out_dtype) {
  constexpr const char* function = "vnm_linear";
  VnmLinearParams params;
  DeviceSide side(function, &params, input, values, {scale, token_scale, bias, residual}, out_features, activation,
                  out_dtype);
  const Tensor weights = aligned(function, "values", values, input);
  const Tensor words = aligned(function, "metadata", metadata, input);
  STD_TORCH_CHECK(metadata.scalar_type() == ScalarType::Int && columns.scalar_type() == ScalarType::Short, function,
                  ": metadata must be int32 and columns int16, got ", type_name(metadata.scalar_type()), " and ",
                  type_name(columns.scalar_type()), ".");
  require_beside(function, "columns", columns, input);
  STD_TORCH_CHECK(vector == 16 || vector == 32 || vector == 64 || vector == 128, function,
                  ": vector must be 16, 32, 64 or 128, got ", vector, ".");
  STD_TORCH_CHECK(columns.dim() == 2 && columns.size(0) == (params.n + vector - 1) / vector && columns.is_contiguous(),
                  function, ": columns must be contiguous (", (params.n + vector - 1) / vector,
                  ", picked), a row for each ", vector, " of ", params.n, " output channels.");
  params.weight.packed.values = weights.const_data_ptr();
  params.weight.packed.metadata = static_cast<const uint32_t*>(words.const_data_ptr());
  params.weight.packed.value_bytes = values.numel() * size_of(params.dtype);
  params.weight.packed.metadata_words = metadata.numel();
  params.weight.columns = static_cast<const uint16_t*>(columns.const_data_ptr());
  params.weight.picked = columns.size(1);
  params.weight.vector = static_cast<int32_t>(vector);
  side.add_workspace(function, &params,
                     vnm_linear_workspace(params.m, params.n, params.k, params.weight.picked, params.weight.vector));
  const DeviceScope scope(input);
  raise_unless_launched(vnm_linear_device(params, scope.stream()));
  return side.output;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) { m.impl("vnm_linear", TORCH_BOX(&linear)); }

}  // namespace sparsecore

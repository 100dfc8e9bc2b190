#include <torch/headeronly/util/Exception.h>

#include "sparsecore/bitmap_decode_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
              int64_t compute) {
  constexpr const char* function = "bitmap_decode_linear";
  STD_TORCH_CHECK(compute == 0, function, ": on ", kDeviceName, " compute must be float32, got number ", compute, ".");
  STD_TORCH_CHECK(out_features >= 0, function, ": out_features must not be negative, got ", out_features, ".");
  const bool int8 = values.scalar_type() == ScalarType::Char;
  BitmapDecodeMatmulParams params;
  // Values of 8 bits become the input's type in the kernel.
  DeviceSide side(function, &params, input, int8 ? input : values, {scale, std::nullopt, bias, std::nullopt},
                  out_features, activation, input.scalar_type());
  params.weight_dtype = int8 ? DType::kInt8 : params.dtype;
  for (const auto& [name, tensor, type, dims] :
       {std::tuple{"values", &values, values.scalar_type(), 1}, std::tuple{"bitmap", &bitmap, ScalarType::Long, 2},
        std::tuple{"row_ptr", &row_ptr, ScalarType::Int, 1}}) {
    require_beside(function, name, *tensor, input);
    STD_TORCH_CHECK(tensor->scalar_type() == type && tensor->dim() == dims && tensor->is_contiguous(), function, ": ",
                    name, " must be contiguous, ", type_name(type), ", with ", dims, " dimension(s), got ",
                    type_name(tensor->scalar_type()), " with ", tensor->dim(), ".");
  }
  const int64_t words = (params.k + 63) / 64;
  STD_TORCH_CHECK(bitmap.size(0) == params.n && bitmap.size(1) == words, function, ": bitmap must be (", params.n, ", ",
                  words, "), got (", bitmap.size(0), ", ", bitmap.size(1), ").");
  STD_TORCH_CHECK(row_ptr.size(0) == params.n + 1, function, ": row_ptr must have ", params.n + 1, " entries, got ",
                  row_ptr.size(0), ".");
  params.weight.values = values.const_data_ptr();
  params.weight.bitmap = static_cast<const uint64_t*>(bitmap.const_data_ptr());
  params.weight.row_ptr = static_cast<const int32_t*>(row_ptr.const_data_ptr());
  params.weight.nnz = values.size(0);
  side.add_workspace(&params, bitmap_decode_matmul_workspace(params.m, params.n, params.k));
  const DeviceScope scope(input);
  raise_unless_launched(bitmap_decode_matmul(params, scope.stream()));
  return side.output;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) { m.impl("bitmap_decode_linear", TORCH_BOX(&linear)); }

}  // namespace sparsecore

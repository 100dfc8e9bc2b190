#include <torch/headeronly/util/Exception.h>

#include "sparsecore/semi_structured_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

// Rows of [.., columns], dense, and their stride.
struct Rows {
  Tensor tensor;
  int64_t count, columns, stride;
  Rows(const char* function, const char* name, const Tensor& given)
      : tensor(dense_rows(function, name, given)), count(leading_count(given)), columns(given.size(given.dim() - 1)) {
    stride = count > 1 ? row_stride(tensor) : columns;
  }
};

DType half_type(const char* function, const char* name, const Tensor& tensor) {
  const DType dtype = matrix_type(function, name, tensor);
  STD_TORCH_CHECK(size_of(dtype) == 2, function, ": ", name, " is ", type_name(tensor.scalar_type()),
                  "; gradients are bfloat16 or float16. Convert it first.");
  return dtype;
}

void require_tokens(const char* function, const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() >= 1, function, ": ", name, " must be (..., features), got a scalar.");
}

void require_metadata(const char* function, const Tensor& metadata, const Tensor& beside, int64_t n, int64_t k) {
  require_beside(function, "metadata", metadata, beside);
  STD_TORCH_CHECK(metadata.scalar_type() == ScalarType::Int && metadata.is_contiguous(), function,
                  ": metadata must be contiguous int32, got ", type_name(metadata.scalar_type()), ".");
  STD_TORCH_CHECK(metadata.dim() == 3 && metadata.size(0) == (n + 63) / 64 && metadata.size(1) == (k + 63) / 64 &&
                      metadata.size(2) == 128,
                  function, ": metadata of a weight of ", n, " x ", k, " has the shape (", (n + 63) / 64, ", ",
                  (k + 63) / 64, ", 128). It belongs to another weight.");
}

Tensor new_values(const char* function, const Tensor& like, const Tensor& metadata) {
  return allocate(function, "the packed values", like, {metadata.size(0), metadata.size(1), 2048}, like.scalar_type());
}

Tensor gather(const Tensor& dense, const Tensor& metadata) {
  constexpr const char* function = "semi_structured_gather";
  require_on_device(function, "dense", dense);
  SemiStructuredGatherParams params;
  params.dtype = half_type(function, "dense", dense);
  STD_TORCH_CHECK(dense.dim() == 2, function, ": dense must be (out_features, in_features), got ", dense.dim(),
                  " dimensions.");
  const Rows rows(function, "dense", dense);
  params.n = rows.count, params.k = rows.columns, params.row_stride = rows.stride;
  require_metadata(function, metadata, dense, params.n, params.k);
  Tensor values = new_values(function, dense, metadata);
  params.dense = rows.tensor.const_data_ptr();
  params.metadata = static_cast<const uint32_t*>(metadata.const_data_ptr());
  params.metadata_words = metadata.numel();
  params.values = values.mutable_data_ptr();
  const DeviceScope scope(dense);
  raise_unless_launched(semi_structured_gather(params, scope.stream()));
  return values;
}

Tensor sampled(const Tensor& grad, const Tensor& input, const Tensor& metadata) {
  constexpr const char* function = "semi_structured_sampled";
  require_on_device(function, "grad", grad);
  require_beside(function, "input", input, grad);
  require_tokens(function, "grad", grad);
  require_tokens(function, "input", input);
  SemiStructuredSampledParams params;
  params.dtype = half_type(function, "grad", grad);
  STD_TORCH_CHECK(grad.scalar_type() == input.scalar_type(), function, ": grad is ", type_name(grad.scalar_type()),
                  " and input ", type_name(input.scalar_type()), "; convert one of them.");
  const Rows grads(function, "grad", grad), inputs(function, "input", input);
  STD_TORCH_CHECK(grads.count == inputs.count, function, ": grad has ", grads.count, " tokens and input ", inputs.count,
                  ".");
  params.m = grads.count, params.n = grads.columns, params.k = inputs.columns;
  params.grad_row_stride = grads.stride, params.x_row_stride = inputs.stride;
  require_metadata(function, metadata, grad, params.n, params.k);
  Tensor values = new_values(function, grad, metadata);
  params.grad = grads.tensor.const_data_ptr();
  params.x = inputs.tensor.const_data_ptr();
  params.metadata = static_cast<const uint32_t*>(metadata.const_data_ptr());
  params.metadata_words = metadata.numel();
  params.values = values.mutable_data_ptr();
  const DeviceScope scope(grad);
  raise_unless_launched(semi_structured_sampled(params, scope.stream()));
  return values;
}

Tensor straight_through(const Tensor& grad, const Tensor& weight, const Tensor& values, const Tensor& metadata,
                        double decay) {
  constexpr const char* function = "semi_structured_straight_through";
  require_on_device(function, "grad", grad);
  require_beside(function, "weight", weight, grad);
  require_beside(function, "values", values, grad);
  SemiStructuredStraightThroughParams params;
  params.dtype = half_type(function, "grad", grad);
  STD_TORCH_CHECK(weight.scalar_type() == grad.scalar_type() && values.scalar_type() == grad.scalar_type(), function,
                  ": grad is ", type_name(grad.scalar_type()), ", weight ", type_name(weight.scalar_type()),
                  " and values ", type_name(values.scalar_type()), "; they must be of one type.");
  STD_TORCH_CHECK(
      grad.dim() == 2 && weight.dim() == 2 && grad.size(0) == weight.size(0) && grad.size(1) == weight.size(1),
      function, ": grad and weight must both be (out_features, in_features).");
  const Rows grads(function, "grad", grad), weights(function, "weight", weight);
  params.n = grads.count, params.k = grads.columns;
  require_metadata(function, metadata, grad, params.n, params.k);
  const Tensor stored = aligned(function, "values", values, grad),
               places = aligned(function, "metadata", metadata, grad);
  Tensor out = allocate(function, "the gradient", grad, {params.n, params.k}, grad.scalar_type());
  params.grad = grads.tensor.const_data_ptr();
  params.dense = weights.tensor.const_data_ptr();
  params.grad_row_stride = grads.stride, params.dense_row_stride = weights.stride, params.out_row_stride = params.k;
  params.weight.values = stored.const_data_ptr();
  params.weight.metadata = static_cast<const uint32_t*>(places.const_data_ptr());
  params.weight.value_bytes = values.numel() * 2;
  params.weight.metadata_words = metadata.numel();
  params.out = out.mutable_data_ptr();
  params.decay = static_cast<float>(decay);
  const DeviceScope scope(grad);
  raise_unless_launched(semi_structured_straight_through(params, scope.stream()));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) {
  m.impl("semi_structured_gather", TORCH_BOX(&gather));
  m.impl("semi_structured_sampled", TORCH_BOX(&sampled));
  m.impl("semi_structured_straight_through", TORCH_BOX(&straight_through));
}

}  // namespace sparsecore

#include <torch/headeronly/util/Exception.h>

#include "sparsecore/block_sparse_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

const int32_t* entries_of(const char* function, const char* name, const Tensor& tensor, const Tensor& beside,
                          int64_t entries) {
  require_vector(function, name, tensor, beside, entries);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Int, function, ": ", name, " must be int32, got ",
                  type_name(tensor.scalar_type()), ".");
  return static_cast<const int32_t*>(tensor.const_data_ptr());
}

int32_t require_size(const char* function, int64_t size) {
  STD_TORCH_CHECK(size == 16 || size == 32 || size == 64 || size == 128, function,
                  ": blocks must be 16, 32, 64 or 128 on a side, got ", size, ".");
  return static_cast<int32_t>(size);
}

// What no kernel has to be asked to see: sizes, types and devices of the arrays.
BlockSparse index_view(const char* function, const Tensor& beside, const Tensor& starts, const Tensor& index,
                       const std::optional<Tensor>& order, const std::optional<Tensor>& source, int64_t rows,
                       int64_t size) {
  BlockSparse weight;
  weight.size = require_size(function, size);
  require_beside(function, "the index", index, beside);
  STD_TORCH_CHECK(index.dim() == 1, function, ": the index must have one dimension.");
  weight.blocks = index.size(0);
  weight.index = entries_of(function, "the index", index, beside, weight.blocks);
  weight.starts = entries_of(function, "starts", starts, beside, ceil_div(rows, size) + 1);
  if (order) weight.order = entries_of(function, "order", *order, beside, ceil_div(rows, size));
  if (source) weight.source = entries_of(function, "source", *source, beside, weight.blocks);
  return weight;
}

// Contiguous values that begin at a multiple of 16 bytes, copied where they are not.
Tensor aligned_values(const char* function, const Tensor& values, const Tensor& index) {
  require_on_device(function, "values", values);
  STD_TORCH_CHECK(values.dim() == 3 && values.size(1) == values.size(2), function,
                  ": values must be (blocks, size, size).");
  require_size(function, values.size(1));
  STD_TORCH_CHECK(index.dim() == 1 && values.size(0) == index.size(0), function, ": values has ", values.size(0),
                  " blocks and the index ", index.dim() == 1 ? index.size(0) : -1, " entries.");
  return aligned(function, "values", contiguous(function, "values", values), values);
}

// A product with the weight or, given a source, with the transposed one.
Tensor run(const char* function, const Tensor& input, const Tensor& values, const Tensor& starts, const Tensor& index,
           const Tensor& order, const std::optional<Tensor>& source, const LinearExtras& extras, int64_t out_features,
           int64_t activation, ScalarType out_dtype) {
  STD_TORCH_CHECK(out_features >= 0, function, ": out_features must not be negative, got ", out_features, ".");
  const Tensor stored = aligned_values(function, values, index);
  BlockSparseParams params;
  DeviceSide side(function, &params, input, values, extras, out_features, activation, out_dtype);
  params.weight = index_view(function, input, starts, index, order, source, params.n, values.size(1));
  params.weight.values = stored.const_data_ptr();
  side.add_workspace(function, &params,
                     block_sparse_workspace(params.m, params.n, params.k, params.weight.blocks, params.weight.size));
  const DeviceScope scope(input);
  raise_unless_launched(block_sparse_linear(params, scope.stream()));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& crow_indices, const Tensor& col_indices,
              const Tensor& order, std::optional<Tensor> scale, std::optional<Tensor> token_scale,
              std::optional<Tensor> bias, std::optional<Tensor> residual, int64_t out_features, int64_t activation,
              ScalarType out_dtype, std::optional<Tensor>, std::optional<Tensor>, std::optional<Tensor>,
              std::optional<Tensor>) {
  return run("block_sparse_linear", input, values, crow_indices, col_indices, order, std::nullopt,
             {scale, token_scale, bias, residual}, out_features, activation, out_dtype);
}

Tensor input_grad(const Tensor& grad_output, const Tensor& values, const Tensor& ccol_indices,
                  const Tensor& row_indices, const Tensor& order, const Tensor& source, int64_t in_features) {
  return run("block_sparse_input_grad", grad_output, values, ccol_indices, row_indices, order, source, {}, in_features,
             0, grad_output.scalar_type());
}

Tensor weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& crow_indices,
                   const Tensor& col_indices, int64_t size, ScalarType out_dtype) {
  constexpr const char* function = "block_sparse_weight_grad";
  require_on_device(function, "grad_output", grad_output);
  require_beside(function, "input", input, grad_output);
  STD_TORCH_CHECK(grad_output.dim() >= 1 && input.dim() >= 1 && leading_count(grad_output) == leading_count(input),
                  function, ": grad_output and input must have the same leading dimensions.");
  STD_TORCH_CHECK(grad_output.scalar_type() == input.scalar_type(), function, ": grad_output is ",
                  type_name(grad_output.scalar_type()), " and input ", type_name(input.scalar_type()),
                  "; convert one of them.");
  const Tensor grad = dense_rows(function, "grad_output", grad_output), x = dense_rows(function, "input", input);
  BlockSparseGradParams params;
  params.dtype = matrix_type(function, "input", input);
  params.out_dtype = float_type(function, "out_dtype", out_dtype);
  params.m = leading_count(grad), params.n = grad.size(grad.dim() - 1), params.k = x.size(x.dim() - 1);
  params.weight = index_view(function, input, crow_indices, col_indices, std::nullopt, std::nullopt, params.n, size);
  params.grad_y = grad.const_data_ptr();
  params.x = x.const_data_ptr();
  params.grad_y_row_stride = params.m > 1 ? row_stride(grad) : params.n;
  params.x_row_stride = params.m > 1 ? row_stride(x) : params.k;
  Tensor out = allocate(function, "the gradient", input, {params.weight.blocks, size, size}, out_dtype);
  params.out = out.mutable_data_ptr();
  params.workspace_bytes = block_sparse_weight_grad_workspace(params.m, params.weight.blocks, params.weight.size);
  const Tensor workspace = allocate_workspace(function, input, params.workspace_bytes);
  params.workspace = workspace.mutable_data_ptr();
  const DeviceScope scope(input);
  raise_unless_launched(block_sparse_weight_grad(params, scope.stream()));
  return out;
}

Tensor validate(const Tensor& crow_indices, const Tensor& col_indices, const Tensor& order,
                std::optional<Tensor> ccol_indices, std::optional<Tensor> row_indices, std::optional<Tensor> order_t,
                std::optional<Tensor> source, int64_t out_features, int64_t in_features, int64_t size) {
  constexpr const char* function = "block_sparse_validate";
  STD_TORCH_CHECK(out_features >= 0 && in_features >= 0, function,
                  ": out_features and in_features must not be negative, got ", out_features, " and ", in_features, ".");
  require_on_device(function, "col_indices", col_indices);
  const BlockSparse weight =
      index_view(function, col_indices, crow_indices, col_indices, order, std::nullopt, out_features, size);
  BlockSparse transposed;
  const bool both = ccol_indices && row_indices && order_t && source;
  STD_TORCH_CHECK(both || !(ccol_indices || row_indices || order_t || source), function,
                  ": the transposed index is ccol_indices, row_indices, order_t and source, or none of them.");
  if (both)
    transposed = index_view(function, col_indices, *ccol_indices, *row_indices, order_t, source, in_features, size);
  Tensor where = allocate(function, "the result", col_indices, {2}, ScalarType::Long);
  const DeviceScope scope(col_indices);
  raise_unless_launched(block_sparse_validate(weight, both ? &transposed : nullptr, out_features, in_features,
                                              static_cast<int64_t*>(where.mutable_data_ptr()), scope.stream()));
  return where;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) {
  m.impl("block_sparse_linear", TORCH_BOX(&linear));
  m.impl("block_sparse_input_grad", TORCH_BOX(&input_grad));
  m.impl("block_sparse_weight_grad", TORCH_BOX(&weight_grad));
  m.impl("block_sparse_validate", TORCH_BOX(&validate));
}

}  // namespace sparsecore

#include <torch/headeronly/util/Exception.h>

#include "sparsecore/shared_lists_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

SharedLists view(const char* function, const Tensor& columns, const Tensor& group_ptr, int64_t vector, int64_t n,
                 const Tensor& beside) {
  require_vector(function, "columns", columns, beside, columns.numel());
  STD_TORCH_CHECK(columns.scalar_type() == ScalarType::Short, function, ": columns must be int16, got ",
                  type_name(columns.scalar_type()), ".");
  STD_TORCH_CHECK(vector > 0 && vector <= 64 && n >= 0, function, ": vector must be 4, 8, 16, 32 or 64, got ", vector,
                  ", and out_features at least 0, got ", n, ".");
  require_vector(function, "group_ptr", group_ptr, beside, (n + vector - 1) / vector + 1);
  STD_TORCH_CHECK(group_ptr.scalar_type() == ScalarType::Int, function, ": group_ptr must be int32, got ",
                  type_name(group_ptr.scalar_type()), ".");
  SharedLists lists;
  lists.columns = static_cast<const uint16_t*>(columns.const_data_ptr());
  lists.group_ptr = static_cast<const int32_t*>(group_ptr.const_data_ptr());
  lists.records = columns.size(0);
  lists.vector = static_cast<int32_t>(vector);
  return lists;
}

// (records, vector), or a copy of it where it does not begin at a multiple of 16 bytes.
Tensor checked_values(const char* function, const Tensor& values, const Tensor& columns) {
  STD_TORCH_CHECK(
      values.dim() == 2 && columns.dim() == 1 && values.size(0) == columns.size(0) && values.is_contiguous(), function,
      ": values must be contiguous (records, vector) with as many records as columns, ", columns.numel(), ".");
  return aligned(function, "values", values, values);
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& columns, const Tensor& group_ptr,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
              int64_t compute, std::optional<Tensor>, std::optional<Tensor>, std::optional<Tensor>) {
  constexpr const char* function = "shared_lists_linear";
  STD_TORCH_CHECK(values.scalar_type() == ScalarType::BFloat16 || values.scalar_type() == ScalarType::Half, function,
                  ": values are ", type_name(values.scalar_type()),
                  "; on a CUDA device there are kernels for bfloat16 and float16. Use torch.autocast, convert the "
                  "weight with .to(), or pack "
                  ".to_dense() of one with int8 values.");
  STD_TORCH_CHECK(compute != static_cast<int64_t>(Compute::kInt8), function,
                  ": compute='int8' needs int8 values, and a CUDA device has no kernel for these.");
  SharedListsLinearParams params;
  DeviceSide side(function, &params, input, values, {scale, std::nullopt, bias, std::nullopt}, out_features, activation,
                  input.scalar_type());
  const Tensor aligned = checked_values(function, values, columns);
  params.weight = view(function, columns, group_ptr, values.size(1), params.n, input);
  params.weight.values = aligned.const_data_ptr();
  side.add_workspace(
      function, &params,
      shared_lists_linear_workspace(params.m, params.n, params.k, params.weight.records, params.weight.vector));
  const DeviceScope scope(input);
  raise_unless_launched(shared_lists_linear_device(params, scope.stream()));
  return side.output;
}

Tensor weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& columns, const Tensor& group_ptr,
                   int64_t vector) {
  constexpr const char* function = "shared_lists_weight_grad";
  require_on_device(function, "input", input);
  require_beside(function, "grad_output", grad_output, input);
  STD_TORCH_CHECK(grad_output.dim() >= 1 && input.dim() >= 1 && leading_count(grad_output) == leading_count(input),
                  function, ": grad_output and input must have the same leading dimensions.");
  STD_TORCH_CHECK(grad_output.scalar_type() == input.scalar_type(), function,
                  ": grad_output and input must have the same type, got ", type_name(grad_output.scalar_type()),
                  " and ", type_name(input.scalar_type()), ".");
  const Tensor grads = dense_rows(function, "grad_output", grad_output), rows = dense_rows(function, "input", input);
  SharedListsWeightGradParams params;
  params.dtype = matrix_type(function, "input", input);
  params.m = leading_count(input);
  params.n = grad_output.size(grad_output.dim() - 1), params.k = input.size(input.dim() - 1);
  params.weight = view(function, columns, group_ptr, vector, params.n, input);
  params.grad_y = grads.const_data_ptr(), params.x = rows.const_data_ptr();
  params.grad_y_row_stride = params.m > 1 ? row_stride(grads) : params.n;
  params.x_row_stride = params.m > 1 ? row_stride(rows) : params.k;
  Tensor out = allocate(function, "the gradient", input, {params.weight.records, vector}, ScalarType::Float);
  params.out = static_cast<float*>(out.mutable_data_ptr());
  params.workspace_bytes = shared_lists_weight_grad_workspace(params.m, params.n, params.k);
  Tensor workspace = allocate_workspace(function, input, params.workspace_bytes);
  params.workspace = workspace.mutable_data_ptr();
  const DeviceScope scope(input);
  raise_unless_launched(shared_lists_weight_grad_device(params, scope.stream()));
  return out;
}

Tensor unpack(const Tensor& values, const Tensor& columns, const Tensor& group_ptr, int64_t n, int64_t k) {
  constexpr const char* function = "shared_lists_unpack";
  require_on_device(function, "values", values);
  const DType dtype = dtype_of(function, "values", values, true);
  const Tensor aligned = checked_values(function, values, columns);
  STD_TORCH_CHECK(k >= 0, function, ": in_features must not be negative, got ", k, ".");
  SharedLists lists = view(function, columns, group_ptr, values.size(1), n, values);
  lists.values = aligned.const_data_ptr();
  Tensor dense = allocate(function, "the dense weight", values, {n, k}, values.scalar_type());
  const DeviceScope scope(values);
  raise_unless_launched(shared_lists_unpack_device(lists, dtype, n, k, dense.mutable_data_ptr(), scope.stream()));
  return dense;
}

Tensor fault(const Tensor& columns, const Tensor& group_ptr, int64_t vector, int64_t n, int64_t k) {
  constexpr const char* function = "shared_lists_fault";
  require_on_device(function, "columns", columns);
  const SharedLists lists = view(function, columns, group_ptr, vector, n, columns);
  Tensor where = allocate(function, "the result", columns, {2}, ScalarType::Long);
  const DeviceScope scope(columns);
  raise_unless_launched(
      shared_lists_validate_device(lists, n, k, static_cast<int64_t*>(where.mutable_data_ptr()), scope.stream()));
  return where;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) {
  m.impl("shared_lists_linear", TORCH_BOX(&linear));
  m.impl("shared_lists_weight_grad", TORCH_BOX(&weight_grad));
  m.impl("shared_lists_unpack", TORCH_BOX(&unpack));
  m.impl("shared_lists_fault", TORCH_BOX(&fault));
}

}  // namespace sparsecore

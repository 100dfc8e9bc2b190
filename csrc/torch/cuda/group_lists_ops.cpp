#include <torch/headeronly/util/Exception.h>

#include "sparsecore/group_lists_cuda.h"
#include "torch/cuda/linear.h"

namespace sparsecore {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Every array has the type and the size that n x k, rows, cols, depth and window ask for.
GroupLists view(const char* function, const Tensor& index, const Tensor& order, const Tensor& starts, int64_t rows,
                int64_t cols, int64_t depth, int64_t window, int64_t n, int64_t k, const Tensor& beside) {
  const auto power = [](int64_t size) { return size >= 1 && size <= 32 && (size & (size - 1)) == 0; };
  STD_TORCH_CHECK(power(rows) && power(cols), function, ": rows and cols must be 1, 2, 4, 8, 16 or 32, got ", rows,
                  " and ", cols, ".");
  STD_TORCH_CHECK(depth >= 16 && depth <= 65536 && depth % 16 == 0 && depth % cols == 0, function,
                  ": depth must be a multiple of 16 and of cols from 16 to 65536, got ", depth, ".");
  STD_TORCH_CHECK(window >= 1 && window <= 256, function, ": window must be 1 to 256 groups, got ", window, ".");
  GroupLists lists;
  lists.rows = static_cast<int32_t>(rows), lists.cols = static_cast<int32_t>(cols);
  lists.depth = static_cast<int32_t>(depth), lists.window = static_cast<int32_t>(window);
  lists.records = index.numel() - 1;
  require_vector(function, "index", index, beside, lists.records + 1);
  const bool narrow = group_lists_index_bytes(lists.cols, lists.depth) == 1;
  STD_TORCH_CHECK(lists.records >= 0 && index.scalar_type() == (narrow ? ScalarType::Byte : ScalarType::Short),
                  function, ": index must be ", narrow ? "uint8" : "int16", " and have an entry at least, got ",
                  type_name(index.scalar_type()), ".");
  const int64_t panels = ceil_div(k, depth), groups = ceil_div(n, rows);
  const auto require_table = [&](const char* name, const Tensor& table, ScalarType type, int64_t columns) {
    require_beside(function, name, table, beside);
    STD_TORCH_CHECK(table.scalar_type() == type && table.dim() == 2 && table.size(0) == panels &&
                        table.size(1) == columns && table.is_contiguous(),
                    function, ": ", name, " must be contiguous ", type_name(type), " of shape (", panels, ", ", columns,
                    ") for ", n, " x ", k, " in groups of ", rows, " and panels of ", depth, ".");
  };
  require_table("order", order, ScalarType::Byte, groups);
  require_table("starts", starts, ScalarType::Int, groups + 1);
  lists.index = index.const_data_ptr();
  lists.order = static_cast<const uint8_t*>(order.const_data_ptr());
  lists.starts = static_cast<const int32_t*>(starts.const_data_ptr());
  return lists;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order, const Tensor& starts,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t depth,
              int64_t window, int64_t activation, int64_t compute, std::optional<Tensor>, std::optional<Tensor>,
              std::optional<Tensor>, std::optional<Tensor>) {
  constexpr const char* function = "group_lists_linear";
  STD_TORCH_CHECK(values.scalar_type() == ScalarType::BFloat16 || values.scalar_type() == ScalarType::Half, function,
                  ": values are ", type_name(values.scalar_type()),
                  "; on a CUDA device there are kernels for bfloat16 and float16. Use torch.autocast or convert the "
                  "weight with .to().");
  STD_TORCH_CHECK(compute != static_cast<int64_t>(Compute::kInt8), function,
                  ": compute='int8' needs int8 values, and a CUDA device has no kernel for these.");
  STD_TORCH_CHECK(out_features >= 0, function, ": out_features must not be negative, got ", out_features, ".");
  STD_TORCH_CHECK(values.dim() == 3 && values.size(0) == index.numel() && values.is_contiguous(), function,
                  ": values must be contiguous (", index.numel(), ", cols, rows), a record for each entry of index.");
  GroupListsParams params;
  DeviceSide side(function, &params, input, values, {scale, std::nullopt, bias, std::nullopt}, out_features, activation,
                  input.scalar_type());
  params.weight =
      view(function, index, order, starts, values.size(2), values.size(1), depth, window, params.n, params.k, input);
  params.weight.values = values.const_data_ptr();
  side.add_workspace(function, &params, group_lists_cuda_workspace(params.m, params.n, params.k, params.weight));
  const DeviceScope scope(input);
  raise_unless_launched(group_lists_cuda_linear(params, scope.stream()));
  return side.output;
}

Tensor weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& index, const Tensor& order,
                   const Tensor& starts, int64_t rows, int64_t cols, int64_t depth, int64_t window) {
  constexpr const char* function = "group_lists_weight_grad";
  require_on_device(function, "input", input);
  require_beside(function, "grad_output", grad_output, input);
  STD_TORCH_CHECK(grad_output.dim() >= 1 && input.dim() >= 1 && leading_count(grad_output) == leading_count(input),
                  function, ": grad_output and input must have the same leading dimensions.");
  STD_TORCH_CHECK(grad_output.scalar_type() == input.scalar_type(), function, ": grad_output is ",
                  type_name(grad_output.scalar_type()), " and input ", type_name(input.scalar_type()),
                  "; convert one of them.");
  const Tensor grad = dense_rows(function, "grad_output", grad_output), x = dense_rows(function, "input", input);
  GroupListsGradParams params;
  params.dtype = matrix_type(function, "input", input);
  params.m = leading_count(input);
  params.n = grad_output.size(grad_output.dim() - 1), params.k = input.size(input.dim() - 1);
  params.weight = view(function, index, order, starts, rows, cols, depth, window, params.n, params.k, input);
  params.grad_y = grad.const_data_ptr(), params.x = x.const_data_ptr();
  params.grad_y_row_stride = params.m > 1 ? row_stride(grad) : params.n;
  params.x_row_stride = params.m > 1 ? row_stride(x) : params.k;
  Tensor out = allocate(function, "the gradient", input, {params.weight.records + 1, cols, rows}, ScalarType::Float);
  params.out = static_cast<float*>(out.mutable_data_ptr());
  const DeviceScope scope(input);
  raise_unless_launched(group_lists_cuda_weight_grad(params, scope.stream()));
  return out;
}

Tensor fault(const Tensor& index, const Tensor& order, const Tensor& starts, int64_t rows, int64_t cols, int64_t n,
             int64_t k, int64_t depth, int64_t window) {
  constexpr const char* function = "group_lists_fault";
  require_on_device(function, "index", index);
  STD_TORCH_CHECK(n >= 0 && k >= 0, function, ": out_features and in_features must not be negative, got ", n, " and ",
                  k, ".");
  const GroupLists lists = view(function, index, order, starts, rows, cols, depth, window, n, k, index);
  Tensor where = allocate(function, "the result", index, {2}, ScalarType::Long);
  const DeviceScope scope(index);
  raise_unless_launched(
      group_lists_validate_device(lists, n, k, static_cast<int64_t*>(where.mutable_data_ptr()), scope.stream()));
  return where;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, SPARSECORE_DEVICE_KEY, m) {
  m.impl("group_lists_linear", TORCH_BOX(&linear));
  m.impl("group_lists_weight_grad", TORCH_BOX(&weight_grad));
  m.impl("group_lists_fault", TORCH_BOX(&fault));
}

}  // namespace sparsecore

#include <torch/headeronly/util/Exception.h>

#include "torch/group_lists_view.h"

namespace sparsecore {
namespace {

void require_pattern(const char* function, int64_t rows, int64_t cols, int64_t depth, int64_t window) {
  const auto power = [](int64_t size) { return size >= 1 && size <= 32 && (size & (size - 1)) == 0; };
  STD_TORCH_CHECK(power(rows) && power(cols), function, ": rows and cols must be 1, 2, 4, 8, 16 or 32, got ", rows,
                  " and ", cols, ".");
  STD_TORCH_CHECK(depth >= 16 && depth <= 65536 && depth % 16 == 0 && depth % cols == 0, function,
                  ": depth must be a multiple of 16 and of cols from 16 to 65536, got ", depth, ".");
  STD_TORCH_CHECK(window >= 1 && window <= 256, function, ": window must be 1 to 256 groups, got ", window, ".");
}

void require_size(const char* function, int64_t n, int64_t k) {
  STD_TORCH_CHECK(n >= 0 && k >= 0 && n <= INT32_MAX && k <= INT32_MAX, function,
                  ": the matrix must have 0 to 2^31 - 1 rows and columns, got ", n, " x ", k, ".");
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

ScalarType index_type(int64_t cols, int64_t depth) {
  const int64_t bytes = group_lists_index_bytes(static_cast<int32_t>(cols), static_cast<int32_t>(depth));
  return bytes == 1 ? ScalarType::Byte : ScalarType::Short;
}

// Where the structure of a packing of n x k with `records` records is written to.
struct Structure {
  Tensor index, order, starts;

  Structure(int64_t n, int64_t k, int64_t records, int64_t rows, int64_t cols, int64_t depth) {
    const int64_t groups = ceil_div(n, rows), panels = ceil_div(k, depth);
    index = empty({records + 1}, index_type(cols, depth));
    order = empty({panels, groups}, ScalarType::Byte);
    starts = empty({panels, groups + 1}, ScalarType::Int);
  }
  uint8_t* order_data() { return static_cast<uint8_t*>(order.mutable_data_ptr()); }
  int32_t* starts_data() { return static_cast<int32_t*>(starts.mutable_data_ptr()); }
};

Tensor run(const char* function, const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order,
           const Tensor& starts, const std::optional<Tensor>& scale, const std::optional<Tensor>& bias,
           int64_t out_features, int64_t depth, int64_t window, int64_t activation, int64_t compute,
           const std::optional<Tensor>& out) {
  DenseSide side = dense_side(function, input, values, scale, bias, out_features, activation, compute, out);
  const GroupLists lists =
      group_lists_view(function, values, index, order, starts, depth, window, side.io.n, side.io.k);
  raise_unless_ok(function, group_lists_linear(side.io, lists));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order, const Tensor& starts,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t depth,
              int64_t window, int64_t activation, int64_t compute, std::optional<Tensor>, std::optional<Tensor>,
              std::optional<Tensor>, std::optional<Tensor>) {
  return run("group_lists_linear", input, values, index, order, starts, scale, bias, out_features, depth, window,
             activation, compute, std::nullopt);
}

void linear_out(const Tensor& input, const Tensor& values, const Tensor& index, const Tensor& order,
                const Tensor& starts, std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features,
                int64_t depth, int64_t window, int64_t activation, int64_t compute, Tensor out) {
  run("group_lists_linear_out", input, values, index, order, starts, scale, bias, out_features, depth, window,
      activation, compute, out);
}

Tensor weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& index, const Tensor& order,
                   const Tensor& starts, int64_t rows, int64_t cols, int64_t depth, int64_t window) {
  constexpr const char* function = "group_lists_weight_grad";
  GradSide side = grad_side(function, grad_output, input);
  const GroupLists lists =
      group_lists_view(function, nullptr, index, order, starts, rows, cols, depth, window, side.io.n, side.io.k);
  Tensor out = empty({lists.records + 1, cols, rows}, ScalarType::Float);
  side.io.out = static_cast<float*>(out.mutable_data_ptr());
  raise_unless_ok(function, group_lists_weight_grad(side.io, lists));
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pack(const Tensor& weight, const Tensor& mask, int64_t rows, int64_t cols,
                                                int64_t depth, int64_t window) {
  constexpr const char* function = "group_lists_pack";
  const DType dtype = dtype_of(function, "weight", weight, true);
  require(function, "weight", weight, weight.scalar_type(), 2);
  require(function, "mask", mask, ScalarType::Bool, 2);
  require_pattern(function, rows, cols, depth, window);
  const int64_t n = weight.size(0), k = weight.size(1), groups = ceil_div(n, rows), blocks = ceil_div(k, cols);
  require_size(function, n, k);
  STD_TORCH_CHECK(mask.size(0) == groups && mask.size(1) == blocks, function, ": mask must be (", groups, ", ", blocks,
                  "), one entry for each block of ", rows, " x ", cols, ", got (", mask.size(0), ", ", mask.size(1),
                  ").");
  const uint8_t* kept = static_cast<const uint8_t*>(mask.const_data_ptr());
  const int64_t records = group_lists_count(kept, groups, blocks);
  Tensor values = empty({records + 1, cols, rows}, weight.scalar_type());
  Structure to(n, k, records, rows, cols, depth);
  raise_unless_ok(function, group_lists_pack(weight.const_data_ptr(), dtype, kept, n, k, static_cast<int32_t>(rows),
                                             static_cast<int32_t>(cols), static_cast<int32_t>(depth),
                                             static_cast<int32_t>(window), values.mutable_data_ptr(),
                                             to.index.mutable_data_ptr(), to.order_data(), to.starts_data()));
  return {values, to.index, to.order, to.starts};
}

std::tuple<int64_t, int64_t> validate(const Tensor& index, const Tensor& order, const Tensor& starts, int64_t rows,
                                      int64_t cols, int64_t n, int64_t k, int64_t depth, int64_t window) {
  const GroupLists lists =
      group_lists_view("group_lists_validate", nullptr, index, order, starts, rows, cols, depth, window, n, k);
  int64_t where = -1;
  const Status status = group_lists_validate(lists, n, k, &where);
  return {static_cast<int64_t>(status), where};
}

Tensor unpack(const Tensor& values, const Tensor& index, const Tensor& order, const Tensor& starts, int64_t n,
              int64_t k, int64_t depth, int64_t window) {
  constexpr const char* function = "group_lists_unpack";
  const DType dtype = dtype_of(function, "values", values, true);
  const GroupLists lists = group_lists_view(function, values, index, order, starts, depth, window, n, k);
  raise_unless_ok(function, group_lists_validate(lists, n, k, nullptr));
  Tensor dense = empty({n, k}, values.scalar_type());
  raise_unless_ok(function, group_lists_unpack(lists, dtype, n, k, dense.mutable_data_ptr()));
  return dense;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> transpose(const Tensor& index, const Tensor& order, const Tensor& starts,
                                                     int64_t rows, int64_t cols, int64_t n, int64_t k, int64_t depth,
                                                     int64_t window, int64_t depth_t, int64_t window_t) {
  constexpr const char* function = "group_lists_transpose";
  const GroupLists lists = group_lists_view(function, nullptr, index, order, starts, rows, cols, depth, window, n, k);
  require_pattern(function, cols, rows, depth_t, window_t);
  raise_unless_ok(function, group_lists_validate(lists, n, k, nullptr));
  Structure to(k, n, lists.records, cols, rows, depth_t);
  Tensor source = empty({lists.records}, ScalarType::Int);
  raise_unless_ok(function,
                  group_lists_transpose(lists, n, k, static_cast<int32_t>(depth_t), static_cast<int32_t>(window_t),
                                        to.index.mutable_data_ptr(), to.order_data(), to.starts_data(),
                                        static_cast<int32_t*>(source.mutable_data_ptr())));
  return {to.index, to.order, to.starts, source};
}

int64_t depth_for(int64_t rows, int64_t cols, int64_t k, double density) {
  require_pattern("group_lists_depth", rows, cols, 32, 1);
  return group_lists_depth(static_cast<int32_t>(rows), static_cast<int32_t>(cols), k, density);
}

int64_t window_for(int64_t rows, int64_t n) {
  require_pattern("group_lists_window", rows, 1, 32, 1);
  return group_lists_window(static_cast<int32_t>(rows), n);
}

}  // namespace

GroupLists group_lists_view(const char* function, const Tensor* values, const Tensor& index, const Tensor& order,
                            const Tensor& starts, int64_t rows, int64_t cols, int64_t depth, int64_t window, int64_t n,
                            int64_t k) {
  require_pattern(function, rows, cols, depth, window);
  require_size(function, n, k);
  require(function, "index", index, index_type(cols, depth), 1);
  require(function, "order", order, ScalarType::Byte, 2);
  require(function, "starts", starts, ScalarType::Int, 2);
  const int64_t groups = ceil_div(n, rows), panels = ceil_div(k, depth), records = index.size(0) - 1;
  STD_TORCH_CHECK(
      order.size(0) == panels && order.size(1) == groups && starts.size(0) == panels && starts.size(1) == groups + 1,
      function, ": order must be (", panels, ", ", groups, ") and starts (", panels, ", ", groups + 1, ") for ", n,
      " x ", k, " in groups of ", rows, " and panels of ", depth, ", got (", order.size(0), ", ", order.size(1),
      ") and (", starts.size(0), ", ", starts.size(1), ").");
  STD_TORCH_CHECK(records >= 0, function, ": index must have at least the entry of the padding record.");
  if (values)
    STD_TORCH_CHECK(
        values->dim() == 3 && values->size(0) == records + 1 && values->size(1) == cols && values->size(2) == rows,
        function, ": values must be (", records + 1, ", ", cols, ", ", rows, "), a record for each entry of index.");
  GroupLists lists;
  // where only the structure matters nothing reads the values, but a check wants them to be somewhere
  lists.values = values ? values->const_data_ptr() : index.const_data_ptr();
  lists.index = index.const_data_ptr();
  lists.order = static_cast<const uint8_t*>(order.const_data_ptr());
  lists.starts = static_cast<const int32_t*>(starts.const_data_ptr());
  lists.records = records;
  lists.rows = static_cast<int32_t>(rows);
  lists.cols = static_cast<int32_t>(cols);
  lists.depth = static_cast<int32_t>(depth);
  lists.window = static_cast<int32_t>(window);
  return lists;
}

GroupLists group_lists_view(const char* function, const Tensor& values, const Tensor& index, const Tensor& order,
                            const Tensor& starts, int64_t depth, int64_t window, int64_t n, int64_t k) {
  require(function, "values", values, values.scalar_type(), 3);
  return group_lists_view(function, &values, index, order, starts, values.size(2), values.size(1), depth, window, n, k);
}

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CompositeExplicitAutograd, m) {
  m.impl("group_lists_depth", TORCH_BOX(&depth_for));
  m.impl("group_lists_window", TORCH_BOX(&window_for));
}

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("group_lists_linear", TORCH_BOX(&linear));
  m.impl("group_lists_linear_out", TORCH_BOX(&linear_out));
  m.impl("group_lists_weight_grad", TORCH_BOX(&weight_grad));
  m.impl("group_lists_pack", TORCH_BOX(&pack));
  m.impl("group_lists_unpack", TORCH_BOX(&unpack));
  m.impl("group_lists_validate", TORCH_BOX(&validate));
  m.impl("group_lists_transpose", TORCH_BOX(&transpose));
}

}  // namespace sparsecore

#include <torch/headeronly/util/Exception.h>

#include "sparsecore/shared_lists.h"
#include "torch/tensors.h"

namespace sparsecore {
namespace {

SharedLists view(const char* function, const Tensor* values, const Tensor& columns, const Tensor& group_ptr,
                 int64_t vector, int64_t n) {
  require(function, "columns", columns, ScalarType::Short, 1);
  require(function, "group_ptr", group_ptr, ScalarType::Int, 1);
  STD_TORCH_CHECK(vector == 4 || vector == 8 || vector == 16 || vector == 32 || vector == 64, function,
                  ": vector must be 4, 8, 16, 32 or 64, got ", vector, ".");
  STD_TORCH_CHECK(group_ptr.size(0) == (n + vector - 1) / vector + 1, function, ": group_ptr must have ",
                  (n + vector - 1) / vector + 1, " entries for ", n, " output channels in groups of ", vector, ", got ",
                  group_ptr.size(0), ".");
  if (values)
    STD_TORCH_CHECK(values->dim() == 2 && values->size(0) == columns.size(0), function,
                    ": values must be (records, vector) with as many records as columns, ", columns.size(0), ".");
  SharedLists lists;
  // where only the structure matters nothing reads the values, but a check wants them to be somewhere
  lists.values = values ? values->const_data_ptr() : columns.const_data_ptr();
  lists.columns = static_cast<const uint16_t*>(columns.const_data_ptr());
  lists.group_ptr = static_cast<const int32_t*>(group_ptr.const_data_ptr());
  lists.records = columns.size(0);
  lists.vector = static_cast<int32_t>(vector);
  return lists;
}

int64_t vector_of(const char* function, const Tensor& values) {
  STD_TORCH_CHECK(values.dim() == 2, function, ": values must be (records, vector), got ", values.dim(),
                  " dimensions.");
  return values.size(1);
}

Tensor run(const char* function, const Tensor& input, const Tensor& values, const Tensor& columns,
           const Tensor& group_ptr, const std::optional<Tensor>& scale, const std::optional<Tensor>& bias,
           int64_t out_features, int64_t activation, int64_t compute, const std::optional<Tensor>& out) {
  DenseSide side = dense_side(function, input, values, scale, bias, out_features, activation, compute, out);
  const SharedLists lists = view(function, &values, columns, group_ptr, vector_of(function, values), side.io.n);
  raise_unless_ok(function, shared_lists_linear(side.io, lists));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& columns, const Tensor& group_ptr,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
              int64_t compute, std::optional<Tensor>, std::optional<Tensor>, std::optional<Tensor>) {
  return run("shared_lists_linear", input, values, columns, group_ptr, scale, bias, out_features, activation, compute,
             std::nullopt);
}

void linear_out(const Tensor& input, const Tensor& values, const Tensor& columns, const Tensor& group_ptr,
                std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
                int64_t compute, Tensor out) {
  run("shared_lists_linear_out", input, values, columns, group_ptr, scale, bias, out_features, activation, compute,
      out);
}

Tensor weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& columns, const Tensor& group_ptr,
                   int64_t vector) {
  constexpr const char* function = "shared_lists_weight_grad";
  GradSide side = grad_side(function, grad_output, input);
  const SharedLists lists = view(function, nullptr, columns, group_ptr, vector, side.io.n);
  Tensor out = empty({lists.records, vector}, ScalarType::Float);
  side.io.out = static_cast<float*>(out.mutable_data_ptr());
  raise_unless_ok(function, shared_lists_weight_grad(side.io, lists));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> pack(const Tensor& weight, const Tensor& mask, int64_t vector) {
  constexpr const char* function = "shared_lists_pack";
  const DType dtype = dtype_of(function, "weight", weight, true);
  require(function, "weight", weight, weight.scalar_type(), 2);
  require(function, "mask", mask, ScalarType::Bool, 2);
  STD_TORCH_CHECK(vector == 4 || vector == 8 || vector == 16 || vector == 32 || vector == 64, function,
                  ": vector must be 4, 8, 16, 32 or 64, got ", vector, ".");
  const int64_t n = weight.size(0), k = weight.size(1), groups = (n + vector - 1) / vector;
  STD_TORCH_CHECK(mask.size(0) == groups && mask.size(1) == k, function, ": mask must be (", groups, ", ", k,
                  "), one row for each group of ", vector, " output channels.");
  const uint8_t* kept = static_cast<const uint8_t*>(mask.const_data_ptr());
  const int64_t records = shared_lists_count(kept, groups, k);
  Tensor values = empty({records, vector}, weight.scalar_type()), columns = empty({records}, ScalarType::Short),
         group_ptr = empty({groups + 1}, ScalarType::Int);
  raise_unless_ok(function,
                  shared_lists_pack(weight.const_data_ptr(), dtype, kept, n, k, static_cast<int32_t>(vector),
                                    values.mutable_data_ptr(), static_cast<uint16_t*>(columns.mutable_data_ptr()),
                                    static_cast<int32_t*>(group_ptr.mutable_data_ptr())));
  return {values, columns, group_ptr};
}

std::tuple<int64_t, int64_t> validate(const Tensor& columns, const Tensor& group_ptr, int64_t vector, int64_t n,
                                      int64_t k) {
  const SharedLists lists = view("shared_lists_validate", nullptr, columns, group_ptr, vector, n);
  int64_t where = -1;
  const Status status = shared_lists_validate(lists, n, k, &where);
  return {static_cast<int64_t>(status), where};
}

Tensor unpack(const Tensor& values, const Tensor& columns, const Tensor& group_ptr, int64_t n, int64_t k) {
  constexpr const char* function = "shared_lists_unpack";
  const DType dtype = dtype_of(function, "values", values, true);
  require(function, "values", values, values.scalar_type(), 2);
  const SharedLists lists = view(function, &values, columns, group_ptr, values.size(1), n);
  raise_unless_ok(function, shared_lists_validate(lists, n, k, nullptr));
  Tensor dense = empty({n, k}, values.scalar_type());
  raise_unless_ok(function, shared_lists_unpack(lists, dtype, n, k, dense.mutable_data_ptr()));
  return dense;
}

std::tuple<Tensor, Tensor, Tensor> transpose(const Tensor& columns, const Tensor& group_ptr, int64_t vector, int64_t n,
                                             int64_t k, int64_t block_t) {
  constexpr const char* function = "shared_lists_transpose";
  const SharedLists lists = view(function, nullptr, columns, group_ptr, vector, n);
  STD_TORCH_CHECK(block_t >= 16 && block_t <= 256 && block_t % 16 == 0, function,
                  ": block_t must be a multiple of 16 from 16 to 256, got ", block_t, ".");
  raise_unless_ok(function, shared_lists_validate(lists, n, k, nullptr));
  const int64_t groups = group_ptr.size(0) - 1;
  int64_t elements = lists.records * vector;
  if (groups > 0) {  // the channels that only fill the last group are left out
    const int64_t last = lists.group_ptr[groups] - lists.group_ptr[groups - 1];
    elements -= last * (groups * vector - n);
  }
  Tensor offsets_t = empty({elements}, ScalarType::Byte),
         block_ptr_t = empty({(n + block_t - 1) / block_t, k + 1}, ScalarType::Int),
         order = empty({elements}, ScalarType::Int);
  raise_unless_ok(function, shared_lists_transpose(lists, n, k, static_cast<int32_t>(block_t),
                                                   static_cast<uint8_t*>(offsets_t.mutable_data_ptr()),
                                                   static_cast<int32_t*>(block_ptr_t.mutable_data_ptr()),
                                                   static_cast<int32_t*>(order.mutable_data_ptr())));
  return {offsets_t, block_ptr_t, order};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("shared_lists_linear", TORCH_BOX(&linear));
  m.impl("shared_lists_linear_out", TORCH_BOX(&linear_out));
  m.impl("shared_lists_weight_grad", TORCH_BOX(&weight_grad));
  m.impl("shared_lists_pack", TORCH_BOX(&pack));
  m.impl("shared_lists_unpack", TORCH_BOX(&unpack));
  m.impl("shared_lists_validate", TORCH_BOX(&validate));
  m.impl("shared_lists_transpose", TORCH_BOX(&transpose));
}

}  // namespace sparsecore

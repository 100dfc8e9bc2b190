#include <torch/headeronly/util/Exception.h>

#include "sparsecore/row_lists.h"
#include "torch/tensors.h"

namespace sparsecore {
namespace {

RowLists view(const char* function, const Tensor* values, const Tensor& offsets, const Tensor& block_ptr,
              int64_t block) {
  require(function, "offsets", offsets, ScalarType::Byte, 1);
  require(function, "block_ptr", block_ptr, ScalarType::Int, 2);
  STD_TORCH_CHECK(block >= 16 && block <= 256 && block % 16 == 0, function,
                  ": block must be a multiple of 16 from 16 to 256, got ", block, ".");
  if (values)
    STD_TORCH_CHECK(values->dim() == 1 && values->size(0) == offsets.size(0), function,
                    ": values and offsets must be one-dimensional and equally long, got ", values->numel(), " and ",
                    offsets.size(0), ".");
  RowLists lists;
  // where only the structure matters nothing reads the values, but a check wants them to be somewhere
  lists.values = values ? values->const_data_ptr() : offsets.const_data_ptr();
  lists.offsets = static_cast<const uint8_t*>(offsets.const_data_ptr());
  lists.block_ptr = static_cast<const int32_t*>(block_ptr.const_data_ptr());
  lists.nnz = offsets.size(0);
  lists.block = static_cast<int32_t>(block);
  return lists;
}

void require_pointers(const char* function, const Tensor& block_ptr, int64_t n, int64_t k, int64_t block) {
  const int64_t blocks = (k + block - 1) / block;
  STD_TORCH_CHECK(block_ptr.size(0) == blocks && block_ptr.size(1) == n + 1, function, ": block_ptr must be (", blocks,
                  ", ", n + 1, ") for ", n, " x ", k, " in blocks of ", block, ", got (", block_ptr.size(0), ", ",
                  block_ptr.size(1), ").");
}

Tensor run(const char* function, const Tensor& input, const Tensor& values, const Tensor& offsets,
           const Tensor& block_ptr, const std::optional<Tensor>& scale, const std::optional<Tensor>& bias,
           int64_t out_features, int64_t block, int64_t activation, int64_t compute, const std::optional<Tensor>& out) {
  DenseSide side = dense_side(function, input, values, scale, bias, out_features, activation, compute, out);
  const RowLists lists = view(function, &values, offsets, block_ptr, block);
  require_pointers(function, block_ptr, side.io.n, side.io.k, block);
  raise_unless_ok(function, row_lists_linear(side.io, lists));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& offsets, const Tensor& block_ptr,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t block,
              int64_t activation, int64_t compute, std::optional<Tensor>, std::optional<Tensor>,
              std::optional<Tensor>) {
  return run("row_lists_linear", input, values, offsets, block_ptr, scale, bias, out_features, block, activation,
             compute, std::nullopt);
}

void linear_out(const Tensor& input, const Tensor& values, const Tensor& offsets, const Tensor& block_ptr,
                std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t block,
                int64_t activation, int64_t compute, Tensor out) {
  run("row_lists_linear_out", input, values, offsets, block_ptr, scale, bias, out_features, block, activation, compute,
      out);
}

Tensor weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& offsets, const Tensor& block_ptr,
                   int64_t block) {
  constexpr const char* function = "row_lists_weight_grad";
  GradSide side = grad_side(function, grad_output, input);
  const RowLists lists = view(function, nullptr, offsets, block_ptr, block);
  require_pointers(function, block_ptr, side.io.n, side.io.k, block);
  Tensor out = empty({lists.nnz}, ScalarType::Float);
  side.io.out = static_cast<float*>(out.mutable_data_ptr());
  raise_unless_ok(function, row_lists_weight_grad(side.io, lists));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> pack(const Tensor& weight, const Tensor& mask, int64_t block) {
  constexpr const char* function = "row_lists_pack";
  const DType dtype = dtype_of(function, "weight", weight, true);
  require(function, "weight", weight, weight.scalar_type(), 2);
  require(function, "mask", mask, ScalarType::Bool, 2);
  const int64_t n = weight.size(0), k = weight.size(1);
  STD_TORCH_CHECK(mask.size(0) == n && mask.size(1) == k, function, ": mask must have the weight's shape.");
  STD_TORCH_CHECK(block >= 16 && block <= 256 && block % 16 == 0, function,
                  ": block must be a multiple of 16 from 16 to 256, got ", block, ".");
  const uint8_t* kept = static_cast<const uint8_t*>(mask.const_data_ptr());
  const int64_t nnz = row_lists_count(kept, n, k);
  Tensor values = empty({nnz}, weight.scalar_type()), offsets = empty({nnz}, ScalarType::Byte),
         block_ptr = empty({(k + block - 1) / block, n + 1}, ScalarType::Int);
  raise_unless_ok(function, row_lists_pack(weight.const_data_ptr(), dtype, kept, n, k, static_cast<int32_t>(block),
                                           values.mutable_data_ptr(), static_cast<uint8_t*>(offsets.mutable_data_ptr()),
                                           static_cast<int32_t*>(block_ptr.mutable_data_ptr())));
  return {values, offsets, block_ptr};
}

std::tuple<int64_t, int64_t> validate(const Tensor& offsets, const Tensor& block_ptr, int64_t n, int64_t k,
                                      int64_t block) {
  constexpr const char* function = "row_lists_validate";
  const RowLists lists = view(function, nullptr, offsets, block_ptr, block);
  require_pointers(function, block_ptr, n, k, block);
  int64_t where = -1;
  const Status status = row_lists_validate(lists, n, k, &where);
  return {static_cast<int64_t>(status), where};
}

Tensor unpack(const Tensor& values, const Tensor& offsets, const Tensor& block_ptr, int64_t n, int64_t k,
              int64_t block) {
  constexpr const char* function = "row_lists_unpack";
  const DType dtype = dtype_of(function, "values", values, true);
  require(function, "values", values, values.scalar_type(), 1);
  const RowLists lists = view(function, &values, offsets, block_ptr, block);
  require_pointers(function, block_ptr, n, k, block);
  raise_unless_ok(function, row_lists_validate(lists, n, k, nullptr));
  Tensor dense = empty({n, k}, values.scalar_type());
  raise_unless_ok(function, row_lists_unpack(lists, dtype, n, k, dense.mutable_data_ptr()));
  return dense;
}

std::tuple<Tensor, Tensor, Tensor> transpose(const Tensor& offsets, const Tensor& block_ptr, int64_t n, int64_t k,
                                             int64_t block, int64_t block_t) {
  constexpr const char* function = "row_lists_transpose";
  const RowLists lists = view(function, nullptr, offsets, block_ptr, block);
  require_pointers(function, block_ptr, n, k, block);
  STD_TORCH_CHECK(block_t >= 16 && block_t <= 256 && block_t % 16 == 0, function,
                  ": block_t must be a multiple of 16 from 16 to 256, got ", block_t, ".");
  raise_unless_ok(function, row_lists_validate(lists, n, k, nullptr));
  Tensor offsets_t = empty({lists.nnz}, ScalarType::Byte),
         block_ptr_t = empty({(n + block_t - 1) / block_t, k + 1}, ScalarType::Int),
         order = empty({lists.nnz}, ScalarType::Int);
  raise_unless_ok(function, row_lists_transpose(lists, n, k, static_cast<int32_t>(block_t),
                                                static_cast<uint8_t*>(offsets_t.mutable_data_ptr()),
                                                static_cast<int32_t*>(block_ptr_t.mutable_data_ptr()),
                                                static_cast<int32_t*>(order.mutable_data_ptr())));
  return {offsets_t, block_ptr_t, order};
}

int64_t block_for(double density) { return row_lists_block(density); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CompositeExplicitAutograd, m) {
  m.impl("row_lists_block", TORCH_BOX(&block_for));
}

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("row_lists_linear", TORCH_BOX(&linear));
  m.impl("row_lists_linear_out", TORCH_BOX(&linear_out));
  m.impl("row_lists_weight_grad", TORCH_BOX(&weight_grad));
  m.impl("row_lists_pack", TORCH_BOX(&pack));
  m.impl("row_lists_unpack", TORCH_BOX(&unpack));
  m.impl("row_lists_validate", TORCH_BOX(&validate));
  m.impl("row_lists_transpose", TORCH_BOX(&transpose));
}

}  // namespace sparsecore

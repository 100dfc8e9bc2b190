#include <torch/headeronly/util/Exception.h>

#include "sparsecore/variable_nm.h"
#include "torch/tensors.h"

namespace sparsecore {
namespace {

constexpr int64_t kBlock = 16;

void require_blocks(const char* function, int64_t out_features, int64_t in_features) {
  STD_TORCH_CHECK(out_features >= 0 && in_features >= 0 && out_features % kBlock == 0 && in_features % kBlock == 0,
                  function, ": needs multiples of 16 outputs and inputs, got ", out_features, " and ", in_features,
                  ". Pad the weight with zeros.");
}

const uint8_t* codes_of(const char* function, const Tensor& codes, int64_t out_features, int64_t in_features) {
  require_blocks(function, out_features, in_features);
  require(function, "codes", codes, ScalarType::Byte, 2);
  STD_TORCH_CHECK(codes.size(0) == out_features / kBlock && codes.size(1) == in_features / kBlock, function,
                  ": codes must be (", out_features / kBlock, ", ", in_features / kBlock, ") for ", out_features, " x ",
                  in_features, ", got (", codes.size(0), ", ", codes.size(1), ").");
  return static_cast<const uint8_t*>(codes.const_data_ptr());
}

// Elements of the value and the index array.
std::tuple<int64_t, int64_t> counts_of(const char* function, const uint8_t* codes, int64_t out_features,
                                       int64_t in_features) {
  int64_t values = 0, indices = 0;
  const Status status = variable_nm_count(codes, out_features, in_features, &values, &indices);
  STD_TORCH_CHECK(status != Status::kBadPattern, function, ": codes must be 0, 2, 4, 8 or 16.");
  raise_unless_ok(function, status);
  return {values, indices};
}

VariableNM view(const char* function, const Tensor& values, const Tensor& indices, const Tensor& codes,
                int64_t out_features, int64_t in_features) {
  VariableNM weight;
  weight.codes = codes_of(function, codes, out_features, in_features);
  require(function, "values", values, values.scalar_type(), 2);
  require(function, "indices", indices, ScalarType::Byte, 2);
  const auto [value_count, index_count] = counts_of(function, weight.codes, out_features, in_features);
  STD_TORCH_CHECK(values.size(1) == kBlock && values.numel() == value_count, function, ": values must be (",
                  value_count / kBlock, ", 16) for these codes, got (", values.size(0), ", ", values.size(1), ").");
  STD_TORCH_CHECK(indices.size(1) == kBlock && indices.numel() == index_count, function, ": indices must be (",
                  index_count / kBlock, ", 16) for these codes, got (", indices.size(0), ", ", indices.size(1), ").");
  weight.values = values.const_data_ptr();
  weight.indices = static_cast<const uint8_t*>(indices.const_data_ptr());
  weight.value_count = value_count;
  weight.index_count = index_count;
  weight.code_count = codes.numel();
  return weight;
}

Tensor run(const char* function, const Tensor& input, const Tensor& values, const Tensor& indices, const Tensor& codes,
           const std::optional<Tensor>& scale, const std::optional<Tensor>& bias, int64_t out_features,
           int64_t activation, int64_t compute, const std::optional<Tensor>& out) {
  DenseSide side = dense_side(function, input, values, scale, bias, out_features, activation, compute, out);
  const VariableNM weight = view(function, values, indices, codes, side.io.n, side.io.k);
  raise_unless_ok(function, variable_nm_linear(side.io, weight));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& indices, const Tensor& codes,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
              int64_t compute) {
  return run("variable_nm_linear", input, values, indices, codes, scale, bias, out_features, activation, compute,
             std::nullopt);
}

void linear_out(const Tensor& input, const Tensor& values, const Tensor& indices, const Tensor& codes,
                std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
                int64_t compute, Tensor out) {
  run("variable_nm_linear_out", input, values, indices, codes, scale, bias, out_features, activation, compute, out);
}

std::tuple<Tensor, Tensor> pack(const Tensor& weight, const Tensor& mask, const Tensor& codes) {
  constexpr const char* function = "variable_nm_pack";
  const DType dtype = dtype_of(function, "weight", weight, true);
  require(function, "weight", weight, weight.scalar_type(), 2);
  require(function, "mask", mask, ScalarType::Bool, 2);
  const int64_t n = weight.size(0), k = weight.size(1);
  STD_TORCH_CHECK(mask.size(0) == n && mask.size(1) == k, function, ": mask must have the weight's shape.");
  const uint8_t* kinds = codes_of(function, codes, n, k);
  const auto [value_count, index_count] = counts_of(function, kinds, n, k);
  Tensor values = empty({value_count / kBlock, kBlock}, weight.scalar_type()),
         indices = empty({index_count / kBlock, kBlock}, ScalarType::Byte);
  const Status status =
      variable_nm_pack(weight.const_data_ptr(), dtype, static_cast<const uint8_t*>(mask.const_data_ptr()), kinds, n, k,
                       values.mutable_data_ptr(), static_cast<uint8_t*>(indices.mutable_data_ptr()));
  STD_TORCH_CHECK(status == Status::kOk, function,
                  ": the mask keeps more of some 16 inputs than the code of their block says.");
  return {values, indices};
}

Tensor unpack(const Tensor& values, const Tensor& indices, const Tensor& codes, int64_t out_features,
              int64_t in_features) {
  constexpr const char* function = "variable_nm_unpack";
  const DType dtype = dtype_of(function, "values", values, true);
  const VariableNM weight = view(function, values, indices, codes, out_features, in_features);
  Tensor dense = empty({out_features, in_features}, values.scalar_type());
  raise_unless_ok(function, variable_nm_unpack(weight, dtype, out_features, in_features, dense.mutable_data_ptr()));
  return dense;
}

std::tuple<int64_t, int64_t> validate(const Tensor& values, const Tensor& indices, const Tensor& codes,
                                      int64_t out_features, int64_t in_features) {
  constexpr const char* function = "variable_nm_validate";
  const VariableNM weight = view(function, values, indices, codes, out_features, in_features);
  int64_t where = -1;
  const Status status = variable_nm_validate(weight, out_features, in_features, &where);
  return {static_cast<int64_t>(status), where};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("variable_nm_linear", TORCH_BOX(&linear));
  m.impl("variable_nm_linear_out", TORCH_BOX(&linear_out));
  m.impl("variable_nm_pack", TORCH_BOX(&pack));
  m.impl("variable_nm_unpack", TORCH_BOX(&unpack));
  m.impl("variable_nm_validate", TORCH_BOX(&validate));
}

}  // namespace sparsecore

#include <torch/headeronly/util/Exception.h>

#include "sparsecore/nm_decode.h"
#include "torch/tensors.h"

namespace sparsecore {
namespace {

struct Sizes {
  int64_t tiles, slots, words;
};

Sizes sizes_of(const char* function, int64_t out_features, int64_t in_features, int64_t n, int64_t m) {
  STD_TORCH_CHECK(n >= 1 && n < m && m <= 32, function, ": needs 1 <= n < m <= 32, got n=", n, ", m=", m, ".");
  int64_t bits = 1;
  while ((int64_t{1} << bits) < m) ++bits;
  const int64_t slots = (in_features + m - 1) / m * n, per_word = 32 / bits;
  return {(out_features + 15) / 16, slots, (slots + per_word - 1) / per_word};
}

NMDecode view(const char* function, const Tensor& values, const Tensor& codes, int64_t out_features,
              int64_t in_features, int64_t n, int64_t m) {
  const Sizes sizes = sizes_of(function, out_features, in_features, n, m);
  require(function, "values", values, values.scalar_type(), 3);
  require(function, "codes", codes, ScalarType::Int, 3);
  STD_TORCH_CHECK(values.size(0) == sizes.tiles && values.size(1) == sizes.slots && values.size(2) == 16, function,
                  ": values must be (", sizes.tiles, ", ", sizes.slots, ", 16) for ", out_features, " x ", in_features,
                  " at ", n, ":", m, ", got (", values.size(0), ", ", values.size(1), ", ", values.size(2), ").");
  STD_TORCH_CHECK(codes.size(0) == sizes.tiles && codes.size(1) == sizes.words && codes.size(2) == 16, function,
                  ": codes must be (", sizes.tiles, ", ", sizes.words, ", 16), got (", codes.size(0), ", ",
                  codes.size(1), ", ", codes.size(2), ").");
  NMDecode weight;
  weight.values = values.const_data_ptr();
  weight.codes = static_cast<const uint32_t*>(codes.const_data_ptr());
  weight.value_count = values.numel();
  weight.code_count = codes.numel();
  weight.n_kept = static_cast<int32_t>(n);
  weight.m = static_cast<int32_t>(m);
  return weight;
}

Tensor run(const char* function, const Tensor& input, const Tensor& values, const Tensor& codes,
           const std::optional<Tensor>& scale, const std::optional<Tensor>& bias, int64_t out_features, int64_t n,
           int64_t m, int64_t activation, int64_t compute, const std::optional<Tensor>& out) {
  DenseSide side = dense_side(function, input, values, scale, bias, out_features, activation, compute, out);
  const NMDecode weight = view(function, values, codes, side.io.n, side.io.k, n, m);
  raise_unless_ok(function, nm_decode_linear(side.io, weight));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& codes, std::optional<Tensor> scale,
              std::optional<Tensor> bias, int64_t out_features, int64_t n, int64_t m, int64_t activation,
              int64_t compute) {
  return run("nm_decode_linear", input, values, codes, scale, bias, out_features, n, m, activation, compute,
             std::nullopt);
}

void linear_out(const Tensor& input, const Tensor& values, const Tensor& codes, std::optional<Tensor> scale,
                std::optional<Tensor> bias, int64_t out_features, int64_t n, int64_t m, int64_t activation,
                int64_t compute, Tensor out) {
  run("nm_decode_linear_out", input, values, codes, scale, bias, out_features, n, m, activation, compute, out);
}

std::tuple<Tensor, Tensor> pack(const Tensor& weight, const Tensor& mask, int64_t n, int64_t m) {
  constexpr const char* function = "nm_decode_pack";
  const DType dtype = dtype_of(function, "weight", weight, true);
  require(function, "weight", weight, weight.scalar_type(), 2);
  require(function, "mask", mask, ScalarType::Bool, 2);
  STD_TORCH_CHECK(mask.size(0) == weight.size(0) && mask.size(1) == weight.size(1), function,
                  ": mask must have the weight's shape.");
  const Sizes sizes = sizes_of(function, weight.size(0), weight.size(1), n, m);
  Tensor values = empty({sizes.tiles, sizes.slots, 16}, weight.scalar_type()),
         codes = empty({sizes.tiles, sizes.words, 16}, ScalarType::Int);
  const Status status =
      nm_decode_pack(weight.const_data_ptr(), dtype, static_cast<const uint8_t*>(mask.const_data_ptr()), weight.size(0),
                     weight.size(1), static_cast<int32_t>(n), static_cast<int32_t>(m), values.mutable_data_ptr(),
                     static_cast<uint32_t*>(codes.mutable_data_ptr()));
  STD_TORCH_CHECK(status == Status::kOk, function, ": the mask keeps more than ", n, " of some ", m,
                  " columns. Select a mask for this pattern first.");
  return {values, codes};
}

Tensor unpack(const Tensor& values, const Tensor& codes, int64_t out_features, int64_t in_features, int64_t n,
              int64_t m) {
  constexpr const char* function = "nm_decode_unpack";
  const DType dtype = dtype_of(function, "values", values, true);
  const NMDecode weight = view(function, values, codes, out_features, in_features, n, m);
  raise_unless_ok(function, nm_decode_validate(weight, dtype, out_features, in_features, nullptr));
  Tensor dense = empty({out_features, in_features}, values.scalar_type());
  raise_unless_ok(function, nm_decode_unpack(weight, dtype, out_features, in_features, dense.mutable_data_ptr()));
  return dense;
}

std::tuple<int64_t, int64_t> validate(const Tensor& values, const Tensor& codes, int64_t out_features,
                                      int64_t in_features, int64_t n, int64_t m) {
  constexpr const char* function = "nm_decode_validate";
  const DType dtype = dtype_of(function, "values", values, true);
  const NMDecode weight = view(function, values, codes, out_features, in_features, n, m);
  int64_t where = -1;
  const Status status = nm_decode_validate(weight, dtype, out_features, in_features, &where);
  return {static_cast<int64_t>(status), where};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("nm_decode_linear", TORCH_BOX(&linear));
  m.impl("nm_decode_linear_out", TORCH_BOX(&linear_out));
  m.impl("nm_decode_pack", TORCH_BOX(&pack));
  m.impl("nm_decode_unpack", TORCH_BOX(&unpack));
  m.impl("nm_decode_validate", TORCH_BOX(&validate));
}

}  // namespace sparsecore

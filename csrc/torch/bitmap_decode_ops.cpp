#include <torch/headeronly/util/Exception.h>

#include "sparsecore/bitmap_decode.h"
#include "torch/tensors.h"

namespace sparsecore {
namespace {

BitmapDecode view(const char* function, const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr,
                  int64_t out_features, int64_t in_features) {
  require(function, "values", values, values.scalar_type(), 1);
  require(function, "bitmap", bitmap, ScalarType::Long, 2);
  require(function, "row_ptr", row_ptr, ScalarType::Int, 1);
  const int64_t words = (in_features + 63) / 64;
  STD_TORCH_CHECK(bitmap.size(0) == out_features && bitmap.size(1) == words, function, ": bitmap must be (",
                  out_features, ", ", words, "), got (", bitmap.size(0), ", ", bitmap.size(1), ").");
  STD_TORCH_CHECK(row_ptr.size(0) == out_features + 1, function, ": row_ptr must have ", out_features + 1,
                  " entries, got ", row_ptr.size(0), ".");
  BitmapDecode weight;
  weight.values = values.const_data_ptr();
  weight.bitmap = static_cast<const uint64_t*>(bitmap.const_data_ptr());
  weight.row_ptr = static_cast<const int32_t*>(row_ptr.const_data_ptr());
  weight.nnz = values.size(0);
  return weight;
}

Tensor run(const char* function, const Tensor& input, const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr,
           const std::optional<Tensor>& scale, const std::optional<Tensor>& bias, int64_t out_features,
           int64_t activation, int64_t compute, const std::optional<Tensor>& out) {
  DenseSide side = dense_side(function, input, values, scale, bias, out_features, activation, compute, out);
  const BitmapDecode weight = view(function, values, bitmap, row_ptr, side.io.n, side.io.k);
  raise_unless_ok(function, bitmap_decode_linear(side.io, weight));
  return side.output;
}

Tensor linear(const Tensor& input, const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr,
              std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
              int64_t compute) {
  return run("bitmap_decode_linear", input, values, bitmap, row_ptr, scale, bias, out_features, activation, compute,
             std::nullopt);
}

void linear_out(const Tensor& input, const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr,
                std::optional<Tensor> scale, std::optional<Tensor> bias, int64_t out_features, int64_t activation,
                int64_t compute, Tensor out) {
  run("bitmap_decode_linear_out", input, values, bitmap, row_ptr, scale, bias, out_features, activation, compute, out);
}

std::tuple<Tensor, Tensor, Tensor> pack(const Tensor& weight, const Tensor& mask) {
  constexpr const char* function = "bitmap_decode_pack";
  const DType dtype = dtype_of(function, "weight", weight, true);
  require(function, "weight", weight, weight.scalar_type(), 2);
  require(function, "mask", mask, ScalarType::Bool, 2);
  const int64_t n = weight.size(0), k = weight.size(1);
  STD_TORCH_CHECK(mask.size(0) == n && mask.size(1) == k, function, ": mask must have the weight's shape.");
  const uint8_t* kept = static_cast<const uint8_t*>(mask.const_data_ptr());
  Tensor values = empty({row_lists_count(kept, n, k)}, weight.scalar_type()),
         bitmap = empty({n, (k + 63) / 64}, ScalarType::Long), row_ptr = empty({n + 1}, ScalarType::Int);
  raise_unless_ok(function, bitmap_decode_pack(weight.const_data_ptr(), dtype, kept, n, k, values.mutable_data_ptr(),
                                               static_cast<uint64_t*>(bitmap.mutable_data_ptr()),
                                               static_cast<int32_t*>(row_ptr.mutable_data_ptr())));
  return {values, bitmap, row_ptr};
}

Tensor unpack(const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr, int64_t n, int64_t k) {
  constexpr const char* function = "bitmap_decode_unpack";
  const DType dtype = dtype_of(function, "values", values, true);
  const BitmapDecode weight = view(function, values, bitmap, row_ptr, n, k);
  raise_unless_ok(function, bitmap_decode_check(weight, n, k));
  Tensor dense = empty({n, k}, values.scalar_type());
  raise_unless_ok(function, bitmap_decode_unpack(weight, dtype, n, k, dense.mutable_data_ptr()));
  return dense;
}

Tensor gather(const Tensor& dense, const Tensor& bitmap, const Tensor& row_ptr, int64_t stored) {
  constexpr const char* function = "bitmap_decode_gather";
  const DType dtype = dtype_of(function, "dense", dense, true);
  require(function, "dense", dense, dense.scalar_type(), 2);
  STD_TORCH_CHECK(stored >= 0, function, ": stored must not be negative, got ", stored, ".");
  Tensor values = empty({stored}, dense.scalar_type());
  const BitmapDecode places = view(function, values, bitmap, row_ptr, dense.size(0), dense.size(1));
  raise_unless_ok(function, bitmap_decode_gather(places, dtype, dense.size(0), dense.size(1), dense.const_data_ptr(),
                                                 values.mutable_data_ptr()));
  return values;
}

int64_t validate(const Tensor& values, const Tensor& bitmap, const Tensor& row_ptr, int64_t n, int64_t k) {
  const BitmapDecode weight = view("bitmap_decode_validate", values, bitmap, row_ptr, n, k);
  return static_cast<int64_t>(bitmap_decode_check(weight, n, k));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sparsecore, CPU, m) {
  m.impl("bitmap_decode_linear", TORCH_BOX(&linear));
  m.impl("bitmap_decode_linear_out", TORCH_BOX(&linear_out));
  m.impl("bitmap_decode_pack", TORCH_BOX(&pack));
  m.impl("bitmap_decode_unpack", TORCH_BOX(&unpack));
  m.impl("bitmap_decode_gather", TORCH_BOX(&gather));
  m.impl("bitmap_decode_validate", TORCH_BOX(&validate));
}

}  // namespace sparsecore

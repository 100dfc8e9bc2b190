// dense -> bitmap layout and back, and the check that makes a foreign weight safe to run.
#include <bit>
#include <cstring>

#include "cpu/bitmap_decode/bitmap_decode.h"

namespace sparsecore {

Status bitmap_decode::check_starts(const BitmapDecode& weight, int64_t n, int64_t k) {
  if (n < 0 || k < 0 || n > INT32_MAX || k > INT32_MAX || weight.nnz < 0 || weight.nnz > INT32_MAX)
    return Status::kBadShape;
  if (!weight.row_ptr || (n > 0 && k > 0 && !weight.bitmap) || (weight.nnz > 0 && !weight.values))
    return Status::kNullPointer;
  if (weight.row_ptr[0] != 0 || weight.row_ptr[n] != weight.nnz) return Status::kBadPointers;
  for (int64_t row = 0; row < n; ++row)
    if (weight.row_ptr[row + 1] < weight.row_ptr[row]) return Status::kBadPointers;
  return Status::kOk;
}

Status bitmap_decode_check(const BitmapDecode& weight, int64_t n, int64_t k) {
  if (const Status status = bitmap_decode::check_starts(weight, n, k); status != Status::kOk) return status;
  const int64_t words = (k + 63) / 64;
  const uint64_t beyond = k % 64 ? ~uint64_t{0} << (k % 64) : 0;
  for (int64_t row = 0; row < n; ++row) {
    const uint64_t* bits = weight.bitmap + row * words;
    int64_t count = 0;
    for (int64_t w = 0; w < words; ++w) count += std::popcount(bits[w]);
    if (words && (bits[words - 1] & beyond)) return Status::kBadIndex;
    if (weight.row_ptr[row + 1] - weight.row_ptr[row] != count) return Status::kBadPointers;
  }
  return Status::kOk;
}

Status bitmap_decode_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k, void* values,
                          uint64_t* bitmap, int32_t* row_ptr) {
  if (n < 0 || k < 0) return Status::kBadShape;
  const int64_t words = (k + 63) / 64, bytes = size_of(dtype);
  if (n * words > 0) std::memset(bitmap, 0, n * words * sizeof(uint64_t));
  char* out = static_cast<char*>(values);
  int64_t total = 0;
  row_ptr[0] = 0;
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t column = 0; column < k; ++column) {
      if (!mask[row * k + column]) continue;
      bitmap[row * words + column / 64] |= uint64_t{1} << (column % 64);
      std::memcpy(out + total++ * bytes, static_cast<const char*>(dense) + (row * k + column) * bytes, bytes);
    }
    if (total > INT32_MAX) return Status::kBadShape;
    row_ptr[row + 1] = static_cast<int32_t>(total);
  }
  return Status::kOk;
}

Status bitmap_decode_unpack(const BitmapDecode& weight, DType dtype, int64_t n, int64_t k, void* dense) {
  if (const Status status = bitmap_decode_check(weight, n, k); status != Status::kOk) return status;
  const int64_t words = (k + 63) / 64, bytes = size_of(dtype);
  if (n * k > 0) std::memset(dense, 0, n * k * bytes);
  const char* value = static_cast<const char*>(weight.values);
  for (int64_t row = 0; row < n; ++row)
    for (int64_t w = 0; w < words; ++w)
      for (uint64_t bits = weight.bitmap[row * words + w]; bits; bits &= bits - 1, value += bytes)
        std::memcpy(static_cast<char*>(dense) + (row * k + 64 * w + std::countr_zero(bits)) * bytes, value, bytes);
  return Status::kOk;
}

Status bitmap_decode_gather(const BitmapDecode& weight, DType dtype, int64_t n, int64_t k, const void* dense,
                            void* values) {
  BitmapDecode places = weight;
  places.values = values;
  if (const Status status = bitmap_decode_check(places, n, k); status != Status::kOk) return status;
  if (n > 0 && k > 0 && !dense) return Status::kNullPointer;
  const int64_t words = (k + 63) / 64, bytes = size_of(dtype);
  char* value = static_cast<char*>(values);
  for (int64_t row = 0; row < n; ++row)
    for (int64_t w = 0; w < words; ++w)
      for (uint64_t bits = weight.bitmap[row * words + w]; bits; bits &= bits - 1, value += bytes)
        std::memcpy(value, static_cast<const char*>(dense) + (row * k + 64 * w + std::countr_zero(bits)) * bytes,
                    bytes);
  return Status::kOk;
}

}  // namespace sparsecore

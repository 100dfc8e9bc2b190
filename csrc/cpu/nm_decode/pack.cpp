// dense -> N:M decode layout and back, and the checks that make a foreign weight safe to run.
#include <cstring>

#include "cpu/nm_decode/nm_decode.h"

namespace sparsecore {
namespace nm_decode {

Layout layout_of(const NMDecode& weight, int64_t n, int64_t k) {
  Layout layout;
  layout.bits = 1;
  while ((1 << layout.bits) < weight.m) ++layout.bits;
  layout.per_word = 32 / layout.bits;
  layout.tiles = (n + kTile - 1) / kTile;
  layout.groups = (k + weight.m - 1) / weight.m;
  layout.slots = layout.groups * weight.n_kept;
  layout.words = (layout.slots + layout.per_word - 1) / layout.per_word;
  return layout;
}

}  // namespace nm_decode

using nm_decode::kTile;
using nm_decode::Layout;
using nm_decode::layout_of;

Status nm_decode_check(const NMDecode& weight, int64_t n, int64_t k) {
  if (n < 0 || k < 0 || n > INT32_MAX || k > INT32_MAX) return Status::kBadShape;
  if (weight.n_kept < 1 || weight.n_kept >= weight.m || weight.m > 32) return Status::kBadPattern;
  const Layout layout = layout_of(weight, n, k);
  if (weight.value_count != layout.tiles * layout.slots * kTile ||
      weight.code_count != layout.tiles * layout.words * kTile)
    return Status::kBadShape;
  if (weight.value_count > 0 && (!weight.values || !weight.codes)) return Status::kNullPointer;
  return Status::kOk;
}

namespace {

bool is_zero(const char* value, int64_t bytes) {
  for (int64_t i = 0; i < bytes; ++i)
    if (value[i]) return false;
  return true;
}

}  // namespace

Status nm_decode_validate(const NMDecode& weight, DType dtype, int64_t n, int64_t k, int64_t* where) {
  if (where) *where = -1;
  if (const Status status = nm_decode_check(weight, n, k); status != Status::kOk) return status;
  const Layout layout = layout_of(weight, n, k);
  const int64_t bytes = size_of(dtype);
  const uint32_t mask = (1u << layout.bits) - 1;
  for (int64_t tile = 0; tile < layout.tiles; ++tile)
    for (int64_t c = 0; c < kTile; ++c) {
      int64_t previous = -1;
      for (int64_t s = 0; s < layout.words * layout.per_word; ++s) {
        const uint32_t word = weight.codes[(tile * layout.words + s / layout.per_word) * kTile + c];
        const int64_t code = (word >> (layout.bits * (s % layout.per_word))) & mask;
        const auto offends = [&](Status status) {
          if (where) *where = (tile * layout.slots + s) * kTile + c;
          return status;
        };
        if (s >= layout.slots) {
          if (code) return offends(Status::kBadIndex);
          continue;
        }
        const char* value = static_cast<const char*>(weight.values) + ((tile * layout.slots + s) * kTile + c) * bytes;
        if (s % weight.n_kept == 0) previous = -1;
        if (code == 0 && previous >= 0) {  // an unused slot: those follow the used ones
          if (!is_zero(value, bytes)) return offends(Status::kUnsorted);
          previous = weight.m;
          continue;
        }
        if (previous == weight.m || code <= previous) return offends(Status::kUnsorted);
        if (code >= weight.m || s / weight.n_kept * weight.m + code >= k) return offends(Status::kBadIndex);
        if (tile * kTile + c >= n && !is_zero(value, bytes)) return offends(Status::kBadIndex);
        previous = code;
      }
    }
  return Status::kOk;
}

Status nm_decode_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k, int32_t n_kept,
                      int32_t m, void* values, uint32_t* codes) {
  NMDecode weight;
  weight.n_kept = n_kept;
  weight.m = m;
  if (n < 0 || k < 0) return Status::kBadShape;
  if (n_kept < 1 || n_kept >= m || m > 32) return Status::kBadPattern;
  const Layout layout = layout_of(weight, n, k);
  const int64_t bytes = size_of(dtype);
  std::memset(values, 0, layout.tiles * layout.slots * kTile * bytes);
  std::memset(codes, 0, layout.tiles * layout.words * kTile * sizeof(uint32_t));
  for (int64_t row = 0; row < n; ++row) {
    const int64_t tile = row / kTile, c = row % kTile;
    for (int64_t g = 0; g < layout.groups; ++g) {
      int64_t s = g * n_kept;
      for (int64_t column = g * m; column < k && column < (g + 1) * m; ++column) {
        if (!mask[row * k + column]) continue;
        if (s == (g + 1) * n_kept) return Status::kBadPattern;
        std::memcpy(static_cast<char*>(values) + ((tile * layout.slots + s) * kTile + c) * bytes,
                    static_cast<const char*>(dense) + (row * k + column) * bytes, bytes);
        codes[(tile * layout.words + s / layout.per_word) * kTile + c] |= static_cast<uint32_t>(column - g * m)
                                                                          << (layout.bits * (s % layout.per_word));
        ++s;
      }
    }
  }
  return Status::kOk;
}

Status nm_decode_unpack(const NMDecode& weight, DType dtype, int64_t n, int64_t k, void* dense) {
  if (const Status status = nm_decode_check(weight, n, k); status != Status::kOk) return status;
  const Layout layout = layout_of(weight, n, k);
  const int64_t bytes = size_of(dtype);
  const uint32_t mask = (1u << layout.bits) - 1;
  if (n * k > 0) std::memset(dense, 0, n * k * bytes);
  for (int64_t row = 0; row < n; ++row) {
    const int64_t tile = row / kTile, c = row % kTile;
    for (int64_t s = 0; s < layout.slots; ++s) {
      const uint32_t word = weight.codes[(tile * layout.words + s / layout.per_word) * kTile + c];
      const int64_t column = s / weight.n_kept * weight.m + ((word >> (layout.bits * (s % layout.per_word))) & mask);
      const char* value = static_cast<const char*>(weight.values) + ((tile * layout.slots + s) * kTile + c) * bytes;
      if (column < k && !is_zero(value, bytes))
        std::memcpy(static_cast<char*>(dense) + (row * k + column) * bytes, value, bytes);
    }
  }
  return Status::kOk;
}

}  // namespace sparsecore

// dense -> variable N:16 and back, and the checks that make a foreign weight safe to run.
#include <cstring>

#include "cpu/variable_nm/variable_nm.h"

namespace sparsecore {

using variable_nm::kBlock;
using variable_nm::kind_of;
using variable_nm::kKept;
using variable_nm::kKinds;

Status variable_nm_count(const uint8_t* codes, int64_t n, int64_t k, int64_t* values, int64_t* indices) {
  *values = *indices = 0;
  if (n < 0 || k < 0 || n > INT32_MAX || k > INT32_MAX || n % kBlock || k % kBlock) return Status::kBadShape;
  const int64_t rows = n / kBlock, blocks = k / kBlock;
  if (rows * blocks > 0 && !codes) return Status::kNullPointer;
  for (int64_t row = 0; row < rows; ++row) {
    const variable_nm::Sizes sizes = variable_nm::sizes_of(codes + row * blocks, blocks);
    if (!sizes.sound) return Status::kBadPattern;
    *values += sizes.slots * kBlock;
    *indices += sizes.pairs * kBlock;
  }
  return Status::kOk;
}

Status variable_nm_check(const VariableNM& weight, int64_t n, int64_t k) {
  if (n >= 0 && k >= 0 && weight.code_count != n / kBlock * (k / kBlock)) return Status::kBadShape;
  int64_t values = 0, indices = 0;
  if (const Status status = variable_nm_count(weight.codes, n, k, &values, &indices); status != Status::kOk)
    return status;
  if (weight.value_count != values || weight.index_count != indices) return Status::kBadShape;
  if ((values > 0 && !weight.values) || (indices > 0 && !weight.indices)) return Status::kNullPointer;
  return Status::kOk;
}

namespace {

// Calls body(row, column, kept, slot, pair) for every block, in the order of storage: its first output and input, its
// N, and its first slot and pair. Stops where body returns false.
template <typename Body>
void for_each_block(const uint8_t* codes, int64_t n, int64_t k, Body body) {
  int64_t slot = 0, pair = 0;
  for (int64_t row = 0; row < n; row += kBlock)
    for (int kind = 0; kind < kKinds; ++kind)
      for (int64_t column = 0; column < k; column += kBlock) {
        if (kind_of(codes[row / kBlock * (k / kBlock) + column / kBlock]) != kind) continue;
        if (!body(row, column, kKept[kind], slot, pair)) return;
        slot += kKept[kind];
        pair += kKept[kind] == kBlock ? 0 : kKept[kind] / 2;
      }
}

int place_of(const uint8_t* indices, int64_t pair, int kept, int s, int64_t c) {
  return kept == kBlock ? s : indices[(pair + s / 2) * kBlock + c] >> (4 * (s % 2)) & 15;
}

}  // namespace

Status variable_nm_validate(const VariableNM& weight, int64_t n, int64_t k, int64_t* where) {
  if (where) *where = -1;
  if (const Status status = variable_nm_check(weight, n, k); status != Status::kOk) return status;
  Status found = Status::kOk;
  for_each_block(weight.codes, n, k, [&](int64_t, int64_t, int kept, int64_t slot, int64_t pair) {
    for (int s = 1; s < kept; ++s)
      for (int64_t c = 0; c < kBlock; ++c)
        if (place_of(weight.indices, pair, kept, s, c) <= place_of(weight.indices, pair, kept, s - 1, c)) {
          if (where) *where = (slot + s) * kBlock + c;
          found = Status::kUnsorted;
          return false;
        }
    return true;
  });
  return found;
}

Status variable_nm_pack(const void* dense, DType dtype, const uint8_t* mask, const uint8_t* codes, int64_t n, int64_t k,
                        void* values, uint8_t* indices) {
  int64_t value_count = 0, index_count = 0;
  if (const Status status = variable_nm_count(codes, n, k, &value_count, &index_count); status != Status::kOk)
    return status;
  const int64_t bytes = size_of(dtype);
  if (value_count > 0) std::memset(values, 0, value_count * bytes);
  if (index_count > 0) std::memset(indices, 0, index_count);
  for (int64_t row = 0; row < n; row += kBlock)  // nothing may be kept in an empty block
    for (int64_t column = 0; column < k; ++column)
      for (int64_t c = 0; c < kBlock; ++c)
        if (mask[(row + c) * k + column] && codes[row / kBlock * (k / kBlock) + column / kBlock] == 0)
          return Status::kBadPattern;
  Status found = Status::kOk;
  for_each_block(codes, n, k, [&](int64_t row, int64_t column, int kept, int64_t slot, int64_t pair) {
    for (int64_t c = 0; c < kBlock; ++c) {
      const uint8_t* keeps = mask + (row + c) * k + column;
      int wanted = 0;
      for (int i = 0; i < kBlock; ++i) wanted += keeps[i] != 0;
      if (wanted > kept) {
        found = Status::kBadPattern;
        return false;
      }
      int s = 0, spare = kept - wanted;  // pruned weights that fill the row up
      for (int i = 0; i < kBlock; ++i) {
        if (!keeps[i] && spare == 0) continue;
        if (keeps[i]) {
          std::memcpy(static_cast<char*>(values) + ((slot + s) * kBlock + c) * bytes,
                      static_cast<const char*>(dense) + ((row + c) * k + column + i) * bytes, bytes);
        } else {
          --spare;
        }
        if (kept < kBlock) indices[(pair + s / 2) * kBlock + c] |= static_cast<uint8_t>(i << (4 * (s % 2)));
        ++s;
      }
    }
    return true;
  });
  return found;
}

Status variable_nm_unpack(const VariableNM& weight, DType dtype, int64_t n, int64_t k, void* dense) {
  if (const Status status = variable_nm_check(weight, n, k); status != Status::kOk) return status;
  const int64_t bytes = size_of(dtype);
  if (n * k > 0) std::memset(dense, 0, n * k * bytes);
  for_each_block(weight.codes, n, k, [&](int64_t row, int64_t column, int kept, int64_t slot, int64_t pair) {
    for (int s = 0; s < kept; ++s)
      for (int64_t c = 0; c < kBlock; ++c) {
        const int64_t to = (row + c) * k + column + place_of(weight.indices, pair, kept, s, c);
        std::memcpy(static_cast<char*>(dense) + to * bytes,
                    static_cast<const char*>(weight.values) + ((slot + s) * kBlock + c) * bytes, bytes);
      }
    return true;
  });
  return Status::kOk;
}

}  // namespace sparsecore

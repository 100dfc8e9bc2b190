// Dense -> row lists and back; checks. Portable and exact: only bytes are moved.
#include <algorithm>

#include "cpu/row_lists/row_lists.h"

namespace sparsecore {
namespace {

bool good_block(int32_t block) { return block >= 16 && block <= 256 && block % 16 == 0; }

bool good_shape(int64_t n, int64_t k) { return n >= 0 && n <= INT32_MAX && k >= 0 && k <= INT32_MAX; }

int64_t block_count(int64_t k, int32_t block) { return (k + block - 1) / block; }

template <typename T>
void pack_values(const T* dense, const uint8_t* mask, int64_t n, int64_t k, int32_t block, T* values, uint8_t* offsets,
                 int32_t* block_ptr) {
  int32_t count = 0;
  for (int64_t first = 0; first < k; first += block) {
    const int64_t end = std::min<int64_t>(first + block, k);
    for (int64_t o = 0; o < n; ++o) {
      *block_ptr++ = count;
      for (int64_t c = first; c < end; ++c) {
        if (!mask[o * k + c]) continue;
        values[count] = dense[o * k + c];
        offsets[count++] = static_cast<uint8_t>(c - first);
      }
    }
    *block_ptr++ = count;
  }
}

template <typename T>
void unpack_values(const RowLists& weight, int64_t n, int64_t k, T* dense) {
  std::fill(dense, dense + n * k, T{0});
  const T* values = static_cast<const T*>(weight.values);
  for (int64_t b = 0; b < block_count(k, weight.block); ++b) {
    const int32_t* starts = weight.block_ptr + b * (n + 1);
    for (int64_t o = 0; o < n; ++o)
      for (int64_t i = starts[o]; i < starts[o + 1]; ++i)
        dense[o * k + b * weight.block + weight.offsets[i]] = values[i];
  }
}

}  // namespace

namespace row_lists {

Status check_lists(const RowLists& weight, int64_t n, int64_t k) {
  if (!good_shape(n, k)) return Status::kBadShape;
  if (!good_block(weight.block)) return Status::kBadPattern;
  if (weight.nnz < 0 || weight.nnz > INT32_MAX) return Status::kBadPointers;
  const int64_t blocks = block_count(k, weight.block);
  if ((blocks && !weight.block_ptr) || (weight.nnz && (!weight.values || !weight.offsets))) return Status::kNullPointer;
  if (blocks == 0) return weight.nnz == 0 ? Status::kOk : Status::kBadPointers;
  if (weight.block_ptr[0] != 0) return Status::kBadPointers;
  for (int64_t b = 0; b < blocks; ++b) {
    const int32_t* starts = weight.block_ptr + b * (n + 1);
    const uint32_t columns = static_cast<uint32_t>(std::min<int64_t>(weight.block, k - b * weight.block));
    // The top bit of `offence`: a start below 0, a list of negative length or one longer than the block. Without
    // branches, so that compilers use vectors.
    uint32_t offence = 0;
    for (int64_t o = 0; o < n; ++o) {
      const uint32_t begin = static_cast<uint32_t>(starts[o]), length = static_cast<uint32_t>(starts[o + 1]) - begin;
      offence |= begin | length | (columns - length);
    }
    if (offence >> 31) return Status::kBadPointers;
    if (starts[n] != (b + 1 < blocks ? starts[n + 1] : weight.nnz)) return Status::kBadPointers;
  }
  return Status::kOk;
}

}  // namespace row_lists

Status row_lists_check(const RowLists& weight, int64_t n, int64_t k) { return row_lists::check_lists(weight, n, k); }

Status row_lists_validate(const RowLists& weight, int64_t n, int64_t k, int64_t* where) {
  if (where) *where = 0;
  const Status status = row_lists::check_lists(weight, n, k);
  if (status != Status::kOk) return status;
  for (int64_t b = 0; b < block_count(k, weight.block); ++b) {
    const int32_t* starts = weight.block_ptr + b * (n + 1);
    const int64_t columns = std::min<int64_t>(weight.block, k - b * weight.block);
    for (int64_t o = 0; o < n; ++o)
      for (int64_t i = starts[o]; i < starts[o + 1]; ++i) {
        if (where) *where = i;
        if (weight.offsets[i] >= columns) return Status::kBadIndex;
        if (i > starts[o] && weight.offsets[i] <= weight.offsets[i - 1]) return Status::kUnsorted;
      }
  }
  if (where) *where = 0;
  return Status::kOk;
}

int64_t row_lists_count(const uint8_t* mask, int64_t n, int64_t k) {
  int64_t count = 0;
  for (int64_t i = 0; i < n * k; ++i) count += mask[i] != 0;
  return count;
}

Status row_lists_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k, int32_t block,
                      void* values, uint8_t* offsets, int32_t* block_ptr) {
  if (!good_shape(n, k)) return Status::kBadShape;
  if (!good_block(block)) return Status::kBadPattern;
  if ((k > 0 && !block_ptr) || (n > 0 && k > 0 && (!dense || !mask))) return Status::kNullPointer;
  const int64_t count = row_lists_count(mask, n, k);
  if (count > INT32_MAX) return Status::kBadShape;
  if (count && (!values || !offsets)) return Status::kNullPointer;
  switch (size_of(dtype)) {
    case 1:
      pack_values(static_cast<const uint8_t*>(dense), mask, n, k, block, static_cast<uint8_t*>(values), offsets,
                  block_ptr);
      break;
    case 2:
      pack_values(static_cast<const uint16_t*>(dense), mask, n, k, block, static_cast<uint16_t*>(values), offsets,
                  block_ptr);
      break;
    default:
      pack_values(static_cast<const uint32_t*>(dense), mask, n, k, block, static_cast<uint32_t*>(values), offsets,
                  block_ptr);
  }
  return Status::kOk;
}

Status row_lists_unpack(const RowLists& weight, DType dtype, int64_t n, int64_t k, void* dense) {
  const Status status = row_lists_validate(weight, n, k, nullptr);
  if (status != Status::kOk || n == 0 || k == 0) return status;
  if (!dense) return Status::kNullPointer;
  switch (size_of(dtype)) {
    case 1: unpack_values(weight, n, k, static_cast<uint8_t*>(dense)); break;
    case 2: unpack_values(weight, n, k, static_cast<uint16_t*>(dense)); break;
    default: unpack_values(weight, n, k, static_cast<uint32_t*>(dense));
  }
  return Status::kOk;
}

// A counting sort by (block of channels, column). Channels are walked upwards, so that every list ascends.
Status row_lists_transpose(const RowLists& weight, int64_t n, int64_t k, int32_t block_t, uint8_t* offsets_t,
                           int32_t* block_ptr_t, int32_t* order) {
  RowLists lists = weight;
  if (!lists.values) lists.values = lists.offsets;  // only places are moved
  const Status status = row_lists_validate(lists, n, k, nullptr);
  if (status != Status::kOk) return status;
  if (!good_block(block_t)) return Status::kBadPattern;
  if ((n > 0 && !block_ptr_t) || (weight.nnz > 0 && (!offsets_t || !order))) return Status::kNullPointer;
  const int64_t blocks_t = block_count(n, block_t), width = k + 1;
  std::fill(block_ptr_t, block_ptr_t + blocks_t * width, 0);
  const auto walk = [&](auto&& visit) {
    for (int64_t b = 0; b < block_count(k, weight.block); ++b) {
      const int32_t* starts = weight.block_ptr + b * (n + 1);
      for (int64_t o = 0; o < n; ++o)
        for (int32_t i = starts[o]; i < starts[o + 1]; ++i)
          visit(i, o, block_ptr_t + o / block_t * width + b * weight.block + weight.offsets[i]);
    }
  };
  walk([](int32_t, int64_t, int32_t* counter) { ++*counter; });
  int32_t total = 0;
  for (int64_t b = 0; b < blocks_t; ++b)
    for (int64_t c = 0; c < width; ++c) {
      const int32_t count = block_ptr_t[b * width + c];
      block_ptr_t[b * width + c] = total;
      total += count;
    }
  walk([&](int32_t i, int64_t o, int32_t* cursor) {
    offsets_t[*cursor] = static_cast<uint8_t>(o % block_t);
    order[(*cursor)++] = i;
  });
  // Every cursor now stands where the next list starts.
  for (int64_t b = 0; b < blocks_t; ++b) {
    int32_t* starts = block_ptr_t + b * width;
    std::copy_backward(starts, starts + k, starts + width);
    starts[0] = b ? starts[-1] : 0;
  }
  return Status::kOk;
}

}  // namespace sparsecore

// Dense -> shared lists and back; checks. Portable and exact: only bytes are moved.
#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore {
namespace {

constexpr int64_t kMaxColumns = 65536;

bool good_vector(int32_t vector) { return vector == 4 || vector == 8 || vector == 16 || vector == 32 || vector == 64; }

int64_t group_count(int64_t n, int32_t vector) { return (n + vector - 1) / vector; }

bool good_shape(int64_t n, int64_t k) { return n >= 0 && n <= INT32_MAX && k >= 0 && k <= kMaxColumns; }

template <typename T>
void pack_values(const T* dense, const uint8_t* mask, int64_t n, int64_t k, int32_t vector, T* values,
                 uint16_t* columns, int32_t* group_ptr) {
  int64_t record = 0;
  group_ptr[0] = 0;
  for (int64_t g = 0; g < group_count(n, vector); ++g) {
    const int64_t channels = std::min<int64_t>(vector, n - g * vector);
    for (int64_t c = 0; c < k; ++c) {
      if (!mask[g * k + c]) continue;
      T* out = values + record * vector;
      for (int64_t v = 0; v < channels; ++v) out[v] = dense[(g * vector + v) * k + c];
      for (int64_t v = channels; v < vector; ++v) out[v] = 0;
      columns[record++] = static_cast<uint16_t>(c);
    }
    group_ptr[g + 1] = static_cast<int32_t>(record);
  }
}

template <typename T>
void unpack_values(const SharedLists& weight, int64_t n, int64_t k, T* dense) {
  std::fill(dense, dense + n * k, T{0});
  const T* values = static_cast<const T*>(weight.values);
  for (int64_t g = 0; g < group_count(n, weight.vector); ++g) {
    const int64_t channels = std::min<int64_t>(weight.vector, n - g * weight.vector);
    for (int64_t r = weight.group_ptr[g]; r < weight.group_ptr[g + 1]; ++r)
      for (int64_t v = 0; v < channels; ++v)
        dense[(g * weight.vector + v) * k + weight.columns[r]] = values[r * weight.vector + v];
  }
}

}  // namespace

namespace shared_lists {

Status check_lists(const SharedLists& weight, int64_t n, int64_t k) {
  if (!good_shape(n, k)) return Status::kBadShape;
  if (!good_vector(weight.vector)) return Status::kBadPattern;
  if (weight.records < 0 || weight.records > INT32_MAX) return Status::kBadPointers;
  if (!weight.group_ptr || (weight.records && (!weight.columns || !weight.values))) return Status::kNullPointer;
  const int64_t groups = group_count(n, weight.vector);
  if (weight.group_ptr[0] != 0 || weight.group_ptr[groups] != weight.records) return Status::kBadPointers;
  for (int64_t g = 0; g < groups; ++g)
    if (weight.group_ptr[g] > weight.group_ptr[g + 1]) return Status::kBadPointers;
  return Status::kOk;
}

bool columns_inside(const uint16_t* columns, int64_t count, int64_t k) {
  int outside = 0;
  for (int64_t i = 0; i < count; ++i) outside |= columns[i] >= k;
  return !outside;
}

}  // namespace shared_lists

Status shared_lists_check(const SharedLists& weight, int64_t n, int64_t k) {
  const Status status = shared_lists::check_lists(weight, n, k);
  if (status != Status::kOk) return status;
  return shared_lists::columns_inside(weight.columns, weight.records, k) ? Status::kOk : Status::kBadIndex;
}

Status shared_lists_validate(const SharedLists& weight, int64_t n, int64_t k, int64_t* where) {
  if (where) *where = 0;
  const Status status = shared_lists::check_lists(weight, n, k);
  if (status != Status::kOk) return status;
  for (int64_t g = 0; g < group_count(n, weight.vector); ++g)
    for (int64_t r = weight.group_ptr[g]; r < weight.group_ptr[g + 1]; ++r) {
      if (where) *where = r;
      if (weight.columns[r] >= k) return Status::kBadIndex;
      if (r > weight.group_ptr[g] && weight.columns[r] <= weight.columns[r - 1]) return Status::kUnsorted;
    }
  if (where) *where = 0;
  return Status::kOk;
}

int64_t shared_lists_count(const uint8_t* mask, int64_t groups, int64_t k) {
  int64_t count = 0;
  for (int64_t i = 0; i < groups * k; ++i) count += mask[i] != 0;
  return count;
}

Status shared_lists_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k, int32_t vector,
                         void* values, uint16_t* columns, int32_t* group_ptr) {
  if (!good_shape(n, k)) return Status::kBadShape;
  if (!good_vector(vector)) return Status::kBadPattern;
  if (!group_ptr || (n > 0 && k > 0 && (!dense || !mask))) return Status::kNullPointer;
  const int64_t count = shared_lists_count(mask, group_count(n, vector), k);
  if (count > INT32_MAX) return Status::kBadShape;
  if (count && (!values || !columns)) return Status::kNullPointer;
  switch (size_of(dtype)) {
    case 1:
      pack_values(static_cast<const uint8_t*>(dense), mask, n, k, vector, static_cast<uint8_t*>(values), columns,
                  group_ptr);
      break;
    case 2:
      pack_values(static_cast<const uint16_t*>(dense), mask, n, k, vector, static_cast<uint16_t*>(values), columns,
                  group_ptr);
      break;
    default:
      pack_values(static_cast<const uint32_t*>(dense), mask, n, k, vector, static_cast<uint32_t*>(values), columns,
                  group_ptr);
  }
  return Status::kOk;
}

Status shared_lists_unpack(const SharedLists& weight, DType dtype, int64_t n, int64_t k, void* dense) {
  const Status status = shared_lists_check(weight, n, k);
  if (status != Status::kOk) return status;
  if (n > 0 && k > 0 && !dense) return Status::kNullPointer;
  switch (size_of(dtype)) {
    case 1: unpack_values(weight, n, k, static_cast<uint8_t*>(dense)); break;
    case 2: unpack_values(weight, n, k, static_cast<uint16_t*>(dense)); break;
    default: unpack_values(weight, n, k, static_cast<uint32_t*>(dense));
  }
  return Status::kOk;
}

Status shared_lists_transpose(const SharedLists& weight, int64_t n, int64_t k, int32_t block_t, uint8_t* offsets_t,
                              int32_t* block_ptr_t, int32_t* order) {
  const Status status = shared_lists_check(weight, n, k);
  if (status != Status::kOk) return status;
  if (block_t < 16 || block_t > 256 || block_t % 16) return Status::kBadPattern;
  if (weight.records * weight.vector > INT32_MAX) return Status::kBadShape;
  const int64_t blocks = (n + block_t - 1) / block_t, groups = group_count(n, weight.vector);
  if (!blocks) return Status::kOk;  // block_ptr is [0, k + 1]
  if (!block_ptr_t || (weight.records && (!offsets_t || !order))) return Status::kNullPointer;

  // Two walks over all kept (channel, column) pairs, channels ascending: count, then place.
  const auto for_each_kept = [&](auto&& body) {
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t v = 0; v < weight.vector && g * weight.vector + v < n; ++v) {
        const int64_t channel = g * weight.vector + v;
        for (int64_t r = weight.group_ptr[g]; r < weight.group_ptr[g + 1]; ++r)
          body(channel, channel / block_t * (k + 1) + weight.columns[r], r * weight.vector + v);
      }
  };
  std::vector<int32_t> next(static_cast<size_t>(blocks * (k + 1)), 0);
  for_each_kept([&](int64_t, int64_t list, int64_t) { ++next[list]; });
  int32_t start = 0;
  for (int64_t i = 0; i < blocks * (k + 1); ++i) {
    const int32_t count = next[i];  // 0 at the end of a block's row
    block_ptr_t[i] = next[i] = start;
    start += count;
  }
  for_each_kept([&](int64_t channel, int64_t list, int64_t place) {
    offsets_t[next[list]] = static_cast<uint8_t>(channel % block_t);
    order[next[list]++] = static_cast<int32_t>(place);
  });
  return Status::kOk;
}

}  // namespace sparsecore

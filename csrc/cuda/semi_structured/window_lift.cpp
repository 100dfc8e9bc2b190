// dense -> lifted Sp24 and back, on the host: the specification of window_lift.h.
#include "sparsecore/window_lift.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace sparsecore {
namespace {

bool is_zero(const char* value, int64_t bytes) {
  return std::all_of(value, value + bytes, [](char byte) { return byte == 0; });
}

Status check(const void* dense, DType dtype, int64_t n, int64_t k, int32_t group) {
  if (!semi_structured_supports(dtype)) return Status::kUnsupportedDType;
  if (!is_lift_group(group)) return Status::kBadPattern;
  if (n < 0 || k < 0 || n > INT32_MAX || lifted_inputs(k, group) > INT32_MAX) return Status::kBadShape;
  return n > 0 && k > 0 && !dense ? Status::kNullPointer : Status::kOk;
}

}  // namespace

uint64_t lift_assign(uint64_t kept, int32_t group, uint8_t* taken) {
  uint64_t left = kept;
  for (int32_t window = 0; window < lift_windows(group); ++window) {
    unsigned place = 0, room = 2;
    for (int p = 0; p < 4 && room > 0; ++p)
      if (left >> (2 * window + p) & 1) {
        place |= 1u << p;
        left &= ~(uint64_t{1} << (2 * window + p));
        --room;
      }
    taken[window] = static_cast<uint8_t>(place);
  }
  return left;
}

Status window_lift_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k, int32_t group,
                        void* values, uint32_t* metadata) {
  if (const Status status = check(dense, dtype, n, k, group); status != Status::kOk) return status;
  const int64_t bytes = size_of(dtype), lifted_k = lifted_inputs(k, group), groups = (k + group - 1) / group;
  const char* from = static_cast<const char*>(dense);
  std::vector<char> lifted(n * lifted_k * bytes);
  std::vector<uint8_t> lifted_mask(n * lifted_k), taken(lift_windows(group));
  for (int64_t o = 0; o < n; ++o)
    for (int64_t g = 0; g < groups; ++g) {
      uint64_t kept = 0;
      for (int64_t i = 0; i < group && g * group + i < k; ++i) {
        const int64_t at = o * k + g * group + i;
        if (mask ? mask[at] != 0 : !is_zero(from + at * bytes, bytes)) kept |= uint64_t{1} << i;
      }
      if (lift_assign(kept, group, taken.data()) != 0) return Status::kBadPattern;
      for (int64_t w = 0; w < lift_windows(group); ++w)
        for (int64_t p = 0; p < 4; ++p)
          if (taken[w] >> p & 1) {
            const int64_t to = o * lifted_k + 4 * (g * lift_windows(group) + w) + p;
            lifted_mask[to] = 1;
            std::memcpy(lifted.data() + to * bytes, from + (o * k + g * group + 2 * w + p) * bytes, bytes);
          }
    }
  return semi_structured_pack(lifted.data(), dtype, lifted_mask.data(), n, lifted_k, values, metadata);
}

namespace {

// Calls visit(channel, lifted input, input, weight) for every stored weight that is not zero, in the order of lifted
// inputs; stops where it returns false.
template <class Visit>
Status visit_weights(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, int32_t group, Visit visit) {
  const int64_t bytes = size_of(dtype), lifted_k = lifted_inputs(k, group);
  std::vector<char> lifted(n * lifted_k * bytes);
  if (const Status status = semi_structured_unpack(weight, dtype, n, lifted_k, lifted.data()); status != Status::kOk)
    return status;
  for (int64_t o = 0; o < n; ++o)
    for (int64_t i = 0; i < lifted_k; ++i) {
      const char* from = lifted.data() + (o * lifted_k + i) * bytes;
      if (!is_zero(from, bytes) && !visit(o, i, lift_window_input(i / 4, group) + i % 4, from)) return Status::kOk;
    }
  return Status::kOk;
}

}  // namespace

Status window_lift_validate(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, int32_t group,
                            int64_t* where) {
  if (const Status status = check(&weight, dtype, n, k, group); status != Status::kOk) return status;
  const int64_t lifted_k = lifted_inputs(k, group);
  if (const Status status = semi_structured_validate(weight, dtype, n, lifted_k, where); status != Status::kOk)
    return status;
  std::vector<uint8_t> used(n * k);
  Status found = Status::kOk;
  const Status status =
      visit_weights(weight, dtype, n, k, group, [&](int64_t o, int64_t i, int64_t input, const char*) {
        found = input >= k ? Status::kBadIndex : used[o * k + input]++ ? Status::kUnsorted : Status::kOk;
        if (found != Status::kOk && where) *where = o * lifted_k + i;
        return found == Status::kOk;
      });
  return status == Status::kOk ? found : status;
}

Status window_lift_unpack(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, int32_t group, void* dense) {
  if (const Status status = check(dense, dtype, n, k, group); status != Status::kOk) return status;
  const int64_t bytes = size_of(dtype);
  if (n > 0 && k > 0) std::memset(dense, 0, n * k * bytes);
  return visit_weights(weight, dtype, n, k, group, [&](int64_t o, int64_t, int64_t input, const char* from) {
    if (input < k) std::memcpy(static_cast<char*>(dense) + (o * k + input) * bytes, from, bytes);
    return true;
  });
}

}  // namespace sparsecore

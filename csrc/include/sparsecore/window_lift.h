// (2N-2):2N weights as 2:4 ones: of every 2N neighbouring inputs at most 2N - 2 are kept, and N - 1 windows of four
// inputs, which begin at the even places of the group and overlap by two, hold two of them each.
//
//   group     2N inputs, 4 .. 64; 4 is 2:4 itself
//   window    W counts the windows of a row: window w < N - 1 of group G is W = (N - 1) G + w
//   lifted    inputs of the 2:4 weight, four for each window: 4W + p is input 2 (W + W / (N - 1)) + p, p < 4
//   lifted k  = 4 (N - 1) ceil(k / 2N), about 2 (N - 1) / N of k; what lies past k counts as zero
//
// Which window takes which input: from the first window on, each takes what its first two inputs still have to give,
// then of its last two as many as there is room for, the earlier first. Of a row that keeps no more than 2N - 2 of
// each group nothing is left over (docs/kernels/cuda_window_lift.md has the proof).
#pragma once

#include "sparsecore/semi_structured.h"

namespace sparsecore {

constexpr int32_t kSmallestLiftGroup = 4, kLargestLiftGroup = 64;

constexpr bool is_lift_group(int64_t group) {
  return group >= kSmallestLiftGroup && group <= kLargestLiftGroup && group % 2 == 0;
}
// Windows of one group.
constexpr int32_t lift_windows(int32_t group) { return group / 2 - 1; }
constexpr int64_t lifted_inputs(int64_t k, int32_t group) { return (k + group - 1) / group * lift_windows(group) * 4; }
// The first input of window W.
constexpr int64_t lift_window_input(int64_t window, int32_t group) {
  return 2 * (window + window / lift_windows(group));
}
// Of the kept inputs of a group (bit i: input i) those that each window takes, four bits each, to taken[N - 1].
// Returns what no window has room for: nothing, where no more than 2N - 2 are kept.
SPARSECORE_API uint64_t lift_assign(uint64_t kept, int32_t group, uint8_t* taken);

// `dense` [n, k] contiguous, mask as of semi_structured_pack, at most group - 2 of every group -> Sp24 of
// [n, lifted_inputs(k, group)].
SPARSECORE_API Status window_lift_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                       int32_t group, void* values, uint32_t* metadata);
// Ascending places as semi_structured_validate wants them, no input with a weight in two windows, and none past k.
// `where` (may be null) receives channel * lifted inputs + lifted input of what offends.
SPARSECORE_API Status window_lift_validate(const SemiStructured& weight, DType dtype, int64_t n, int64_t k,
                                           int32_t group, int64_t* where);
// `dense` [n, k] is overwritten, zeros included. The weight must be valid.
SPARSECORE_API Status window_lift_unpack(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, int32_t group,
                                         void* dense);

}  // namespace sparsecore

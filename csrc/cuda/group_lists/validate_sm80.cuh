// What group_lists_validate asks of group lists, on the device. Stages are met in the host's order: for every panel
// that its starts ascend, continue where the last panel's end and leave no list longer than the panel (2 p), and that
// order lies inside of its windows (2 p + 1); then for every panel that no place of a window has the group of another
// (2 panels + 2 p), and that indices lie inside of the weight and ascend in every list (2 panels + 2 p + 1); at last
// that the padding record is zero. Threads take every kValidateThreads-th start, place and record.
#pragma once

#include "cuda/group_lists/group_lists.h"
#include "cuda/linear/faults.cuh"

namespace sparsecore::group_lists_cuda {

struct ValidateArguments {
  Lists lists;
  int64_t k = 0;
  int64_t* where = nullptr;
};

namespace sm80 {

using cuda_linear::kValidateThreads;

// Budget of sm80::group_lists_validate: 64 registers.
static __global__ void __launch_bounds__(kValidateThreads) group_lists_validate(const ValidateArguments args) {
  const Lists& lists = args.lists;
  const GroupLists& w = lists.weight;
  const int64_t panels = lists.panels, groups = lists.groups, starts = panels * (groups + 1);
  const int64_t last_blocks = ceil_div(args.k - (panels - 1) * w.depth, w.cols);
  const auto blocks_of = [&](int64_t panel) { return panel < panels - 1 ? w.depth / w.cols : last_blocks; };
  cuda_linear::FirstFault faults;

  for (int64_t i = threadIdx.x; i < starts; i += kValidateThreads) {
    const int64_t panel = i / (groups + 1), place = i % (groups + 1), start = w.starts[i];
    const int64_t next = i + 1 < starts ? w.starts[i + 1] : w.records;
    // Behind the last start of a panel stands the first of the next.
    const int64_t longest = place < groups ? blocks_of(panel) : 0;
    if ((i == 0 && start != 0) || next < start || next - start > longest)
      faults.add(2 * panel, 0, Status::kBadPointers);
  }
  for (int64_t i = threadIdx.x; i < panels * groups; i += kValidateThreads) {
    const int64_t panel = i / groups, place = i % groups, first = place / w.window * w.window;
    const int64_t width = groups - first < w.window ? groups - first : w.window;
    const uint8_t* order = w.order + panel * groups;
    if (order[place] >= width) faults.add(2 * panel + 1, 0, Status::kBadIndex);
    bool taken = false;
    for (int64_t before = first; before < place; ++before) taken = taken || order[before] == order[place];
    if (taken) faults.add(2 * panels + 2 * panel, place, Status::kBadIndex);
  }
  const auto index = [&](int64_t record) -> int64_t {
    return lists.wide ? static_cast<const uint16_t*>(w.index)[record] : static_cast<const uint8_t*>(w.index)[record];
  };
  const int64_t of_last_panel = panels > 0 ? w.starts[(panels - 1) * (groups + 1)] : 0;
  for (int64_t r = threadIdx.x; panels > 0 && r < w.records; r += kValidateThreads) {
    const int64_t block = index(r);
    const bool outside = block >= (r < of_last_panel ? w.depth / w.cols : last_blocks);
    if (!outside && (r == 0 || index(r - 1) < block || cuda_linear::list_begins(w.starts, starts - 1, r))) continue;
    int64_t panel = 0, end = panels;
    while (end - panel > 1) {
      const int64_t middle = (panel + end) / 2;
      if (w.starts[middle * (groups + 1)] <= r) {
        panel = middle;
      } else {
        end = middle;
      }
    }
    faults.add(2 * panels + 2 * panel + 1, r, outside ? Status::kBadIndex : Status::kUnsorted);
  }
  if (threadIdx.x == 0) {
    if (panels == 0 && w.records != 0) faults.add(0, 0, Status::kBadPointers);
    if (panels > 0 && index(w.records) != 0) faults.add(4 * panels, w.records, Status::kBadIndex);
  }
  cuda_linear::write_first_fault(faults, ptx::smem(), args.where);
}

}  // namespace sm80
}  // namespace sparsecore::group_lists_cuda

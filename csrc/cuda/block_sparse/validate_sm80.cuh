// Every fact that an index has to satisfy, checked by one block of threads: each takes rows thread, thread + kThreads,
// .. and keeps the first fault it meets, as a number that sorts by fault and then by place; the smallest is the answer.
#pragma once

#include "cuda/block_sparse/index.cuh"
#include "cuda/linear/faults.cuh"

namespace sparsecore::block_sparse::sm80 {

using cuda_linear::kValidateThreads;

struct ValidateArguments {
  BlockSparse weight, transposed;
  int32_t rows, columns;
  bool has_transposed;
  int64_t* where;
};

// As cuda_linear::FirstFault, by kind and then by place.
struct FirstFault : cuda_linear::FirstFault {
  SC_DEVICE void add(BlockSparseFault kind, int64_t place) {
    cuda_linear::FirstFault::add(static_cast<int64_t>(kind) << 40 | place);
  }
};

// Starts, index and order of one row. Reads nothing outside of the arrays, whatever they hold.
SC_DEVICE void check_row(const BlockSparse& weight, int32_t rows, int32_t columns, int32_t row, BlockSparseFault starts,
                         BlockSparseFault index, BlockSparseFault order, FirstFault& faults) {
  const int32_t first = weight.starts[row], last = weight.starts[row + 1];
  if (first > last || (row == 0 && first != 0) || (row == rows - 1 && last != weight.blocks)) faults.add(starts, row);
  const Entries entries = entries_of(weight, row, 0, 1);
  for (int32_t j = entries.first; j < entries.last; ++j) {
    const int32_t column = inside_or_none(weight.index[j], columns);
    if (column < 0 || (j > entries.first && weight.index[j - 1] >= column)) faults.add(index, j);
  }
  const auto length = [&](int32_t r) {
    return static_cast<int64_t>(weight.starts[r + 1]) - static_cast<int64_t>(weight.starts[r]);
  };
  const int32_t here = inside_or_none(weight.order[row], rows);
  const int32_t before = row > 0 ? inside_or_none(weight.order[row - 1], rows) : -1;
  if (here < 0) {
    faults.add(order, row);
  } else if (before >= 0) {
    const int64_t longer = length(before) - length(here);
    if (longer < 0 || (longer == 0 && before >= here)) faults.add(order, row);
  }
}

// Budget of sm80::validate: 40 registers.
static __global__ void __launch_bounds__(kValidateThreads) validate(const ValidateArguments args) {
  FirstFault faults;
  const BlockSparse &weight = args.weight, &mirrored = args.transposed;
  for (int32_t row = threadIdx.x; row < args.rows; row += kValidateThreads)
    check_row(weight, args.rows, args.columns, row, BlockSparseFault::kStarts, BlockSparseFault::kIndex,
              BlockSparseFault::kOrder, faults);
  if (args.rows == 0 && threadIdx.x == 0 && (weight.starts[0] != 0 || weight.blocks != 0))
    faults.add(BlockSparseFault::kStarts, 0);
  if (args.has_transposed) {
    constexpr BlockSparseFault kKind = BlockSparseFault::kTransposed;
    for (int32_t row = threadIdx.x; row < args.columns; row += kValidateThreads) {
      check_row(mirrored, args.columns, args.rows, row, kKind, kKind, kKind, faults);
      const Entries entries = entries_of(mirrored, row, 0, 1);
      for (int32_t j = entries.first; j < entries.last; ++j) {
        const int32_t of_row = inside_or_none(mirrored.index[j], args.rows);
        const int32_t entry = inside_or_none(mirrored.source[j], weight.blocks);
        if (of_row < 0) continue;
        if (entry < weight.starts[of_row] || entry >= weight.starts[of_row + 1] || entry < 0 ||
            weight.index[entry] != row)
          faults.add(BlockSparseFault::kSource, j);
      }
    }
    if (args.columns == 0 && threadIdx.x == 0 && mirrored.starts[0] != 0) faults.add(kKind, 0);
  }

  const int64_t first = cuda_linear::smallest_of_block(faults.first, ptx::smem());
  if (threadIdx.x != 0) return;
  const bool none = first == cuda_linear::kNoFault;
  args.where[0] = none ? static_cast<int64_t>(BlockSparseFault::kNone) : first >> 40;
  args.where[1] = none ? -1 : first & ((int64_t{1} << 40) - 1);
}

}  // namespace sparsecore::block_sparse::sm80

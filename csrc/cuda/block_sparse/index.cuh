// Reading an index that nobody may have validated.
#pragma once

#include "cuda/block_sparse/block_sparse.h"

namespace sparsecore::block_sparse {

// Entries [first, last) of one split of a row of blocks: inside the index, whatever starts holds.
struct Entries {
  int32_t first, last;
};
SC_DEVICE Entries entries_of(const BlockSparse& weight, int64_t row, int split, int splits) {
  const int32_t blocks = static_cast<int32_t>(weight.blocks);
  const auto inside = [&](int32_t at) { return at < 0 ? 0 : at > blocks ? blocks : at; };
  const int32_t first = inside(weight.starts[row]), last = inside(weight.starts[row + 1]);
  const int64_t count = last > first ? last - first : 0;
  return {static_cast<int32_t>(first + count * split / splits),
          static_cast<int32_t>(first + count * (split + 1) / splits)};
}

// The row that an entry belongs to, some row where starts do not ascend.
SC_DEVICE int32_t row_of(const BlockSparse& weight, int32_t rows, int32_t entry) {
  int32_t low = 0, high = rows;  // starts[low] <= entry < starts[high]
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    if (weight.starts[middle] <= entry) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// A number below the limit, or a negative one for what is none.
SC_DEVICE int32_t inside_or_none(int32_t value, int64_t limit) { return value < limit ? value : -1; }

}  // namespace sparsecore::block_sparse

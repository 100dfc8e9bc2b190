// The portable driver: x widened once, block rows dealt to tasks by the slots they hold, up to eight tokens a pass.
#include <algorithm>

#include "cpu/epilogue/epilogue.h"
#include "cpu/variable_nm/variable_nm.h"
#include "cpu/widen_rows.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace variable_nm {
namespace {

// Where each block row begins, with one entry more for the end.
struct Starts {
  int64_t* slots;  // [rows + 1]
  int64_t* pairs;
};

bool find_starts(const uint8_t* codes, int64_t rows, int64_t blocks, Starts* starts) {
  starts->slots = static_cast<int64_t*>(scratch(Scratch::kWidened, 2 * (rows + 1) * sizeof(int64_t)));
  if (!starts->slots) return false;
  starts->pairs = starts->slots + rows + 1;
  starts->slots[0] = starts->pairs[0] = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const Sizes sizes = sizes_of(codes + row * blocks, blocks);
    starts->slots[row + 1] = starts->slots[row] + sizes.slots;
    starts->pairs[row + 1] = starts->pairs[row] + sizes.pairs;
  }
  return true;
}

// The blocks of each kind. Every block is written to the end of every list and stays in its own: what comes next cannot
// be predicted, and counts that lie in memory would have to be awaited.
void sort_blocks(const uint8_t* codes, int64_t blocks, int32_t* lists, Tile* tile) {
  int32_t* to[kKinds];
  for (int kind = 0; kind < kKinds; ++kind) tile->columns[kind] = to[kind] = lists + kind * blocks;
  int64_t counts[kKinds] = {};
  for (int64_t b = 0; b < blocks; ++b)
    for (int kind = 0; kind < kKinds; ++kind) {
      to[kind][counts[kind]] = static_cast<int32_t>(b);
      counts[kind] += codes[b] == kKept[kind];
    }
  std::copy(counts, counts + kKinds, tile->counts);
}

}  // namespace
}  // namespace variable_nm

Status variable_nm_linear(const LinearIo& io, const VariableNM& weight) {
  using namespace variable_nm;
  if (const Status status = check_io(io); status != Status::kOk) return status;
  if (const Status status = variable_nm_check(weight, io.n, io.k); status != Status::kOk) return status;
  if (io.compute == Compute::kInt8) return Status::kUnsupportedDType;
  if (io.m == 0 || io.n == 0) return Status::kOk;

  const Kernel& chosen = kernel();
  const TileFunction run = io.weight_dtype == DType::kFloat32    ? chosen.f32
                           : io.weight_dtype == DType::kBFloat16 ? chosen.bf16
                           : io.weight_dtype == DType::kFloat16  ? chosen.f16
                                                                 : chosen.i8;
  const epilogue::BlockFunction finish = epilogue::block_function();
  const int64_t block_rows = io.n / kBlock, blocks = io.k / kBlock,
                tokens_at_once = std::min<int64_t>(io.m, kMaxTokens);
  float* x = static_cast<float*>(scratch(Scratch::kPanel, std::max<int64_t>(tokens_at_once * io.k, 1) * sizeof(float)));
  Starts starts;
  if (!x || !find_starts(weight.codes, block_rows, blocks, &starts)) return Status::kOutOfMemory;

  const int64_t tasks = std::min<int64_t>(block_rows, int64_t{4} * num_threads());
  const int64_t value_bytes = kBlock * size_of(io.weight_dtype);
  // The block row at which a share of all work ends; a row counts for its slots and for one more, so that none is free.
  const auto boundary = [&](int64_t task) {
    const int64_t wanted = (starts.slots[block_rows] + block_rows) * task / tasks;
    int64_t low = 0, high = block_rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (starts.slots[middle] + middle < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  bool failed = false;
  for (int64_t first = 0; first < io.m; first += kMaxTokens) {
    const int64_t tokens = std::min<int64_t>(io.m - first, kMaxTokens);
    widen_rows(io, first, tokens, x, io.k);
    parallel_for_each(tasks, [&](int64_t task) {
      const int64_t begin = boundary(task), end = boundary(task + 1), width = (end - begin) * kBlock;
      if (begin == end) return;
      float* sums = static_cast<float*>(scratch(Scratch::kSums, tokens * width * sizeof(float)));
      int32_t* lists =
          static_cast<int32_t*>(scratch(Scratch::kCompressed, std::max<int64_t>(kKinds * blocks, 1) * sizeof(int32_t)));
      if (!sums || !lists) {
        failed = true;
        return;
      }
      for (int64_t row = begin; row < end; ++row) {
        Tile tile;
        sort_blocks(weight.codes + row * blocks, blocks, lists, &tile);
        tile.values = static_cast<const char*>(weight.values) + starts.slots[row] * value_bytes;
        tile.indices = weight.indices + starts.pairs[row] * kBlock;
        tile.x_stride = io.k;
        tile.sums_stride = width;
        for (int64_t t = 0; t < tokens;) {
          const int count = tokens - t >= 8 ? 8 : tokens - t >= 4 ? 4 : tokens - t >= 2 ? 2 : 1;
          tile.x = x + t * io.k;
          tile.sums = sums + t * width + (row - begin) * kBlock;
          run(tile, count);
          t += count;
        }
      }
      epilogue::Block block = epilogue::block_of(io, first, tokens, begin * kBlock, end * kBlock);
      block.sums = sums;
      block.sums_stride = width;
      finish(block);
    });
  }
  return failed ? Status::kOutOfMemory : Status::kOk;
}

}  // namespace sparsecore

// The portable driver: x widened once into padded rows, then runs of tiles as tasks, up to eight tokens a pass.
#include <algorithm>

#include "cpu/epilogue/epilogue.h"
#include "cpu/nm_decode/nm_decode.h"
#include "cpu/widen_rows.h"
#include "sparsecore/parallel.h"

namespace sparsecore {

Status nm_decode_linear(const LinearIo& io, const NMDecode& weight) {
  using namespace nm_decode;
  if (const Status status = check_io(io); status != Status::kOk) return status;
  if (const Status status = nm_decode_check(weight, io.n, io.k); status != Status::kOk) return status;
  if (io.compute == Compute::kInt8) return Status::kUnsupportedDType;
  if (io.m == 0 || io.n == 0) return Status::kOk;

  const Layout layout = layout_of(weight, io.n, io.k);
  const Kernel& chosen = kernel();
  const TileFunction run = io.weight_dtype == DType::kFloat32    ? chosen.f32
                           : io.weight_dtype == DType::kBFloat16 ? chosen.bf16
                           : io.weight_dtype == DType::kFloat16  ? chosen.f16
                                                                 : chosen.i8;
  const epilogue::BlockFunction finish = epilogue::block_function();
  const int64_t x_stride = layout.groups * weight.m + kWindow, rows = std::min<int64_t>(io.m, kMaxTokens);
  float* x = static_cast<float*>(scratch(Scratch::kPanel, rows * x_stride * sizeof(float)));
  if (!x) return Status::kOutOfMemory;

  const int64_t value_bytes = layout.slots * kTile * size_of(io.weight_dtype), code_words = layout.words * kTile;
  const int64_t tasks = std::min<int64_t>(layout.tiles, int64_t{4} * num_threads());
  bool failed = false;
  for (int64_t first = 0; first < io.m; first += kMaxTokens) {
    const int64_t tokens = std::min<int64_t>(io.m - first, kMaxTokens);
    widen_rows(io, first, tokens, x, x_stride);
    parallel_for_each(tasks, [&](int64_t task) {
      const int64_t begin = layout.tiles * task / tasks, end = layout.tiles * (task + 1) / tasks;
      const int64_t width = (end - begin) * kTile;
      float* sums = static_cast<float*>(scratch(Scratch::kSums, tokens * width * sizeof(float)));
      if (!sums) {
        failed = true;
        return;
      }
      for (int64_t i = begin; i < end; ++i) {
        Tile tile;
        tile.values = static_cast<const char*>(weight.values) + i * value_bytes;
        tile.codes = weight.codes + i * code_words;
        tile.x_stride = x_stride;
        tile.groups = layout.groups;
        tile.n_kept = weight.n_kept;
        tile.m = weight.m;
        tile.bits = layout.bits;
        tile.per_word = layout.per_word;
        tile.sums_stride = width;
        for (int64_t t = 0; t < tokens;) {
          const int count = tokens - t >= 8 ? 8 : tokens - t >= 4 ? 4 : tokens - t >= 2 ? 2 : 1;
          tile.x = x + t * x_stride;
          tile.sums = sums + t * width + (i - begin) * kTile;
          run(tile, count);
          t += count;
        }
      }
      epilogue::Block block =
          epilogue::block_of(io, first, tokens, begin * kTile, std::min<int64_t>(io.n, end * kTile));
      block.sums = sums;
      block.sums_stride = width;
      finish(block);
    });
  }
  return failed ? Status::kOutOfMemory : Status::kOk;
}

}  // namespace sparsecore

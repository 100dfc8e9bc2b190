// xt[i, t] = x[t, i] for 16-bit elements; tokens from m to the pitch become zero.
//
// A block takes 64 tokens x 64 inputs: rows of x into shared memory, transposed by ldmatrix into a second tile, and
// rows of xt out of that. Both tiles are rows of 128 bytes, swizzled; global memory sees 128 neighbouring bytes at a
// time.
#pragma once

#include "cuda/common/ldmatrix.h"
#include "cuda/gathered/tiles.cuh"

namespace sparsecore::gathered::sm80 {

constexpr int kTransposeSide = 64;
constexpr int kTransposeTileBytes = kTransposeSide * kTransposeSide * 2;

// Budget of sm80::gathered_transpose: 64 registers.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) gathered_transpose(const TransposeArguments args) {
  constexpr int kSide = kTransposeSide, kChunks = kSide / kChunk;
  static_assert(kThreads == 32 * kChunks, "warp w transposes inputs 8w .. 8w + 7");
  char* rows = ptx::smem();
  char* columns = rows + kTransposeTileBytes;
  const int64_t pitch = pitch_of(args.rows), column_tiles = ceil_div(args.columns, kSide);
  const int64_t token = blockIdx.x / column_tiles * kSide, column = blockIdx.x % column_tiles * kSide;
  const int thread = threadIdx.x, chunk = thread % kChunks, lane = thread % 32, warp = thread / 32;

  for (int row = thread / kChunks; row < kSide; row += kThreads / kChunks) {
    const int64_t first = column + chunk * kChunk;
    const int64_t left = token + row < args.rows ? args.columns - first : 0;
    const int valid = left >= kChunk ? kChunk : left > 0 ? static_cast<int>(left) : 0;
    const uint16_t* source = valid ? args.x + (token + row) * args.row_stride + first : args.x;
    char* to = rows + tile_place<kSide, kSide>(row, chunk);
    if (args.vectors) {
      ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(to, source, 2 * valid);
    } else {
      uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        if (i < valid) words[i / 2] |= static_cast<uint32_t>(source[i]) << (i % 2 * 16);
      ptx::store_shared_16(to, {words[0], words[1], words[2], words[3]});
    }
  }
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  __syncthreads();

  // Warp w transposes inputs 8w .. 8w + 7: register i of lane 4g + t then holds tokens 8i + 2t and 8i + 2t + 1 of input
  // g.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t pairs[4];
    ptx::ldmatrix_transposed(pairs, rows + tile_place<kSide, kSide>(32 * half + lane, warp));
#pragma unroll
    for (int i = 0; i < 4; ++i)
      ptx::store_shared_4(columns + tile_place<kSide, kSide>(8 * warp + lane / 4, 4 * half + i) + lane % 4 * 4,
                          pairs[i]);
  }
  __syncthreads();

  for (int row = thread / kChunks; row < kSide; row += kThreads / kChunks) {
    const int64_t to = token + chunk * kChunk;
    if (column + row < args.columns && to < pitch)
      *reinterpret_cast<uint4*>(args.xt + (column + row) * pitch + to) =
          ptx::load_shared_16(columns + tile_place<kSide, kSide>(row, chunk));
  }
}

}  // namespace sparsecore::gathered::sm80

// Tiles of 16-bit elements in shared memory, and a tile of y made of them with mma: what kernels share that bring the
// weights of a turn there by ways of their own.
#pragma once

#include "cuda/common/cp_async.h"
#include "cuda/common/ldmatrix.h"
#include "cuda/common/mma.h"
#include "cuda/common/swizzle.h"
#include "cuda/linear/epilogue.cuh"

namespace sparsecore::cuda_linear {

// A tile has rows of kWidth elements, in spans of at most 128 bytes: span by span kRows rows, each span in the swizzle
// of its width.
template <int kRows, int kWidth>
SC_DEVICE uint32_t place(int row, int byte) {
  constexpr int kSpan = kWidth >= 64 ? 128 : 2 * kWidth;
  return byte / kSpan * (kRows * kSpan) + swizzled<static_cast<Swizzle>(kSpan)>(row, byte % kSpan);
}

// A matrix in global memory, columns dense. `vectors`: its rows begin at multiples of 16 bytes.
struct Matrix {
  const void* data;
  int64_t rows, columns, stride;
  bool vectors;
};

// kRows rows from `row` on into one span of a tile by kThreads threads, kWidth / 8 of which share a row: each has its
// own chunk of 16 bytes, number thread % (kWidth / 8), which begins at `column` of the matrix. What lies outside of the
// matrix becomes zero and is not read, and so does a chunk that begins in front of it. Aligned rows come through
// cp.async, which the caller commits and waits for, others element by element, visible to others after the same
// barrier.
template <int kRows, int kWidth, int kThreads>
SC_DEVICE void load_rows(const Matrix& from, int64_t row, int64_t column, int thread, char* tile) {
  static_assert(kWidth <= 64 && kThreads % (kWidth / 8) == 0, "a span has rows of at most 128 bytes");
  constexpr int kChunks = kWidth / 8;
  const int chunk = thread % kChunks;
  const int64_t left = column < 0 ? 0 : 2 * (from.columns - column);
  const int in_row = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
  const char* data = static_cast<const char*>(from.data);
  const int64_t first = 2 * (row * from.stride + column);
  if (from.vectors) {
#pragma unroll
    for (int r = thread / kChunks; r < kRows; r += kThreads / kChunks) {
      const int valid = row + r < from.rows ? in_row : 0;
      ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(tile + place<kRows, kWidth>(r, chunk * 16),
                                                     valid ? data + first + 2 * r * from.stride : data, valid);
    }
    return;
  }
#pragma unroll 1
  for (int r = thread / kChunks; r < kRows; r += kThreads / kChunks) {
    const int valid = row + r < from.rows ? in_row : 0;
    const uint16_t* elements = reinterpret_cast<const uint16_t*>(data + first + 2 * r * from.stride);
    uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (2 * i < valid) words[i / 2] |= static_cast<uint32_t>(elements[i]) << i % 2 * 16;
    ptx::store_shared_16(tile + place<kRows, kWidth>(r, chunk * 16), {words[0], words[1], words[2], words[3]});
  }
}

// Registers of A, 16 x 16, whose element (i, j) is element (row + i, column + j) of a tile.
template <int kRows, int kWidth>
SC_DEVICE void load_a(uint32_t (&a)[4], const char* tile, int row, int column, int lane) {
  ptx::ldmatrix(a, tile + place<kRows, kWidth>(row + lane % 16, 2 * column + lane / 16 * 16));
}
// The same of the transposed tile: A's element (i, j) is element (row + j, column + i).
template <int kRows, int kWidth>
SC_DEVICE void load_a_transposed(uint32_t (&a)[4], const char* tile, int row, int column, int lane) {
  ptx::ldmatrix_transposed(a,
                           tile + place<kRows, kWidth>(row + lane / 16 * 8 + lane % 8, 2 * column + lane / 8 % 2 * 16));
}
// Two operands B, 16 x 8 each, for columns `column` and `column` + 8: element (i, j) is element (row + i, column + j).
template <int kRows, int kWidth>
SC_DEVICE void load_b_pair(uint32_t (&first)[2], uint32_t (&second)[2], const char* tile, int row, int column,
                           int lane) {
  uint32_t b[4];
  ptx::ldmatrix_transposed(b, tile + place<kRows, kWidth>(row + lane % 16, 2 * column + lane / 16 * 16));
  first[0] = b[0];
  first[1] = b[1];
  second[0] = b[2];
  second[1] = b[3];
}

// kChannels x kTokens of y, and how warps share it.
template <int kChannelsOfTile, int kTokensOfTile>
struct ProductTile {
  static constexpr int kChannels = kChannelsOfTile, kTokens = kTokensOfTile;
  static constexpr int kWarpChannels = kChannels >= 32 ? 32 : 16, kSlices = kWarpChannels / 16;
  static constexpr int kChannelWarps = kChannels / kWarpChannels, kTokenWarps = kTokens == 128 ? 8 / kChannelWarps : 2;
  static constexpr int kThreads = 32 * kChannelWarps * kTokenWarps;
  static constexpr int kWarpTokens = kTokens / kTokenWarps, kColumns = kWarpTokens / 8;
  static constexpr int kTokenBytes = kTokens * kRowBytes, kWeightBytes = kChannels * kRowBytes;  // of a turn
  // Rows of kChannels + 4 sums: the lanes of a warp then write to 32 different banks.
  static constexpr int kSumsStride = kChannels + 4, kSumsBytes = kTokens * kSumsStride * 4;
};

// One warp's sums.
template <class Tile>
struct ProductSums {
  float sums[Tile::kSlices][Tile::kColumns][4] = {};
  int thread, lane, channel, token;  // of the warp, in the tile

  SC_DEVICE explicit ProductSums(int thread)
      : thread(thread),
        lane(thread % 32),
        channel(thread / 32 % Tile::kChannelWarps * Tile::kWarpChannels),
        token(thread / 32 / Tile::kChannelWarps * Tile::kWarpTokens) {}

  // A turn. `tokens`: kTokens x 64 inputs. `weights`: channels x 64 inputs, or, transposed, 64 inputs x channels.
  template <class T, bool kTransposed>
  SC_DEVICE void multiply(const char* tokens, const char* weights) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {  // of steps of 16 inputs
      uint32_t a[2][Tile::kSlices][4];
#pragma unroll
      for (int step = 0; step < 2; ++step)
#pragma unroll
        for (int i = 0; i < Tile::kSlices; ++i) {
          const int input = 32 * pair + 16 * step, at = channel + 16 * i;
          if constexpr (kTransposed) {
            load_a_transposed<kTurnColumns, Tile::kChannels>(a[step][i], weights, input, at, lane);
          } else {
            load_a<Tile::kChannels, kTurnColumns>(a[step][i], weights, at, input, lane);
          }
        }
#pragma unroll
      for (int c = 0; c < Tile::kColumns; ++c) {
        uint32_t b[4];
        ptx::ldmatrix(b,
                      tokens + place<Tile::kTokens, kTurnColumns>(token + 8 * c + lane % 8, 64 * pair + lane / 8 * 16));
        const uint32_t steps[2][2] = {{b[0], b[1]}, {b[2], b[3]}};
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll
          for (int i = 0; i < Tile::kSlices; ++i) ptx::mma<T>(sums[i][c], a[step][i], steps[step]);
      }
    }
  }

  // Through `shared`, [token][channel], where nothing arrives any more, to y or to the partial sums of the split. The
  // tile begins at first_channel and first_token.
  SC_DEVICE void finish(const Arguments& args, int64_t first_channel, int64_t first_token, int split, char* shared) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < Tile::kSlices; ++i)
#pragma unroll
      for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int to_token = token + 8 * c + 2 * (lane % 4) + e % 2;
          const int to_channel = channel + 16 * i + lane / 4 + 8 * (e / 2);
          ptx::store_shared_4(shared + (to_token * Tile::kSumsStride + to_channel) * 4, bits_of(sums[i][c][e]));
        }
    __syncthreads();
    constexpr int kChunks = Tile::kChannels / kChunk;
    const int64_t first = first_channel + thread % kChunks * kChunk;
    if (first >= args.p.n) return;
    const ChannelChunk chunk(args.p, first);
    finish_rows<float, Tile::kTokens, Tile::kThreads / kChunks, Tile::kSumsStride, 1>(
        args, chunk, split, first_token, thread / kChunks, shared + thread % kChunks * kChunk * 4);
  }
};

}  // namespace sparsecore::cuda_linear

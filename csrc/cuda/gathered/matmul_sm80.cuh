// y = x W^T over gathered inputs for many tokens: a block makes one run of channels x kTokens tokens.
//
//   grid           runs of channels fastest, so that a wave of blocks gathers from few tiles of tokens; y: splits
//   warps          4, along tokens; each reads all weights of the run
//   shared memory  a ring of stages, each kDepth gathered rows of xt and their weights, filled by cp.async, one barrier
//                  per stage; the columns are in registers a turn before the copies need them
//   fragments      B (inputs x tokens) by transposing ldmatrix, four registers for 32 inputs and 8 tokens: what one
//                  mma.sp takes, or two mma. A is the format's business.
//   sums           pass through shared memory once and are finished row by row (linear/epilogue.cuh)
//
// A format gives: Arguments, which derive from gathered::Arguments; kSlices (of 16 channels), kDepth,
// kStages, kStageBytes of weights; first_channel(args, tile), channels(args) of a tile, list(args, tile);
// load<kThreads>(args, tile, list, turn, thread, stage), which copies a turn's weights by cp.async; and Fragment, the
// weights of a slice for 32 inputs: load(stage, span, slice, lane), multiply(sums, b).
#pragma once

#include "cuda/common/ldmatrix.h"
#include "cuda/gathered/tiles.cuh"
#include "cuda/linear/epilogue.cuh"

namespace sparsecore::gathered::sm80 {

using cuda_linear::BlockRange;

constexpr int64_t kSpan = 32;  // inputs of one set of fragments

template <class Weights, int kTokensOfTile>
struct Tile {
  static constexpr int kTokens = kTokensOfTile, kThreads = 128, kStages = Weights::kStages, kDepth = Weights::kDepth;
  static constexpr int kWarpTokens = kTokens / 4, kColumns = kWarpTokens / 8;
  static constexpr int kSlices = Weights::kSlices, kChannels = 16 * kSlices;
  static constexpr int kTokenBytes = kDepth * kTokens * 2, kStageBytes = kTokenBytes + Weights::kStageBytes;
  static_assert(kStageBytes % 128 == 0 && kTokenBytes % 128 == 0, "tiles begin where swizzles want them");
  // Rows of sums are 4 longer: the lanes of a warp then write to 32 different banks.
  static constexpr int kSumsStride = kChannels + 4, kSumsBytes = kTokens * kSumsStride * 4;
  static constexpr int kSharedBytes = kSumsBytes > kStages* kStageBytes ? kSumsBytes : kStages * kStageBytes;
};

template <class Weights, int kTokens, int kColumns>
SC_DEVICE void multiply_turn(float (&sums)[Weights::kSlices][kColumns][4], const char* tokens, const char* weights,
                             int first_chunk, int lane) {
#pragma unroll
  for (int span = 0; span < Weights::kDepth / kSpan; ++span) {
    typename Weights::Fragment a[Weights::kSlices];
#pragma unroll
    for (int slice = 0; slice < Weights::kSlices; ++slice) a[slice].load(weights, span, slice, lane);
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      uint32_t b[4];
      ptx::ldmatrix_transposed(
          b, tokens + tile_place<kTokens, Weights::kDepth>(span * kSpan + lane, first_chunk + column));
#pragma unroll
      for (int slice = 0; slice < Weights::kSlices; ++slice) a[slice].multiply(sums[slice][column], b);
    }
  }
}

// Budget of sm80::gathered_matmul: 168 registers.
template <class Weights, int kTokens>
__global__ void __launch_bounds__(128, 3) gathered_matmul(const typename Weights::Arguments args) {
  using Tile = sm80::Tile<Weights, kTokens>;
  const cuda_linear::Arguments& linear = args.linear;
  char* shared = ptx::smem();
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int64_t tile = blockIdx.x % linear.channel_tiles;
  const int64_t token = static_cast<int64_t>(blockIdx.x / linear.channel_tiles) * kTokens;
  const List list = Weights::list(args, tile);
  const BlockRange range = cuda_linear::split_range(ceil_div(list.length, Tile::kDepth), blockIdx.y, linear.splits);

  Gather<kTokens, Tile::kDepth, Tile::kThreads> gather;
  const auto load_stage = [&](int64_t turn) {
    if (turn < range.last) {
      char* stage = shared + (turn - range.first) % Tile::kStages * Tile::kStageBytes;
      gather.load(args.xt, args.pitch, token, thread, stage);
      Weights::template load<Tile::kThreads>(args, tile, list, turn, thread, stage + Tile::kTokenBytes);
      gather.fetch(list, turn + 1, thread);
    }
    ptx::cp_async_commit();
  };
  gather.fetch(list, range.first, thread);
  for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_stage(range.first + stage);

  float sums[Tile::kSlices][Tile::kColumns][4] = {};
  for (int64_t turn = range.first; turn < range.last; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // This turn's stage has arrived for everybody, and everybody is done with that of the last turn, which is filled
    // next.
    __syncthreads();
    load_stage(turn + Tile::kStages - 1);
    const char* stage = shared + (turn - range.first) % Tile::kStages * Tile::kStageBytes;
    multiply_turn<Weights, kTokens>(sums, stage, stage + Tile::kTokenBytes, warp * Tile::kColumns, lane);
  }

  // Sums to [token][channel] in shared memory, whose stages have all arrived and which nobody reads any more.
  __syncthreads();
#pragma unroll
  for (int slice = 0; slice < Tile::kSlices; ++slice)
#pragma unroll
    for (int column = 0; column < Tile::kColumns; ++column)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = warp * Tile::kWarpTokens + 8 * column + 2 * (lane % 4) + e % 2;
        const int to = 16 * slice + lane / 4 + 8 * (e / 2);
        ptx::store_shared_4(shared + (row * Tile::kSumsStride + to) * 4, cuda_linear::bits_of(sums[slice][column][e]));
      }
  __syncthreads();

  constexpr int kChunks = Tile::kChannels / cuda_linear::kChunk;
  const int chunk = thread % kChunks * cuda_linear::kChunk;
  const int64_t first = Weights::first_channel(args, tile) + chunk;
  if (chunk >= Weights::channels(args) || first >= linear.p.n) return;
  const cuda_linear::ChannelChunk channels(linear.p, first);
  cuda_linear::finish_rows<float, kTokens, Tile::kThreads / kChunks, Tile::kSumsStride>(
      linear, channels, blockIdx.y, token, thread / kChunks, shared + chunk * 4);
}

}  // namespace sparsecore::gathered::sm80

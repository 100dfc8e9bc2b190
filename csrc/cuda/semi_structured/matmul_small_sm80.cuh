// y = x W^T for 1 to 32 tokens: bound by reading W once, so what counts is bytes in flight.
//
//   grid      tiles of kSlicesOfTile x 16 channels, splits
//   warps     share the inputs: warp w of W takes every W-th block of 128 bytes, so that a block of threads streams
//             neighbouring memory; each has a private ring of kStages turns in shared memory, filled by cp.async, and
//             waits for nobody in the loop
//   a turn    values and metadata of its slices, which only the lane that copied them reads, and kTokens x 128 bytes of
//   x sums      of the warps are added in the order of the warps
#pragma once

#include "cuda/common/cache_hints.h"
#include "cuda/common/mma_sparse.h"
#include "cuda/linear/warp_sums.cuh"
#include "cuda/semi_structured/inputs.cuh"

namespace sparsecore::semi_structured::sm80 {

// Warps and stages: about 70 KB of shared memory each, so that two or three blocks share a multiprocessor (100 KB on
// sm_86 and sm_89, which hold one). More slices to a warp read x less often, which 16 and 32 tokens need.
template <class T, int kTokensOfTile>
struct SmallTile {
  static constexpr int kTokens = kTokensOfTile, kColumns = kTokens / 8;
  static constexpr int kWarps = kTokens == 8 ? 8 : 4, kThreads = 32 * kWarps;
  static constexpr int kSlicesOfTile = kTokens == 8 ? 1 : 2, kChannels = kSlicesOfTile * kSliceChannels;
  static constexpr int kStages = kTokens == 32 ? 3 : 4;
  static constexpr int kWords = 2 / sizeof(T), kMetadataBytes = 32 * 4 * kWords;
  static constexpr int kTokenBytes = kTokens * kRowBytes;
  static constexpr int kStageBytes = kTokenBytes + kSlicesOfTile * (kSliceValueBytes + kMetadataBytes);
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr int kSumsBytes = kWarpSumBytes<kWarps, kChannels, kTokens>;
  static constexpr int kSharedBytes = kSumsBytes > kWarps* kRingBytes ? kSumsBytes : kWarps * kRingBytes;
};

// Budget of sm80::matmul_small: 128 registers.
// Budget of sm80::matmul_small on sm_80: 160 registers.
// Budget of sm80::matmul_small on sm_90: 255 registers, 200 bytes of stack, 408 bytes of spills.
template <class T, int kTokens, class Inputs>
__global__ void __launch_bounds__(SmallTile<T, kTokens>::kThreads) matmul_small(const MatmulArguments args) {
  using Tile = SmallTile<T, kTokens>;
  using Sum = Accumulator<T>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  char* shared = ptx::smem();
  char* ring = shared + warp * Tile::kRingBytes;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * Tile::kChannels;
  const int64_t n_block = channel / kBlockChannels;
  const int slice = static_cast<int>(channel % kBlockChannels) / kSliceChannels;
  const BlockRange range = split_range(args.k_blocks, blockIdx.y, args.splits);
  const uint64_t once = ptx::policy_evict_first();

  const auto load_stage = [&](int64_t turn) {
    const int64_t k_block = range.first + turn * Tile::kWarps + warp;
    if (k_block < range.last) {
      char* stage = ring + turn % Tile::kStages * Tile::kStageBytes;
      const int64_t at = (n_block * args.k_blocks + k_block) * kSlices + slice;
      const char* values = static_cast<const char*>(args.weight.values) + at * kSliceValueBytes + lane * 16;
      const uint32_t* metadata = args.weight.metadata + (at * 32 + lane) * Tile::kWords;
      char* to = stage + Tile::kTokenBytes + lane * 16;
#pragma unroll
      for (int i = 0; i < Tile::kSlicesOfTile; ++i) {
#pragma unroll
        for (int step = 0; step < 2; ++step)
          ptx::cp_async_hinted(to + i * kSliceValueBytes + step * 512, values + i * kSliceValueBytes + step * 512,
                               once);
        ptx::cp_async<4 * Tile::kWords, ptx::CacheAt::kAll>(stage + Tile::kTokenBytes +
                                                                Tile::kSlicesOfTile * kSliceValueBytes +
                                                                i * Tile::kMetadataBytes + lane * 4 * Tile::kWords,
                                                            metadata + i * 32 * Tile::kWords);
      }
      const InputBytes bytes = Inputs::bytes(args, k_block);
      load_token_bytes<T, kTokens, 32>(args, 0, bytes.first, bytes.last, lane, stage);
    }
    ptx::cp_async_commit();
  };

  Sum sums[Tile::kSlicesOfTile][Tile::kColumns][4] = {};
  const auto multiply_step = [&](const Inputs& inputs, const char* stage, auto step_constant) {
    constexpr int kStep = decltype(step_constant)::value;
    constexpr int kSelector = sizeof(T) == 2 ? kStep : 0, kWord = sizeof(T) == 2 ? 0 : kStep;
    uint32_t a[Tile::kSlicesOfTile][4], metadata[Tile::kSlicesOfTile];
    const char* values = stage + Tile::kTokenBytes + kStep * 512 + lane * 16;
    const char* words = stage + Tile::kTokenBytes + Tile::kSlicesOfTile * kSliceValueBytes + lane * 4 * Tile::kWords;
#pragma unroll
    for (int i = 0; i < Tile::kSlicesOfTile; ++i) {
      const uint4 vector = ptx::load_shared_16(values + i * kSliceValueBytes);
      a[i][0] = vector.x;
      a[i][1] = vector.y;
      a[i][2] = vector.z;
      a[i][3] = vector.w;
      metadata[i] = ptx::load_shared_4(words + i * Tile::kMetadataBytes + 4 * kWord);
    }
#pragma unroll
    for (int column = 0; column < Tile::kColumns; ++column) {
      uint32_t b[4];
      inputs.template read<kStep>(b, stage, 8 * column, lane);
#pragma unroll
      for (int i = 0; i < Tile::kSlicesOfTile; ++i)
        ptx::mma_sparse<T, kSelector>(sums[i][column], a[i], b, metadata[i]);
    }
  };

  const int64_t blocks = range.last - range.first;
  const int64_t turns = blocks > warp ? ceil_div(blocks - warp, Tile::kWarps) : 0;
  for (int turn = 0; turn < Tile::kStages - 1; ++turn) load_stage(turn);
  for (int64_t turn = 0; turn < turns; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // x of this turn has arrived for every lane, and every lane is done with the turn whose place is filled next.
    __syncwarp();
    load_stage(turn + Tile::kStages - 1);
    const char* stage = ring + turn % Tile::kStages * Tile::kStageBytes;
    const Inputs inputs(args, range.first + turn * Tile::kWarps + warp, lane);
    multiply_step(inputs, stage, std::integral_constant<int, 0>());
    multiply_step(inputs, stage, std::integral_constant<int, 1>());
  }

  // [warp][channel][token] where the rings were: every copy has arrived.
  __syncthreads();
#pragma unroll
  for (int i = 0; i < Tile::kSlicesOfTile; ++i)
#pragma unroll
    for (int column = 0; column < Tile::kColumns; ++column)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int to = 16 * i + lane / 4 + 8 * (e / 2), token = 8 * column + 2 * (lane % 4) + e % 2;
        ptx::store_shared_4(shared + sum_place<Tile::kChannels, kTokens>(warp, to, token) * 4,
                            bits_of(sums[i][column][e]));
      }
  __syncthreads();
  finish_warp_sums<Sum, Tile::kWarps, Tile::kChannels, kTokens, Tile::kThreads>(args, 0, channel, blockIdx.y, shared);
}

}  // namespace sparsecore::semi_structured::sm80

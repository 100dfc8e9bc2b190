// y = x W^T for many tokens with mma.sp: a block makes 128 channels x kTokens tokens, depth 128 bytes of x at a time.
//
//   grid      token tiles x channel tiles, in groups of 8 token tiles so that a wave of blocks reads few of either; z:
//   splits warps     4 along channels (32 each), 2 along tokens x         kStages tiles of kTokens x 128 bytes in
//   shared memory, swizzled, cp.async; one barrier per tile W         values and metadata go from global memory to
//   registers in the order of the format, one tile ahead sums      with one split the tile passes through shared memory
//   and is finished row by row (linear/epilogue.cuh); with more,
//             raw sums go to the workspace and finish_splits adds them in the order of the splits
//
// Bytes of shared memory for 128 tokens: max(4 x 16 KB, 128 x 132 x 4) = 66 KB.
#pragma once

#include "cuda/common/mma_sparse.h"
#include "cuda/linear/epilogue.cuh"
#include "cuda/semi_structured/inputs.cuh"

namespace sparsecore::semi_structured::sm80 {

template <class T, int kTokensOfTile>
struct Tile {
  static constexpr int kTokens = kTokensOfTile, kChannels = 128, kStages = 4, kThreads = 256;
  static constexpr int kWarpTokens = kTokens / 2, kColumns = kWarpTokens / 8;  // of 8 tokens
  static constexpr int kWords = 2 / sizeof(T);                                 // of metadata for each lane and slice
  static constexpr int kStageBytes = kTokens * kRowBytes;
  // Rows of 132 sums: the lanes of a warp then write to 32 different banks.
  static constexpr int kSumsStride = kChannels + 4;
  static constexpr int kSumsBytes = kTokens * kSumsStride * 4;
  static constexpr int kSharedBytes = kSumsBytes > kStages* kStageBytes ? kSumsBytes : kStages * kStageBytes;
};

// The weights of one lane for one block of inputs: two slices of 16 channels, two steps.
template <class T>
struct WeightRegisters {
  static constexpr int kWords = 2 / sizeof(T);
  uint32_t values[2][2][4];
  uint32_t metadata[2][kWords];

  // A block of channels past n has no weights: the last one's are as good, since its sums are not stored.
  SC_DEVICE void load(const MatmulArguments& args, int64_t n_block, int64_t k_block, int slice, int lane) {
    const int64_t existing = n_block < args.n_blocks ? n_block : args.n_blocks - 1;
    const int64_t at = (existing * args.k_blocks + k_block) * kSlices + slice;
    const uint4* from = static_cast<const uint4*>(args.weight.values) + at * kSliceVectors + lane;
    const uint32_t* words = args.weight.metadata + (at * 32 + lane) * kWords;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const uint4 vector = from[i * kSliceVectors + step * 32];
        values[i][step][0] = vector.x;
        values[i][step][1] = vector.y;
        values[i][step][2] = vector.z;
        values[i][step][3] = vector.w;
      }
#pragma unroll
      for (int word = 0; word < kWords; ++word) metadata[i][word] = words[i * 32 * kWords + word];
    }
  }
};

template <class T, int kStep, int kColumns, class Inputs>
SC_DEVICE void multiply_step(Accumulator<T> (&sums)[2][kColumns][4], const WeightRegisters<T>& weights,
                             const Inputs& inputs, const char* tokens, int lane) {
  constexpr int kSelector = sizeof(T) == 2 ? kStep : 0, kWord = sizeof(T) == 2 ? 0 : kStep;
#pragma unroll
  for (int column = 0; column < kColumns; ++column) {
    uint32_t b[4];
    inputs.template read<kStep>(b, tokens, 8 * column, lane);
#pragma unroll
    for (int i = 0; i < 2; ++i)
      ptx::mma_sparse<T, kSelector>(sums[i][column], weights.values[i][kStep], b, weights.metadata[i][kWord]);
  }
}

// Hopper has no mma.sp of 8-bit floats and computes it with others, which takes registers: the wgmma kernel is there
// for that, and this one for what it cannot take.
// Budget of sm80::matmul: 168 registers.
// Budget of sm80::matmul on sm_90: 255 registers, 3120 bytes of stack, 9744 bytes of spills.
template <class T, int kTokens, class Inputs>
__global__ void __launch_bounds__(256) matmul(const MatmulArguments args) {
  using Tile = sm80::Tile<T, kTokens>;
  using Sum = Accumulator<T>;
  char* shared = ptx::smem();
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int warp_channels = warp % 4, warp_tokens = warp / 4;

  constexpr int kGroup = 8;
  const int group_blocks = kGroup * args.channel_tiles, group = static_cast<int>(blockIdx.x) / group_blocks;
  const int in_group = static_cast<int>(blockIdx.x) % group_blocks;
  const int left = args.token_tiles - group * kGroup, width = left < kGroup ? left : kGroup;
  const int64_t token = static_cast<int64_t>(group * kGroup + in_group % width) * kTokens;
  const int64_t channel = static_cast<int64_t>(in_group / width) * Tile::kChannels;
  const BlockRange range = split_range(args.k_blocks, blockIdx.z, args.splits);

  const int64_t n_block = channel / kBlockChannels + warp_channels / 2;
  const int slice = warp_channels % 2 * 2;
  Sum sums[2][Tile::kColumns][4] = {};
  WeightRegisters<T> weights, next;

  const auto load_stage = [&](int64_t k_block) {
    if (k_block < range.last) {
      const InputBytes bytes = Inputs::bytes(args, k_block);
      load_token_bytes<T, kTokens, Tile::kThreads>(
          args, token, bytes.first, bytes.last, thread,
          shared + (k_block - range.first) % Tile::kStages * Tile::kStageBytes);
    }
    ptx::cp_async_commit();
  };
  for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_stage(range.first + stage);
  if (range.first < range.last) next.load(args, n_block, range.first, slice, lane);

  for (int64_t k_block = range.first; k_block < range.last; ++k_block) {
    weights = next;
    ptx::cp_async_wait<Tile::kStages - 2>();
    // The tile of this turn has arrived for everybody, and everybody is done with that of the last turn, whose place
    // the next load takes.
    __syncthreads();
    load_stage(k_block + Tile::kStages - 1);
    if (k_block + 1 < range.last) next.load(args, n_block, k_block + 1, slice, lane);
    const char* tokens = shared + (k_block - range.first) % Tile::kStages * Tile::kStageBytes +
                         warp_tokens * Tile::kWarpTokens * kRowBytes;
    const Inputs inputs(args, k_block, lane);
    multiply_step<T, 0>(sums, weights, inputs, tokens, lane);
    multiply_step<T, 1>(sums, weights, inputs, tokens, lane);
  }

  // Sums to [token][channel] in shared memory, whose tiles have all arrived and which nobody reads any more.
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int column = 0; column < Tile::kColumns; ++column)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = warp_tokens * Tile::kWarpTokens + 8 * column + 2 * (lane % 4) + e % 2;
        const int to = warp_channels * 32 + 16 * i + lane / 4 + 8 * (e / 2);
        Sum sum = sums[i][column][e];
        ptx::store_shared_4(shared + (row * Tile::kSumsStride + to) * 4, bits_of(sum));
      }
  __syncthreads();

  constexpr int kChunks = Tile::kChannels / kChunk;
  const int64_t first = channel + thread % kChunks * kChunk;
  if (first >= args.p.n) return;
  const ChannelChunk chunk(args.p, first);
  finish_rows<Sum, kTokens, Tile::kThreads / kChunks, Tile::kSumsStride, 1>(
      args, chunk, blockIdx.z, token, thread / kChunks, shared + thread % kChunks * kChunk * 4);
}

}  // namespace sparsecore::semi_structured::sm80

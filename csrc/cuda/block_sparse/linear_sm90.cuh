// y = x W^T for many tokens with wgmma, blocks of 64 and 128: persistent blocks of three warpgroups.
//
//   tile      one row of blocks x kTokens tokens. Of blocks of 128 each of two consuming warpgroups makes 64 channels
//   of
//             all tokens, of blocks of 64 all channels of half of the tokens
//   cluster   one block, or, for blocks of 128, two that make neighbouring tokens of the same row: each copies the
//             weights of 64 channels to both, so that they come from L2 once for 2 kTokens tokens
//   a turn    64 inputs: half a block of 128, one of 64
//   producer  one thread: the tile of x as one box of tokens x 128 bytes at the column of the turn's entry, and the
//             weights, or its part of them, as boxes of 64 rows x 128 bytes, one for each 64 channels; 128-byte swizzle
//   weights   K-major where they stand as they are; of the transposed matrix MN-major, rows of the box being inputs
//   ring      full[s] counts the copies' bytes; empty[s] the eight consuming warps of each block of the cluster. Turn i
//             of a block uses stage
//             i % kStages, and the parity of i / kStages tells its phases apart, across tiles
//   sums      a warpgroup passes 64 of its tokens at a time through shared memory and finishes them row by row
//
// Registers: 40 for the producer, 232 for a consumer.
#pragma once

#include "cuda/block_sparse/index.cuh"
#include "cuda/common/bulk_copy.h"
#include "cuda/common/cache_hints.h"
#include "cuda/common/fragments.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/named_barrier.h"
#include "cuda/common/registers.h"
#include "cuda/common/wgmma.h"
#include "cuda/linear/block_cluster.cuh"
#include "cuda/linear/epilogue.cuh"

namespace sparsecore::block_sparse::sm90 {

using cuda_linear::Cluster;

template <int kSizeOfBlock, int kTokensOfTile>
struct Tile {
  static constexpr int kSize = kSizeOfBlock, kParts = kSize / 64;  // 64 channels of a block each
  static constexpr int kTokens = kTokensOfTile, kThreads = 384, kConsumerWarps = 8;
  static constexpr int kConsumerTokens = kTokens * kParts / 2, kSums = kConsumerTokens / 2;  // of 64 channels
  static constexpr int kTokenBytes = kTokens * cuda_linear::kRowBytes, kPartBytes = 64 * cuda_linear::kRowBytes;
  static constexpr int kStageBytes = kTokenBytes + kParts * kPartBytes, kStages = kTokens == 128 ? 6 : 4;
  // [token][channel], rows of 68 sums: what one store of a warp writes falls into different banks.
  static constexpr int kSumsStride = 64 + 4, kSumsBytes = 64 * kSumsStride * 4;
  static constexpr int kBarrierOffset = kStages * kStageBytes + 2 * kSumsBytes;
  static constexpr int kSharedBytes = kBarrierOffset + 2 * kStages * 8;
};

// The persistent schedule: cluster c takes works c, c + clusters, ..; rows of blocks from the longest on.
// args.token_tiles counts what a cluster makes.
struct Work {
  int64_t token;
  int32_t row;  // negative: of no matrix
  int split, turns;
  Entries entries;

  SC_DEVICE Work(const LinearArguments& args, int index, int tokens, int turns_of_block, Cluster cluster) {
    split = index % args.splits;
    const int tile = index / args.splits;
    token = (static_cast<int64_t>(tile % args.token_tiles) * cluster.blocks + cluster.rank) * tokens;
    row = inside_or_none(args.weight.order[tile / args.token_tiles], args.rows);
    entries = row < 0 ? Entries{0, 0} : entries_of(args.weight, row, split, args.splits);
    turns = (entries.last - entries.first) * turns_of_block;
  }
};

template <int kSize, int kTokens, bool kTransposed>
SC_DEVICE void produce(const LinearArguments& args, const TensorMap* x, const TensorMap* values, int works,
                       Cluster cluster, char* shared, uint64_t* full, uint64_t* empty) {
  using Tile = sm90::Tile<kSize, kTokens>;
  const uint64_t policy = ptx::policy_evict_normal();
  // The copy engine reads zeros at coordinates outside of a tensor: a column that no matrix has leads nowhere.
  const int32_t no_block = static_cast<int32_t>(args.weight.blocks);
  uint32_t turn = 0;
  for (int index = cluster.index(); index < works; index = cluster.work_after(index, works)) {
    const Work work(args, index, kTokens, Tile::kParts, cluster);
    for (int i = 0; i < work.turns; ++i, ++turn) {
      const int32_t entry = work.entries.first + i / Tile::kParts, half = i % Tile::kParts * kTurnColumns;
      const int64_t column = static_cast<int64_t>(args.weight.index[entry]) * kSize + half;
      const int32_t block = kTransposed ? inside_or_none(args.weight.source[entry], no_block) : entry;
      const int32_t first_row = (block < 0 ? no_block : block) * kSize;
      const int32_t at_x[2] = {static_cast<int32_t>(column), static_cast<int32_t>(work.token)};
      const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
      char* to = shared + stage * Tile::kStageBytes;
      // The first round finds the stages empty: the phase before the first counts as complete.
      ptx::mbarrier_wait(&empty[stage], phase ^ 1);
      ptx::mbarrier_arrive_expect_bytes(&full[stage], Tile::kStageBytes);
      ptx::tensor_load(to, x, at_x, &full[stage]);
#pragma unroll
      for (int part = 0; part < Tile::kParts; ++part) {
        const int32_t at[2] = {kTransposed ? 64 * part : half, first_row + (kTransposed ? half : 64 * part)};
        char* const weights = to + Tile::kTokenBytes + part * Tile::kPartBytes;
        if (cluster.blocks == 1) {
          ptx::tensor_load(weights, values, at, &full[stage]);
        } else if (part == cluster.rank) {
          ptx::tensor_load_multicast(weights, values, at, &full[stage], cluster.everybody(), policy);
        }
      }
    }
  }
}

template <class T, int kSize, int kTokens, bool kTransposed>
SC_DEVICE void consume(const LinearArguments& args, int works, Cluster cluster, int consumer, char* shared,
                       uint64_t* full, uint64_t* empty) {
  using Tile = sm90::Tile<kSize, kTokens>;
  constexpr Major kMajor = kTransposed ? Major::kMN : Major::kK;
  const int thread = threadIdx.x % 128, lane = thread % 32, slice = thread / 32;
  const int part = Tile::kParts == 2 ? consumer : 0,
            first_token = Tile::kParts == 2 ? 0 : Tile::kConsumerTokens * consumer;
  char* staged = shared + Tile::kStages * Tile::kStageBytes + consumer * Tile::kSumsBytes;
  uint32_t turn = 0;

  for (int index = cluster.index(); index < works; index = cluster.work_after(index, works)) {
    const Work work(args, index, kTokens, Tile::kParts, cluster);
    float sums[Tile::kSums];
#pragma unroll
    for (int i = 0; i < Tile::kSums; ++i) sums[i] = 0;
    for (int i = 0; i < work.turns; ++i, ++turn) {
      const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
      ptx::mbarrier_wait(&full[stage], phase);
      const char* from = shared + stage * Tile::kStageBytes;
      const uint64_t tokens =
          k_major_descriptor(ptx::shared_address(from + first_token * cuda_linear::kRowBytes), Swizzle::k128);
      const uint32_t weights = ptx::shared_address(from + Tile::kTokenBytes + part * Tile::kPartBytes);
      // Rows of 128 bytes either way: eight of them are 1024 bytes on. What lies next to 64 channels nobody asks for.
      const uint64_t a = matrix_descriptor(weights, Swizzle::k128, 16, 1024);
      ptx::wgmma_fence(sums);
      // A step is 16 inputs: 32 bytes of a row, or 16 rows; descriptors count in 16 bytes.
#pragma unroll
      for (int step = 0; step < 4; ++step)
        ptx::wgmma<T, kMajor>(sums, a + step * (kTransposed ? 128 : 2), tokens + 2 * step, true);
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      // The turn before is done with its stage.
      if (i > 0) cluster.give_back(&empty[(turn - 1) % Tile::kStages], lane);
    }
    ptx::wgmma_wait<0>(sums);
    if (work.turns > 0) cluster.give_back(&empty[(turn - 1) % Tile::kStages], lane);
    if (work.row < 0) continue;

    const int64_t channel = static_cast<int64_t>(work.row) * kSize + 64 * part;
#pragma unroll
    for (int run = 0; run < Tile::kConsumerTokens / 64; ++run) {  // of 64 tokens
      // What was staged before has been read by all of this warpgroup.
      ptx::named_barrier_sync(1 + consumer, 128);
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        const fragments::Place at = fragments::c_place(lane, e);
        ptx::store_shared_4(staged + (at.column * Tile::kSumsStride + slice * 16 + at.row) * 4,
                            cuda_linear::bits_of(sums[run * 32 + e]));
      }
      ptx::named_barrier_sync(1 + consumer, 128);
      constexpr int kChunks = 64 / cuda_linear::kChunk;
      const int64_t first = channel + thread % kChunks * cuda_linear::kChunk;
      const int64_t token = work.token + first_token + 64 * run;
      if (first < args.p.n) {
        const cuda_linear::ChannelChunk chunk(args.p, first);
        cuda_linear::finish_rows<float, 64, 128 / kChunks, Tile::kSumsStride>(
            args, chunk, work.split, token, thread / kChunks, staged + thread % kChunks * cuda_linear::kChunk * 4);
      }
    }
  }
}

// Budget of sm90::linear: 168 registers.
template <class T, int kSize, int kTokens, bool kTransposed>
__global__ void __launch_bounds__(384, 1) linear(const LinearArguments args, const __grid_constant__ TensorMap x,
                                                 const __grid_constant__ TensorMap values, const int works) {
  using Tile = sm90::Tile<kSize, kTokens>;
  char* shared = ptx::smem();
  uint64_t* full = reinterpret_cast<uint64_t*>(shared + Tile::kBarrierOffset);
  uint64_t* empty = full + Tile::kStages;
  const int warpgroup = threadIdx.x / 128;
  const Cluster cluster;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init_ring(full, empty, Tile::kStages, 1, Tile::kConsumerWarps * cluster.blocks);
    ptx::fence_mbarrier_init();
    ptx::tensor_prefetch_map(&x);
    ptx::tensor_prefetch_map(&values);
  }
  cluster.meet();
  if (warpgroup == 0) {
    ptx::give_registers_back<40>();
    if (threadIdx.x == 0) produce<kSize, kTokens, kTransposed>(args, &x, &values, works, cluster, shared, full, empty);
    __syncwarp();  // the barrier below wants whole warps
  } else {
    ptx::take_registers<232>();
    consume<T, kSize, kTokens, kTransposed>(args, works, cluster, warpgroup - 1, shared, full, empty);
  }
  // Until here the other block copies into this one, and gives stages back to it.
  if (cluster.blocks > 1) cluster.meet();
}

}  // namespace sparsecore::block_sparse::sm90

// y = x W^T for many tokens with wgmma.sp: persistent blocks of three warpgroups.
//
//   tile      256 channels x kTokens tokens. Each of two consuming warpgroups has 128 channels: two instructions of 64
//   cluster   one block, or two or four that make the tiles of neighbouring channels for the same tokens: each copies
//             its part of these to all, so that x comes from L2 once for up to 1024 channels. What L2 delivers bounds
//             this kernel (docs/kernels/cuda_semi_structured.md)
//   producer  one thread: its part of kTokens x 128 bytes of x by tensor copy into a ring of kStages, 128-byte swizzle,
//             and requests that bring the weights of the same turn to L2
//   W         values and metadata from global memory to registers, two turns ahead, across works; they never pass
//             shared memory
//   ring      full[s] counts the bytes of all copies; empty[s] the eight consuming warps of each block of the cluster.
//             Turn i of a block uses stage i % kStages, and the parity of i / kStages tells its phases apart, across
//             works
//   sums      a warpgroup passes its 64 x kTokens sums through shared memory, twice, and finishes them row by row
//
// Registers: 40 for the producer, 232 for a consumer, 64512 of 65536 together.
#pragma once

#include "cuda/common/bulk_copy.h"
#include "cuda/common/cache_hints.h"
#include "cuda/common/fragments.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/named_barrier.h"
#include "cuda/common/registers.h"
#include "cuda/common/wgmma_sparse.h"
#include "cuda/linear/block_cluster.cuh"
#include "cuda/linear/epilogue.cuh"
#include "cuda/semi_structured/matmul.h"

namespace sparsecore::semi_structured::sm90 {

template <int kTokensOfTile>
struct Tile {
  static constexpr int kTokens = kTokensOfTile, kChannels = 256, kThreads = 384, kStages = 6;
  static constexpr int kConsumerWarps = 8, kSums = kTokens / 2;  // registers of one 64-channel instruction
  static constexpr int kStageBytes = kTokens * kRowBytes;
  // [token][channel], rows of 68 sums: what one store of a warp writes falls into different banks.
  static constexpr int kSumsStride = 64 + 4, kSumsBytes = kTokens * kSumsStride * 4;
  static constexpr int kBarrierOffset = kStages * kStageBytes + 2 * kSumsBytes;
  static constexpr int kSharedBytes = kBarrierOffset + 2 * kStages * 8;
};

// One lane's weights of one turn: the same slice of two blocks of 64 channels. Nobody writes them while the kernel
// runs, and no other warp of the block reads them, so L1 is no place for them.
template <class T>
struct WeightRegisters {
  static constexpr int kWords = 2 / sizeof(T);
  uint32_t values[2][2][4];
  uint32_t metadata[2][kWords];

  // A block of channels past n has no weights: the last one's are as good, since its sums are not stored.
  SC_DEVICE void load(const MatmulArguments& args, int64_t n_block, int64_t k_block, int slice, int lane) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t existing = n_block + i < args.n_blocks ? n_block + i : args.n_blocks - 1;
      const int64_t at = (existing * args.k_blocks + k_block) * kSlices + slice;
      const uint4* from = static_cast<const uint4*>(args.weight.values) + at * kSliceVectors + lane;
      const uint32_t* words = args.weight.metadata + (at * 32 + lane) * kWords;
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const uint4 vector = ptx::load_once_16(from + step * 32);
        values[i][step][0] = vector.x;
        values[i][step][1] = vector.y;
        values[i][step][2] = vector.z;
        values[i][step][3] = vector.w;
      }
#pragma unroll
      for (int word = 0; word < kWords; ++word) metadata[i][word] = ptx::load_once_4(words + word);
    }
  }
};

template <class T, int kTokens>
SC_DEVICE void produce(const MatmulArguments& args, const TensorMap* x, int works, Cluster cluster, char* shared,
                       uint64_t* full, uint64_t* empty) {
  using Tile = sm90::Tile<kTokens>;
  constexpr int kDepth = kRowBytes / sizeof(T);
  constexpr uint32_t kBlockValueBytes = kSlices * kSliceValueBytes,
                     kBlockMetadataBytes = kSlices * 128 * (2 / sizeof(T));
  const int part_tokens = kTokens / cluster.blocks, first_token = cluster.rank * part_tokens;
  const uint64_t policy = ptx::policy_evict_normal();
  uint32_t turn = 0;
  for (int index = cluster.index(); index < works; index = cluster.work_after(index, works)) {
    const ClusterWork work(args, args.k_blocks, index, kTokens, Tile::kChannels, cluster);
    const int64_t n_block = work.channel / kBlockChannels;
    for (int64_t k_block = work.range.first; k_block < work.range.last; ++k_block, ++turn) {
      const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
      // The first round finds the stages empty: the phase before the first counts as complete.
      ptx::mbarrier_wait(&empty[stage], phase ^ 1);
      ptx::mbarrier_arrive_expect_bytes(&full[stage], Tile::kStageBytes);
      const int32_t at[2] = {static_cast<int32_t>(k_block * kDepth), static_cast<int32_t>(work.token) + first_token};
      char* to = shared + stage * Tile::kStageBytes + first_token * kRowBytes;
      if (cluster.blocks > 1) {
        ptx::tensor_load_multicast(to, x, at, &full[stage], cluster.everybody(), policy);
      } else {
        ptx::tensor_load(to, x, at, &full[stage]);
      }
      for (int i = 0; i < Tile::kChannels / kBlockChannels && n_block + i < args.n_blocks; ++i) {
        const int64_t block = (n_block + i) * args.k_blocks + k_block;
        ptx::bulk_prefetch_l2(static_cast<const char*>(args.weight.values) + block * kBlockValueBytes,
                              kBlockValueBytes);
        ptx::bulk_prefetch_l2(reinterpret_cast<const char*>(args.weight.metadata) + block * kBlockMetadataBytes,
                              kBlockMetadataBytes);
      }
    }
  }
}

template <class T, int kTokens>
SC_DEVICE void consume(const MatmulArguments& args, int works, Cluster cluster, int consumer, char* shared,
                       uint64_t* full, uint64_t* empty) {
  using Tile = sm90::Tile<kTokens>;
  using Sum = Accumulator<T>;
  const int thread = threadIdx.x % 128, lane = thread % 32, slice = thread / 32;
  char* staged = shared + Tile::kStages * Tile::kStageBytes + consumer * Tile::kSumsBytes;
  const auto give_back = [&](uint32_t turn) { cluster.give_back(&empty[turn % Tile::kStages], lane); };

  WeightRegisters<T> weights[3];
  // The first two turns of a work.
  const auto load_first = [&](const ClusterWork& work) {
    const int64_t n_block = (work.channel + consumer * 128) / kBlockChannels;
    if (work.range.first < work.range.last) weights[0].load(args, n_block, work.range.first, slice, lane);
    if (work.range.first + 1 < work.range.last) weights[1].load(args, n_block, work.range.first + 1, slice, lane);
  };
  uint32_t turn = 0;
  int index = cluster.index();
  ClusterWork work(args, args.k_blocks, index, kTokens, Tile::kChannels, cluster);
  load_first(work);

  while (true) {
    const int64_t channel = work.channel + consumer * 128, n_block = channel / kBlockChannels;
    Sum sums[2][Tile::kSums];
#pragma unroll
    for (int i = 0; i < Tile::kSums; ++i) sums[0][i] = sums[1][i] = 0;

    // Turn of one block of inputs; its weights are in weights[kBuffer], those of the turn after it on their way into
    // the next, and those of the turn before are being read until all but one group of products is done.
    const auto multiply = [&](int64_t k_block, auto buffer) {
      constexpr int kBuffer = decltype(buffer)::value;
      const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
      WeightRegisters<T>& w = weights[kBuffer];
      ptx::mbarrier_wait(&full[stage], phase);
      ptx::wgmma_fence(sums[0], sums[1], w.values[0][0], w.values[0][1], w.values[1][0], w.values[1][1]);
      const uint64_t tokens =
          k_major_descriptor(ptx::shared_address(shared + stage * Tile::kStageBytes), Swizzle::k128);
      constexpr bool kWide = sizeof(T) == 2;
      // A step is 64 bytes of x: descriptors count in 16.
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        ptx::wgmma_sparse<T, 0>(sums[i], w.values[i][0], tokens, w.metadata[i][0], true);
        ptx::wgmma_sparse<T, kWide ? 1 : 0>(sums[i], w.values[i][1], tokens + 4, w.metadata[i][kWide ? 0 : 1], true);
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      // The turn before is done with its stage and its registers.
      if (k_block > work.range.first) give_back(turn - 1);
      if (k_block + 2 < work.range.last) weights[(kBuffer + 2) % 3].load(args, n_block, k_block + 2, slice, lane);
      ++turn;
    };
    int64_t k_block = work.range.first;
    for (; k_block + 2 < work.range.last; k_block += 3) {
      multiply(k_block, std::integral_constant<int, 0>());
      multiply(k_block + 1, std::integral_constant<int, 1>());
      multiply(k_block + 2, std::integral_constant<int, 2>());
    }
    if (k_block < work.range.last) multiply(k_block, std::integral_constant<int, 0>());
    if (k_block + 1 < work.range.last) multiply(k_block + 1, std::integral_constant<int, 1>());
    ptx::wgmma_wait<0>(sums[0], sums[1]);
    if (work.range.first < work.range.last) give_back(turn - 1);

    const ClusterWork done = work;
    index = cluster.work_after(index, works);
    if (index < works) {
      work = ClusterWork(args, args.k_blocks, index, kTokens, Tile::kChannels, cluster);
      load_first(work);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // What was staged before has been read by all of this warpgroup.
      ptx::named_barrier_sync(1 + consumer, 128);
#pragma unroll
      for (int e = 0; e < Tile::kSums; ++e) {
        const fragments::Place at = fragments::c_place(lane, e);
        ptx::store_shared_4(staged + (at.column * Tile::kSumsStride + slice * 16 + at.row) * 4, bits_of(sums[i][e]));
      }
      ptx::named_barrier_sync(1 + consumer, 128);
      constexpr int kChunks = 64 / kChunk;
      const int64_t first = channel + i * 64 + thread % kChunks * kChunk;
      if (first < args.p.n) {
        const ChannelChunk chunk(args.p, first);
        finish_rows<Sum, kTokens, 128 / kChunks, Tile::kSumsStride>(
            args, chunk, done.split, done.token, thread / kChunks, staged + thread % kChunks * kChunk * 4);
      }
    }
    if (index >= works) return;
  }
}

// Budget of sm90::matmul: 168 registers.
template <class T, int kTokens>
__global__ void __launch_bounds__(384, 1)
    matmul(const MatmulArguments args, const __grid_constant__ TensorMap x, const int works) {
  using Tile = sm90::Tile<kTokens>;
  char* shared = ptx::smem();
  uint64_t* full = reinterpret_cast<uint64_t*>(shared + Tile::kBarrierOffset);
  uint64_t* empty = full + Tile::kStages;
  const int warpgroup = threadIdx.x / 128;
  const Cluster cluster;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init_ring(full, empty, Tile::kStages, 1, Tile::kConsumerWarps * cluster.blocks);
    ptx::fence_mbarrier_init();
    ptx::tensor_prefetch_map(&x);
  }
  cluster.meet();
  if (warpgroup == 0) {
    ptx::give_registers_back<40>();
    if (threadIdx.x == 0) produce<T, kTokens>(args, &x, works, cluster, shared, full, empty);
    __syncwarp();  // the barrier below wants whole warps
  } else {
    ptx::take_registers<232>();
    consume<T, kTokens>(args, works, cluster, warpgroup - 1, shared, full, empty);
  }
  // Until here the other blocks copy into this one, and give stages back to it.
  if (cluster.blocks > 1) cluster.meet();
}

}  // namespace sparsecore::semi_structured::sm90

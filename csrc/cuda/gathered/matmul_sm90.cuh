// y = x W^T over gathered inputs with wgmma: a block makes 64 or 128 channels of one run x kTokens tokens.
//
//   warpgroups     a producer, and two consumers that share the tile: tokens halved for 64 channels, channels for 128
//   shared memory  a ring of stages, each 64 gathered rows of xt (MN-major, swizzled: what wgmma reads as B) and what
//                  the format wants beside them
//   barriers       `full` of a stage counts the producer's threads, each arriving when its cp.async are done; `empty`
//                  counts the consumers' warps. cp.async writes through the generic proxy and wgmma reads through the
//                  async one, so consumers fence in between.
//   sums           pass through the ring when all have left it and are finished row by row
//
// A format gives: Arguments, which derive from gathered::Arguments; kChannelGroups (of 64 channels), kStageBytes;
// first_channel(args, tile), list(args, tile); load<kThreads>(args, tile, list, turn, thread, stage) as for sm_80; and
// Registers, what a warp holds of a turn's weights: load(args, tile, group, turn, slice, lane), fence(sums),
// multiply(sums, stage, tokens), where `tokens` describes the gathered inputs of the consumer.
#pragma once

#include "cuda/common/fence.h"
#include "cuda/common/fragments.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/named_barrier.h"
#include "cuda/common/wgmma_sparse.h"
#include "cuda/gathered/tiles.cuh"
#include "cuda/linear/epilogue.cuh"

namespace sparsecore::gathered::sm90 {

using cuda_linear::BlockRange;

constexpr int kDepth = 64;                                       // inputs of a turn
constexpr int kRowBytes = 128, kTileBytes = kDepth * kRowBytes;  // of 64 tokens or channels

// Bytes from a descriptor's start to the inputs `first` rows on, in the units of descriptors.
constexpr uint64_t rows_on(int first) { return static_cast<uint64_t>(first * kRowBytes >> 4); }

SC_DEVICE uint64_t mn_major_descriptor(const char* tile) {
  return matrix_descriptor(ptx::shared_address(tile), Swizzle::k128, kTileBytes, 8 * kRowBytes);
}

template <class Weights, int kTokensOfTile>
struct Tile {
  static constexpr int kTokens = kTokensOfTile, kThreads = 384, kProducers = 128, kConsumerWarps = 8;
  static constexpr int kChannels = 64 * Weights::kChannelGroups;
  static constexpr int kConsumerTokens = kTokens * Weights::kChannelGroups / 2, kSums = kConsumerTokens / 2;
  static constexpr int kTokenBytes = kTokens / 64 * kTileBytes, kStageBytes = kTokenBytes + Weights::kStageBytes;
  static constexpr int kStages = 200 * 1024 / kStageBytes < 8 ? 200 * 1024 / kStageBytes : 8;
  static constexpr int kRingBytes = kStages * kStageBytes;
  // [token][channel], rows of 68 sums: what one store of a warp writes falls into different banks.
  static constexpr int kSumsStride = 64 + 4, kSumsBytes = kConsumerTokens * kSumsStride * 4;
  static_assert(kStageBytes % 1024 == 0 && 2 * kSumsBytes <= kRingBytes, "swizzled tiles; sums take the ring's place");
  static constexpr int kSharedBytes = kRingBytes + 2 * kStages * 8;
};

template <class Weights, int kTokens>
SC_DEVICE void produce(const typename Weights::Arguments& args, int64_t tile, int64_t token, const List& list,
                       const BlockRange& range, char* shared, uint64_t* full, uint64_t* empty) {
  using Tile = sm90::Tile<Weights, kTokens>;
  const int thread = threadIdx.x;
  Gather<kTokens, kDepth, Tile::kProducers> gather;
  gather.fetch(list, range.first, thread);
  uint32_t turn = 0;
  for (int64_t at = range.first; at < range.last; ++at, ++turn) {
    const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
    char* to = shared + stage * Tile::kStageBytes;
    // The first round finds the stages empty: the phase before the first counts as complete.
    ptx::mbarrier_wait(&empty[stage], phase ^ 1);
    gather.load(args.xt, args.pitch, token, thread, to);
    Weights::template load<Tile::kProducers>(args, tile, list, at, thread, to + Tile::kTokenBytes);
    ptx::mbarrier_arrive_after_cp_async(&full[stage]);
    gather.fetch(list, at + 1, thread);
  }
}

template <class Weights, int kTokens>
SC_DEVICE void consume(const typename Weights::Arguments& args, int64_t tile, int64_t token, const BlockRange& range,
                       int consumer, char* shared, uint64_t* full, uint64_t* empty) {
  using Tile = sm90::Tile<Weights, kTokens>;
  const cuda_linear::Arguments& linear = args.linear;
  const int thread = threadIdx.x % 128, lane = thread % 32, slice = thread / 32;
  const int group = consumer % Weights::kChannelGroups;
  const int first_token = consumer / Weights::kChannelGroups * Tile::kConsumerTokens;

  float sums[Tile::kSums];
#pragma unroll
  for (int i = 0; i < Tile::kSums; ++i) sums[i] = 0;
  typename Weights::Registers weights[2];
  if (range.first < range.last) weights[0].load(args, tile, group, range.first, slice, lane);

  // A turn whose weights are in weights[kBuffer]; those of the turn before are being read until all but one group of
  // products is done.
  uint32_t turn = 0;
  const auto multiply = [&](int64_t at, auto buffer) {
    constexpr int kBuffer = decltype(buffer)::value;
    const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
    const char* from = shared + stage * Tile::kStageBytes;
    ptx::mbarrier_wait(&full[stage], phase);
    ptx::fence_proxy_async_shared();
    weights[kBuffer].fence(sums);
    weights[kBuffer].multiply(sums, from + Tile::kTokenBytes,
                              mn_major_descriptor(from + first_token / 64 * kTileBytes));
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    // The turn before is done with its stage and its registers.
    if (at > range.first && lane == 0) ptx::mbarrier_arrive(&empty[(turn - 1) % Tile::kStages]);
    if (at + 1 < range.last) weights[kBuffer ^ 1].load(args, tile, group, at + 1, slice, lane);
    ++turn;
  };
  int64_t at = range.first;
  for (; at + 1 < range.last; at += 2) {
    multiply(at, std::integral_constant<int, 0>());
    multiply(at + 1, std::integral_constant<int, 1>());
  }
  if (at < range.last) multiply(at, std::integral_constant<int, 0>());
  ptx::wgmma_wait<0>(sums);

  // Both consumers have left the ring, and every copy into it has arrived.
  ptx::named_barrier_sync(1, 256);
  char* staged = shared + consumer * Tile::kSumsBytes;
#pragma unroll
  for (int e = 0; e < Tile::kSums; ++e) {
    const fragments::Place place = fragments::c_place(lane, e);
    ptx::store_shared_4(staged + (place.column * Tile::kSumsStride + slice * 16 + place.row) * 4,
                        cuda_linear::bits_of(sums[e]));
  }
  ptx::named_barrier_sync(2 + consumer, 128);
  constexpr int kChunks = 64 / cuda_linear::kChunk;
  const int chunk = thread % kChunks * cuda_linear::kChunk;
  const int64_t first = Weights::first_channel(args, tile) + 64 * group + chunk;
  if (first >= linear.p.n) return;
  const cuda_linear::ChannelChunk channels(linear.p, first);
  const int64_t first_row = token + first_token;
  for (int row = thread / kChunks; row < Tile::kConsumerTokens && first_row + row < linear.p.m; row += 128 / kChunks)
    cuda_linear::finish_row<float>(linear, channels, blockIdx.y, first_row + row,
                                   staged + (row * Tile::kSumsStride + chunk) * 4);
}

// Budget of sm90::gathered_matmul: 168 registers.
template <class Weights, int kTokens>
__global__ void __launch_bounds__(384, 1) gathered_matmul(const typename Weights::Arguments args) {
  using Tile = sm90::Tile<Weights, kTokens>;
  char* shared = ptx::smem();
  uint64_t* full = reinterpret_cast<uint64_t*>(shared + Tile::kRingBytes);
  uint64_t* empty = full + Tile::kStages;
  const int64_t tile = blockIdx.x % args.linear.channel_tiles;
  const int64_t token = static_cast<int64_t>(blockIdx.x / args.linear.channel_tiles) * kTokens;
  const List list = Weights::list(args, tile);
  const BlockRange range = cuda_linear::split_range(ceil_div(list.length, kDepth), blockIdx.y, args.linear.splits);
  if (threadIdx.x == 0)
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      ptx::mbarrier_init(&full[stage], Tile::kProducers);
      ptx::mbarrier_init(&empty[stage], Tile::kConsumerWarps);
    }
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    produce<Weights, kTokens>(args, tile, token, list, range, shared, full, empty);
  } else {
    consume<Weights, kTokens>(args, tile, token, range, warpgroup - 1, shared, full, empty);
  }
}

}  // namespace sparsecore::gathered::sm90

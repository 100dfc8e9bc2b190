// y = x W^T over gathered inputs with wgmma: persistent blocks that make 64 or 128 channels of one run x kTokens
// tokens.
//
//   warpgroups     a producer, and two consumers that share the tile: tokens halved for 64 channels, channels for 128
//   shared memory  a ring of stages, each 64 gathered rows of xt (MN-major, swizzled: what wgmma reads as B) and what
//                  the format wants beside them; then 64 tokens of each consumer's sums
//   proxies        cp.async writes through the generic proxy and wgmma reads through the async one: every producing
//                  thread waits for its copies of a turn, fences, and only then arrives, kAhead turns after it issued
//                  them
//   barriers       `full` of a stage counts the producer's threads; `empty` the consumers' warps. Turn i of a block
//                  uses stage i % kStages, and the parity of i / kStages tells its phases apart, across tiles
//   sums           a consumer passes 64 of its tokens at a time through shared memory and finishes them row by row,
//                  while the producer fills the ring for the next tile
//
// A format gives: Arguments, which derive from gathered::Arguments; kChannelGroups (of 64 channels), kStageBytes;
// first_channel(args, tile), list(args, tile); load<kThreads>(args, tile, list, turn, thread, stage) as for sm_80; and
// Registers, what a warp holds of a turn's weights: load(args, tile, group, turn, slice, lane), fence(sums),
// multiply(sums, stage, tokens), where `tokens` describes the gathered inputs of the consumer.
#pragma once

#include "cuda/common/fence.h"
#include "cuda/common/fragments.h"
#include "cuda/common/launch.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/named_barrier.h"
#include "cuda/common/registers.h"
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
  // [token][channel], rows of 68 sums: what one store of a warp writes falls into different banks.
  static constexpr int kSumsStride = 64 + 4, kSumsBytes = 64 * kSumsStride * 4;
  static constexpr int kMostStages = (kSharedBytesSm90 - 2 * kSumsBytes - 128) / kStageBytes;
  static constexpr int kStages = kMostStages < 8 ? kMostStages : 8;
  // The consumers wait for a turn while they hold the one before, so two stages are not free to run ahead in.
  static constexpr uint32_t kAhead = kStages / 2;
  static_assert(kStageBytes % 1024 == 0 && kAhead >= 1 && kAhead <= kStages - 2);
  static constexpr int kRingBytes = kStages * kStageBytes, kBarrierOffset = kRingBytes + 2 * kSumsBytes;
  static constexpr int kSharedBytes = kBarrierOffset + 2 * kStages * 8;
};

// The persistent schedule: block b takes works b, b + blocks, ..; those of neighbouring blocks gather from the same
// tokens.
template <class Weights, int kTokens>
struct Work {
  int64_t tile, token;
  int split;
  BlockRange range;
  List list;

  SC_DEVICE Work(const typename Weights::Arguments& args, int index) {
    split = index % args.linear.splits;
    tile = index / args.linear.splits % args.linear.channel_tiles;
    token = static_cast<int64_t>(index / args.linear.splits / args.linear.channel_tiles) * kTokens;
    list = Weights::list(args, tile);
    range = cuda_linear::split_range(ceil_div(list.length, kDepth), split, args.linear.splits);
  }
};

// How four warps bring the kDepth rows of xt of a turn, kTokens tokens of each. A warp takes kRows rows at a time, and
// its lanes the columns of all the rows it takes in a turn, which it hands round: the copies of a turn are few
// instructions, and no more than that is what keeps the producer ahead of the tensor cores.
template <int kTokens>
struct WarpGather {
  static constexpr int kChunks = kTokens / kChunk, kRows = 32 / kChunks, kTurns = kDepth / (4 * kRows);
  static_assert(kRows * kTurns <= 32 && (kRows == 1 || kRows == 2), "a lane for each row");
  int32_t column = -1;

  // Row kRows * (4 * i + warp) + r of the turn for lane kRows * i + r.
  SC_DEVICE void fetch(const List& list, int64_t turn, int warp, int lane) {
    if (lane < kRows * kTurns) column = list.column(turn * kDepth + kRows * (lane / kRows * 4 + warp) + lane % kRows);
  }

  // Tokens [token, token + kTokens). What the list or the tokens lack becomes zero. The caller commits.
  SC_DEVICE void load(const uint16_t* xt, int64_t pitch, int64_t token, int warp, int lane, char* tile) const {
    const int chunk = lane % kChunks, row_of_warp = lane / kChunks;
    const bool has_tokens = token + chunk * kChunk < pitch;
    const uint4* from = reinterpret_cast<const uint4*>(xt + (has_tokens ? token + chunk * kChunk : 0));
    const uint32_t row_chunks = static_cast<uint32_t>(pitch / kChunk);
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const int32_t found = __shfl_sync(0xffffffffu, column, kRows * i + row_of_warp);
      const bool exists = found >= 0 && has_tokens;
      const uint4* source = from + static_cast<uint64_t>(exists ? static_cast<uint32_t>(found) : 0) * row_chunks;
      ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(
          tile + tile_place<kTokens, kDepth>(kRows * (4 * i + warp) + row_of_warp, chunk), source, exists ? 16 : 0);
    }
  }
};

template <class Weights, int kTokens>
SC_DEVICE void produce(const typename Weights::Arguments& args, int works, char* shared, uint64_t* full,
                       uint64_t* empty) {
  using Tile = sm90::Tile<Weights, kTokens>;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  // This thread's copies of the turn are done: wgmma will see them.
  const auto hand_over = [&](uint32_t turn) {
    ptx::fence_proxy_async_shared();
    ptx::mbarrier_arrive(&full[turn % Tile::kStages]);
  };
  WarpGather<kTokens> gather;
  int index = blockIdx.x;
  Work<Weights, kTokens> work(args, index);
  int64_t at = work.range.first;
  // To the next turn, of this work or of the next that has any. Its columns are on their way while copies are waited
  // for.
  const auto find_turn = [&] {
    while (at >= work.range.last) {
      const int next = cuda_linear::work_after(index, gridDim.x, works);
      if (next == works) break;
      index = next;
      work = Work<Weights, kTokens>(args, index);
      at = work.range.first;
    }
    if (at < work.range.last) gather.fetch(work.list, at, warp, lane);
  };
  find_turn();
  uint32_t turn = 0;
  for (; at < work.range.last; ++turn) {
    const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
    char* to = shared + stage * Tile::kStageBytes;
    // The first round finds the stages empty: the phase before the first counts as complete.
    ptx::mbarrier_wait(&empty[stage], phase ^ 1);
    gather.load(args.xt, args.pitch, work.token, warp, lane, to);
    Weights::template load<Tile::kProducers>(args, work.tile, work.list, at, thread, to + Tile::kTokenBytes);
    ptx::cp_async_commit();
    ++at;
    find_turn();
    if (turn >= Tile::kAhead) {
      ptx::cp_async_wait<Tile::kAhead>();
      hand_over(turn - Tile::kAhead);
    }
  }
  ptx::cp_async_wait<0>();
  for (uint32_t left = turn < Tile::kAhead ? turn : Tile::kAhead; left > 0; --left) hand_over(turn - left);
}

template <class Weights, int kTokens>
SC_DEVICE void consume(const typename Weights::Arguments& args, int works, int consumer, char* shared, uint64_t* full,
                       uint64_t* empty) {
  using Tile = sm90::Tile<Weights, kTokens>;
  const cuda_linear::Arguments& linear = args.linear;
  const int thread = threadIdx.x % 128, lane = thread % 32, slice = thread / 32;
  const int group = consumer % Weights::kChannelGroups;
  const int first_token = consumer / Weights::kChannelGroups * Tile::kConsumerTokens;
  char* staged = shared + Tile::kRingBytes + consumer * Tile::kSumsBytes;
  uint32_t turn = 0;

  for (int index = blockIdx.x; index < works; index = cuda_linear::work_after(index, gridDim.x, works)) {
    const Work<Weights, kTokens> work(args, index);
    const BlockRange& range = work.range;
    float sums[Tile::kSums];
#pragma unroll
    for (int i = 0; i < Tile::kSums; ++i) sums[i] = 0;
    typename Weights::Registers weights[2];
    if (range.first < range.last) weights[0].load(args, work.tile, group, range.first, slice, lane);

    // A turn whose weights are in weights[kBuffer]; those of the turn before are being read until all but one group of
    // products is done.
    const auto multiply = [&](int64_t at, auto buffer) {
      constexpr int kBuffer = decltype(buffer)::value;
      const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
      const char* from = shared + stage * Tile::kStageBytes;
      ptx::mbarrier_wait(&full[stage], phase);
      weights[kBuffer].fence(sums);
      weights[kBuffer].multiply(sums, from + Tile::kTokenBytes,
                                mn_major_descriptor(from + first_token / 64 * kTileBytes));
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      // The turn before is done with its stage and its registers.
      if (at > range.first && lane == 0) ptx::mbarrier_arrive(&empty[(turn - 1) % Tile::kStages]);
      if (at + 1 < range.last) weights[kBuffer ^ 1].load(args, work.tile, group, at + 1, slice, lane);
      ++turn;
    };
    int64_t at = range.first;
    for (; at + 1 < range.last; at += 2) {
      multiply(at, std::integral_constant<int, 0>());
      multiply(at + 1, std::integral_constant<int, 1>());
    }
    if (at < range.last) multiply(at, std::integral_constant<int, 0>());
    ptx::wgmma_wait<0>(sums);
    if (range.first < range.last && lane == 0) ptx::mbarrier_arrive(&empty[(turn - 1) % Tile::kStages]);

    constexpr int kChunks = 64 / cuda_linear::kChunk;
    const int chunk = thread % kChunks * cuda_linear::kChunk;
    const int64_t first = Weights::first_channel(args, work.tile) + 64 * group + chunk;
#pragma unroll
    for (int part = 0; part < Tile::kConsumerTokens / 64; ++part) {
      // What was staged before has been read by all of this warpgroup.
      ptx::named_barrier_sync(1 + consumer, 128);
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        const fragments::Place place = fragments::c_place(lane, e);
        ptx::store_shared_4(staged + (place.column * Tile::kSumsStride + slice * 16 + place.row) * 4,
                            cuda_linear::bits_of(sums[part * 32 + e]));
      }
      ptx::named_barrier_sync(1 + consumer, 128);
      if (first < linear.p.n) {
        const cuda_linear::ChannelChunk channels(linear.p, first);
        cuda_linear::finish_rows<float, 64, 128 / kChunks, Tile::kSumsStride>(
            linear, channels, work.split, work.token + first_token + 64 * part, thread / kChunks, staged + chunk * 4);
      }
    }
  }
}

// Budget of sm90::gathered_matmul: 168 registers.
template <class Weights, int kTokens>
__global__ void __launch_bounds__(384, 1) gathered_matmul(const typename Weights::Arguments args, const int works) {
  using Tile = sm90::Tile<Weights, kTokens>;
  char* shared = ptx::smem();
  uint64_t* full = reinterpret_cast<uint64_t*>(shared + Tile::kBarrierOffset);
  uint64_t* empty = full + Tile::kStages;
  if (threadIdx.x == 0) ptx::mbarrier_init_ring(full, empty, Tile::kStages, Tile::kProducers, Tile::kConsumerWarps);
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  // Where a consumer has 128 sums, it takes registers from the producer: 72 and 2 x 216 are 64512 of 65536 together.
  constexpr bool kManySums = Tile::kSums > 64;
  if (warpgroup == 0) {
    if constexpr (kManySums) ptx::give_registers_back<72>();
    produce<Weights, kTokens>(args, works, shared, full, empty);
  } else {
    if constexpr (kManySums) ptx::take_registers<216>();
    consume<Weights, kTokens>(args, works, warpgroup - 1, shared, full, empty);
  }
}

}  // namespace sparsecore::gathered::sm90

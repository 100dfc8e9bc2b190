// y = x W^T over gathered inputs for 1 to 32 tokens: bound by reading W once, so what counts is bytes in flight.
//
//   grid   runs of channels, splits of their lists
//   warps  share the list: warp w of W takes every W-th turn; each has a private ring in shared memory, filled by
//          cp.async, and waits for nobody in the loop
//   sums   of the warps are added in the order of the warps
//
// The format is described in matmul_sm80.cuh.
#pragma once

#include "cuda/gathered/matmul_sm80.cuh"

namespace sparsecore::gathered::sm80 {

template <class Weights, int kTokensOfTile>
struct SmallTile {
  static constexpr int kTokens = kTokensOfTile, kColumns = kTokens / 8, kDepth = Weights::kDepth;
  static constexpr int kSlices = Weights::kSlices, kChannels = 16 * kSlices;
  static constexpr int kTokenBytes = kDepth * kTokens * 2, kStageBytes = kTokenBytes + Weights::kStageBytes;
  // Rings of at most 96 KB, so that devices with 99 KB to a block hold one.
  static constexpr int kWarps = kStageBytes <= 3072 ? 8 : 4, kThreads = 32 * kWarps;
  static constexpr int kStages = kStageBytes <= 6144 ? 4 : kStageBytes <= 8192 ? 3 : 2;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static_assert(kStageBytes % 128 == 0 && kTokenBytes % 128 == 0 && kWarps * kRingBytes <= 96 << 10,
                "tiles begin where swizzles want them");
  // One row of sums for each channel, odd so that few lanes of a warp share a bank.
  static constexpr int kSumsStride = kTokens + 1, kSumsBytes = kWarps * kChannels * kSumsStride * 4;
  static constexpr int kSharedBytes = kSumsBytes > kWarps* kRingBytes ? kSumsBytes : kWarps * kRingBytes;
};

// Budget of sm80::gathered_matmul_small: 168 registers.
template <class Weights, int kTokens>
__global__ void __launch_bounds__(SmallTile<Weights, kTokens>::kThreads,
                                  SmallTile<Weights, kTokens>::kWarps == 8 ? 2 : 3)
    gathered_matmul_small(const typename Weights::Arguments args) {
  using Tile = SmallTile<Weights, kTokens>;
  const cuda_linear::Arguments& linear = args.linear;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  char* shared = ptx::smem();
  char* ring = shared + warp * Tile::kRingBytes;
  const int64_t tile = blockIdx.x;
  const List list = Weights::list(args, tile);
  const BlockRange range = cuda_linear::split_range(ceil_div(list.length, Tile::kDepth), blockIdx.y, linear.splits);

  Gather<kTokens, Tile::kDepth, 32> gather;
  const auto place_in_list = [&](int64_t turn) { return range.first + turn * Tile::kWarps + warp; };
  const auto load_stage = [&](int64_t turn) {
    if (place_in_list(turn) < range.last) {
      char* stage = ring + turn % Tile::kStages * Tile::kStageBytes;
      gather.load(args.xt, args.pitch, 0, lane, stage);
      Weights::template load<32>(args, tile, list, place_in_list(turn), lane, stage + Tile::kTokenBytes);
      gather.fetch(list, place_in_list(turn + 1), lane);
    }
    ptx::cp_async_commit();
  };
  gather.fetch(list, place_in_list(0), lane);
  for (int turn = 0; turn < Tile::kStages - 1; ++turn) load_stage(turn);

  float sums[Tile::kSlices][Tile::kColumns][4] = {};
  for (int64_t turn = 0; place_in_list(turn) < range.last; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // This turn's stage has arrived for every lane, and every lane is done with the one that is filled next.
    __syncwarp();
    load_stage(turn + Tile::kStages - 1);
    const char* stage = ring + turn % Tile::kStages * Tile::kStageBytes;
    multiply_turn<Weights, kTokens>(sums, stage, stage + Tile::kTokenBytes, 0, lane);
  }

  // [warp][channel][token] where the rings were: every copy has arrived.
  __syncthreads();
#pragma unroll
  for (int slice = 0; slice < Tile::kSlices; ++slice)
#pragma unroll
    for (int column = 0; column < Tile::kColumns; ++column)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int to = 16 * slice + lane / 4 + 8 * (e / 2), token = 8 * column + 2 * (lane % 4) + e % 2;
        ptx::store_shared_4(shared + ((warp * Tile::kChannels + to) * Tile::kSumsStride + token) * 4,
                            cuda_linear::bits_of(sums[slice][column][e]));
      }
  __syncthreads();
  const int64_t channel = Weights::first_channel(args, tile);
  for (int i = threadIdx.x; i < Tile::kChannels * kTokens; i += Tile::kThreads) {
    const int token = i / Tile::kChannels, to = i % Tile::kChannels;
    if (token >= linear.p.m || to >= Weights::channels(args) || channel + to >= linear.p.n) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Tile::kWarps; ++w)
      sum += __uint_as_float(ptx::load_shared_4(shared + ((w * Tile::kChannels + to) * Tile::kSumsStride + token) * 4));
    if (linear.splits > 1) {
      static_cast<float*>(
          linear.p
              .workspace)[(blockIdx.y * linear.p.m + token) * cuda_linear::padded_channels(linear.p.n) + channel + to] =
          sum;
    } else {
      cuda_linear::finish_one(linear, token, channel + to, sum);
    }
  }
}

}  // namespace sparsecore::gathered::sm80

// y = x W^T for many tokens, V:N:M weights: whole tiles of xt come to shared memory, where every run of channels picks
// its inputs as it reads.
//
//   window    8 groups of M inputs and 128 tokens: [half of the tokens][input][64 tokens], rows of 128 bytes, swizzled.
//             It holds the 32 inputs that a run picks for one mma.sp, and a transposing ldmatrix takes the rows of its
//             operand from 32 addresses, so that picking them is no work: lane l gives the row of pick l
//   tile      256 channels x 128 tokens by eight warps of 2048 / V tokens: 64 x 64, or 32 x 128 for runs of 32
//   cluster   one block, or two or four that make the tiles of neighbouring channels for the same tokens: each copies
//             its part of a window to all
//   producer  one thread: its part of a window by tensor copy, and requests that bring the weights of
//             the same inputs to L2
//   W         values, metadata and picks from global memory to registers, a window ahead, across works
//   ring      full[s] counts the bytes of all copies; empty[s] the eight consuming warps of each block of the cluster
//   sums      a warp passes some of its tokens at a time through shared memory of its own and finishes them row by row
//
// Registers: 40 for the producer's warpgroup, 232 for the two of the consumers, 64512 of 65536 together.
//
// What is no input of the window reads a row of zeros: kNoColumn, a place past the picks, a damaged pick.
#pragma once

#include "cuda/common/bulk_copy.h"
#include "cuda/common/cache_hints.h"
#include "cuda/common/launch.h"
#include "cuda/common/ldmatrix.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/mma_sparse.h"
#include "cuda/common/registers.h"
#include "cuda/linear/block_cluster.cuh"
#include "cuda/linear/epilogue.cuh"
#include "cuda/vnm/vnm.h"

namespace sparsecore::cuda_vnm::sm90 {

using cuda_linear::Cluster;
using cuda_linear::ClusterWork;

constexpr int kSpan = 32;        // picks of a window
constexpr int kHalfTokens = 64;  // of a row
constexpr int kPickedRowBytes = 2 * kHalfTokens;

constexpr int window_inputs(int group) { return kWindowGroups * group; }
constexpr int window_bytes(int group) { return window_inputs(group) * kPickedTokens * 2; }

// kSlices of 16 channels to a warp.
template <int kSlicesOfWarp>
struct PickedTile {
  static constexpr int kTokens = kPickedTokens, kChannels = kPickedChannels, kConsumerWarps = 8;
  static constexpr int kProducers = 128, kThreads = kProducers + 32 * kConsumerWarps;
  static constexpr int kSlices = kSlicesOfWarp, kWarpChannels = kSlices * kSliceChannels;
  static constexpr int kChannelWarps = kChannels / kWarpChannels, kTokenWarps = kConsumerWarps / kChannelWarps;
  static constexpr int kWarpTokens = kTokens / kTokenWarps, kColumns = kWarpTokens / 8;
  // 1024 sums of a warp at a time, [token][channel]. Rows are 4 longer: what one store writes falls into 32 banks.
  static constexpr int kStagedColumns = 8 / kSlices, kSumsStride = kWarpChannels + 4;
  static constexpr int kSumsBytes = 8 * kStagedColumns * kSumsStride * 4;
  static constexpr int kMostStages = 8;
  // In front of the ring, whose windows begin at multiples of 1024: barriers, zeros, sums.
  static constexpr int kZeros = 128, kSums = 256;
  static constexpr int kRing = static_cast<int>(ceil_div(kSums + kConsumerWarps * kSumsBytes, 1024) * 1024);
  static_assert(2 * kMostStages * 8 <= kZeros);

  static constexpr int stages(int group) {
    const int fit = (kSharedBytesSm90 - kRing) / window_bytes(group);
    return fit < kMostStages ? fit : kMostStages;
  }
  static constexpr int shared_bytes(int group) { return kRing + stages(group) * window_bytes(group); }
  static_assert(stages(kLargestPickedGroup) >= 4, "enough windows to run ahead in");
};

// Where a thread is in the ring. The phases of a stage alternate, across works.
struct RingPlace {
  int stage = 0;
  uint32_t phase = 0;

  SC_DEVICE void advance(int stages) {
    if (++stage < stages) return;
    stage = 0;
    phase ^= 1;
  }
};

template <int kSlices>
SC_DEVICE void produce_windows(const MatmulArguments& args, const TensorMap* xt, int works, Cluster cluster,
                               char* shared, uint64_t* full, uint64_t* empty) {
  using Tile = PickedTile<kSlices>;
  constexpr uint32_t kBlockValueBytes = kBlockSlices * kSliceValueBytes,
                     kBlockMetadataBytes = kBlockSlices * kSliceMetadataBytes;
  const int inputs = window_inputs(args.group), part_inputs = inputs / cluster.blocks;
  const int first_input = cluster.rank * part_inputs, stages = Tile::stages(args.group);
  const int n_blocks = static_cast<int>(ceil_div(args.linear.p.n, kBlockChannels));
  const uint64_t policy = ptx::policy_evict_normal();
  RingPlace at;
  for (int index = cluster.index(); index < works; index = cluster.work_after(index, works)) {
    const ClusterWork work(args.linear, args.k_blocks, index, Tile::kTokens, Tile::kChannels, cluster);
    const int n_block = static_cast<int>(work.channel / kBlockChannels), last = static_cast<int>(work.range.last);
    for (int k_block = static_cast<int>(work.range.first); k_block < last; ++k_block) {
#pragma unroll
      for (int span = 0; span < 2; ++span) {
        // The first round finds the stages empty: the phase before the first counts as complete.
        ptx::mbarrier_wait(&empty[at.stage], at.phase ^ 1);
        ptx::mbarrier_arrive_expect_bytes(&full[at.stage], window_bytes(args.group));
        char* window = shared + Tile::kRing + at.stage * window_bytes(args.group);
#pragma unroll
        for (int half = 0; half < Tile::kTokens / kHalfTokens; ++half) {
          const int32_t from[2] = {static_cast<int32_t>(work.token) + half * kHalfTokens,
                                   (2 * k_block + span) * inputs + first_input};
          char* to = window + (half * inputs + first_input) * kPickedRowBytes;
          if (cluster.blocks > 1) {
            ptx::tensor_load_multicast(to, xt, from, &full[at.stage], cluster.everybody(), policy);
          } else {
            ptx::tensor_load(to, xt, from, &full[at.stage]);
          }
        }
        at.advance(stages);
      }
      for (int i = 0; i < Tile::kChannels / kBlockChannels && n_block + i < n_blocks; ++i) {
        const int64_t block = (n_block + i) * args.k_blocks + k_block;
        ptx::bulk_prefetch_l2(static_cast<const char*>(args.weight.packed.values) + block * kBlockValueBytes,
                              kBlockValueBytes);
        ptx::bulk_prefetch_l2(reinterpret_cast<const char*>(args.weight.packed.metadata) + block * kBlockMetadataBytes,
                              kBlockMetadataBytes);
      }
    }
  }
}

// A lane's weights of kSlices slices for one span, and its pick.
template <int kSlices>
struct SpanRegisters {
  uint32_t values[kSlices][4];
  uint32_t pick;
};

// A lane's place in the weights of its warp's channels, which are of one run and of one block of Sp24.
template <int kSlices>
struct WeightCursor {
  static constexpr int kSliceVectors = kSliceValueBytes / 16;
  const uint4* values;
  const uint32_t* metadata;
  const uint16_t* picks;
  int32_t left;  // picks from here to the end of the list

  // Channels past n have no weights: those of the last block are as good, since their sums are not stored.
  SC_DEVICE WeightCursor(const MatmulArguments& args, int64_t channel, int64_t k_block, int lane) {
    const int64_t last = args.linear.p.n - 1, run = (channel < last ? channel : last) / args.weight.vector;
    const int64_t slices = ceil_div(args.linear.p.n, kBlockChannels) * kBlockSlices;
    const int64_t slice = channel / kSliceChannels < slices ? channel / kSliceChannels : slices - kSlices;
    const int64_t at = (slice / kBlockSlices * args.k_blocks + k_block) * kBlockSlices + slice % kBlockSlices;
    values = static_cast<const uint4*>(args.weight.packed.values) + at * kSliceVectors + lane;
    metadata = args.weight.packed.metadata + at * 32 + lane;
    picks = args.weight.columns + run * args.weight.picked + k_block * kBlockInputs + lane;
    left = static_cast<int32_t>(args.weight.picked - k_block * kBlockInputs) - lane;
  }
  // To the next block of inputs.
  SC_DEVICE void advance() {
    values += kBlockSlices * kSliceVectors;
    metadata += kBlockSlices * 32;
    picks += kBlockInputs;
    left -= kBlockInputs;
  }

  SC_DEVICE void load(SpanRegisters<kSlices>& registers, int span) const {
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const uint4 vector = values[slice * kSliceVectors + span * 32];
      registers.values[slice][0] = vector.x;
      registers.values[slice][1] = vector.y;
      registers.values[slice][2] = vector.z;
      registers.values[slice][3] = vector.w;
    }
    registers.pick = span * kSpan < left ? picks[span * kSpan] : kNoColumn;
  }
  // Of both spans.
  SC_DEVICE void load_metadata(uint32_t (&words)[kSlices]) const {
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) words[slice] = metadata[slice * 32];
  }
};

template <class T, int kSlices>
SC_DEVICE void consume_windows(const MatmulArguments& args, int works, Cluster cluster, char* shared, uint64_t* full,
                               uint64_t* empty) {
  using Tile = PickedTile<kSlices>;
  const cuda_linear::Arguments& linear = args.linear;
  const int lane = threadIdx.x % 32, warp = (threadIdx.x - Tile::kProducers) / 32;
  const int warp_channel = warp % Tile::kChannelWarps * Tile::kWarpChannels;
  const int warp_token = warp / Tile::kChannelWarps * Tile::kWarpTokens;
  const int inputs = window_inputs(args.group), stages = Tile::stages(args.group);
  char* staged = shared + Tile::kSums + warp * Tile::kSumsBytes;
  RingPlace at;
  int read = -1;  // the stage of the window before

  // The span that is multiplied, and the one on its way.
  SpanRegisters<kSlices> spans[2];
  uint32_t metadata[kSlices], next_metadata[kSlices];
  const auto load_first = [&](int index) {
    const ClusterWork work(linear, args.k_blocks, index, Tile::kTokens, Tile::kChannels, cluster);
    if (work.range.first >= work.range.last) return;
    const WeightCursor<kSlices> weights(args, work.channel + warp_channel, work.range.first, lane);
    weights.load(spans[0], 0);
    weights.load_metadata(next_metadata);
  };
  load_first(cluster.index());

  for (int index = cluster.index(); index < works; index = cluster.work_after(index, works)) {
    const ClusterWork work(linear, args.k_blocks, index, Tile::kTokens, Tile::kChannels, cluster);
    const uint32_t token = static_cast<uint32_t>(work.token), channel = static_cast<uint32_t>(work.channel);
    WeightCursor<kSlices> weights(args, int64_t{channel} + warp_channel, work.range.first, lane);
    uint32_t window = static_cast<uint32_t>(2 * work.range.first * inputs);  // its first input
    float sums[kSlices][Tile::kColumns][4] = {};
    const auto multiply = [&](auto span) {
      constexpr int kSelector = decltype(span)::value;
      const SpanRegisters<kSlices>& of_span = spans[kSelector];
      ptx::mbarrier_wait(&full[at.stage], at.phase);
      // All of the window before has arrived in registers: its products have been issued.
      if (read >= 0) cluster.give_back(&empty[read], lane);
      read = at.stage;
      const uint32_t input = of_span.pick - window;
      const bool exists = input < static_cast<uint32_t>(inputs);
      const uint32_t half_bytes = exists ? inputs * kPickedRowBytes : 0;
      const uint32_t row = exists ? Tile::kRing + at.stage * window_bytes(args.group) +
                                        warp_token / kHalfTokens * half_bytes +
                                        swizzled<Swizzle::k128>(static_cast<int>(input), 0)
                                  : Tile::kZeros;
      // Rows begin at multiples of 128 bytes and then in the chunk that the swizzle exchanges with the first.
      const auto load_tokens = [&](uint32_t (&b)[4], int column) {
        const uint32_t chunk = warp_token % kHalfTokens / 8 + column;
        ptx::ldmatrix_transposed(b, shared + ((row + chunk / 8 * half_bytes) ^ (chunk % 8 * 16)));
      };
      uint32_t tokens[2][4];
      load_tokens(tokens[0], 0);
#pragma unroll
      for (int column = 0; column < Tile::kColumns; ++column) {
        if (column + 1 < Tile::kColumns) load_tokens(tokens[(column + 1) % 2], column + 1);
#pragma unroll
        for (int slice = 0; slice < kSlices; ++slice)
          ptx::mma_sparse<T, kSelector>(sums[slice][column], of_span.values[slice], tokens[column % 2],
                                        metadata[slice]);
      }
      at.advance(stages);
      window += inputs;
    };
    for (int left = static_cast<int>(work.range.last - work.range.first); left > 0; --left) {
#pragma unroll
      for (int slice = 0; slice < kSlices; ++slice) metadata[slice] = next_metadata[slice];
      weights.load(spans[1], 1);
      multiply(std::integral_constant<int, 0>());
      if (left > 1) {
        weights.advance();
        weights.load(spans[0], 0);
        weights.load_metadata(next_metadata);
      }
      multiply(std::integral_constant<int, 1>());
    }

    if (const int next = cluster.work_after(index, works); next < works) load_first(next);

    constexpr int kChunks = Tile::kWarpChannels / cuda_linear::kChunk;
    const int chunk = lane % kChunks * cuda_linear::kChunk;
    const int64_t first = int64_t{channel} + warp_channel + chunk;
    const bool any = first < linear.p.n;
    const cuda_linear::ChannelChunk channels(linear.p, any ? first : 0);
#pragma unroll
    for (int part = 0; part < Tile::kColumns; part += Tile::kStagedColumns) {
      __syncwarp();  // what was staged before has been read
#pragma unroll
      for (int column = 0; column < Tile::kStagedColumns; ++column)
#pragma unroll
        for (int slice = 0; slice < kSlices; ++slice)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int row = 8 * column + 2 * (lane % 4) + e % 2, to = 16 * slice + lane / 4 + 8 * (e / 2);
            ptx::store_shared_4(staged + (row * Tile::kSumsStride + to) * 4,
                                cuda_linear::bits_of(sums[slice][part + column][e]));
          }
      __syncwarp();
      const int64_t first_row = int64_t{token} + warp_token + 8 * part;
      if (any)
        for (int row = lane / kChunks; row < 8 * Tile::kStagedColumns && first_row + row < linear.p.m;
             row += 32 / kChunks)
          cuda_linear::finish_row<float>(linear, channels, work.split, first_row + row,
                                         staged + (row * Tile::kSumsStride + chunk) * 4,
                                         cuda_linear::packed_residual(linear, channels, first_row + row));
    }
  }
}

// Budget of sm90::picked_matmul: 168 registers.
template <class T, int kSlices>
__global__ void __launch_bounds__(384, 1)
    picked_matmul(const MatmulArguments args, const __grid_constant__ TensorMap xt, const int works) {
  using Tile = PickedTile<kSlices>;
  char* shared = ptx::smem();
  uint64_t* full = reinterpret_cast<uint64_t*>(shared);
  uint64_t* empty = full + Tile::kMostStages;
  const Cluster cluster;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init_ring(full, empty, Tile::stages(args.group), 1, Tile::kConsumerWarps * cluster.blocks);
    ptx::fence_mbarrier_init();
    ptx::tensor_prefetch_map(&xt);
  }
  if (threadIdx.x < kPickedRowBytes / 4) ptx::store_shared_4(shared + Tile::kZeros + 4 * threadIdx.x, 0);
  cluster.meet();
  if (threadIdx.x < Tile::kProducers) {
    ptx::give_registers_back<40>();
    if (threadIdx.x == 0) produce_windows<kSlices>(args, &xt, works, cluster, shared, full, empty);
    __syncwarp();  // the barrier below wants whole warps
  } else {
    ptx::take_registers<232>();
    consume_windows<T, kSlices>(args, works, cluster, shared, full, empty);
  }
  // Until here the other blocks copy into this one, and give stages back to it.
  if (cluster.blocks > 1) cluster.meet();
}

}  // namespace sparsecore::cuda_vnm::sm90

// y = x W^T for 1 to 32 tokens: bound by reading the kept blocks once, so what counts is bytes in flight.
//
//   grid        x: rows of blocks in `order`, the runs of kChannels channels of a row next to each other and the token
//               tiles of a run; y: splits of a row's entries
//   a unit      kChannels channels x 32 inputs of one entry; with blocks of 16, of two
//   warps       share the units of a row: warp w of W takes every W-th; each has a private ring of kStages units in
//               shared memory, filled by cp.async, and waits for nobody in the loop
//   lanes       lane 4g + t copies, and alone reads, inputs 8t .. 8t + 7 of the unit: of the rows g and g + 8 of every
//               slice of 16 channels, and of the tokens g, g + 8 ..; a register of these is what mma wants of the lane.
//               Which inputs the products call k = 2t, 2t + 1, 2t + 8 and 2t + 9 does not matter, as both operands
//               agree
//   transposed  a block has rows of inputs, so that a vector in memory is eight channels of one input. The unit's
//               weights lie in shared memory as 32 rows of inputs, input 8t + 2i + e at row 8i + 2t + e: the eight rows
//               that ldmatrix turns into register i are then the inputs 8t + 2i and 8t + 2i + 1 of every t, the ones
//               that register i of x has, and lie behind each other. Lanes read what others of their warp copied
//   sums        of the warps are added in the order of the warps
//
// The kernel for many tokens is linear_sm80.cuh.
#pragma once

#include "cuda/block_sparse/index.cuh"
#include "cuda/common/cache_hints.h"
#include "cuda/linear/product_tile.cuh"
#include "cuda/linear/tokens.cuh"
#include "cuda/linear/warp_sums.cuh"

namespace sparsecore::block_sparse::sm80 {

// kChannels: 16 for blocks of 16, else 32 (small_channels).
template <int kChannelsOfTile, int kTokensOfTile>
struct SmallTile {
  static constexpr int kChannels = kChannelsOfTile, kSlices = kChannels / 16;
  static constexpr int kTokens = kTokensOfTile, kColumns = kTokens / 8;
  static constexpr int kUnitInputs = 32, kEntriesOfUnit = kUnitInputs / kChannels;
  // 16 to 32 KB of weights on their way, and at most 64 KB of shared memory, so that two blocks of threads or more
  // share a multiprocessor (on sm_86 and sm_89 one).
  static constexpr int kWarps = kTokens == 8 ? 8 : 4, kThreads = 32 * kWarps, kStages = kTokens == 8 ? 3 : 4;
  static constexpr int kPieceBytes = 32 * 16;  // one vector of each lane
  static constexpr int kWeightBytes = 2 * kSlices * kPieceBytes;
  static constexpr int kStageBytes = kWeightBytes + kColumns * kPieceBytes, kRingBytes = kStages * kStageBytes;
  static constexpr int kSumsBytes = cuda_linear::kWarpSumBytes<kWarps, kChannels, kTokens>;
  static constexpr int kSharedBytes = kSumsBytes > kWarps* kRingBytes ? kSumsBytes : kWarps * kRingBytes;
};

SC_DEVICE void load_vector(uint32_t (&words)[4], const char* shared) {
  const uint4 vector = ptx::load_shared_16(shared);
  words[0] = vector.x, words[1] = vector.y, words[2] = vector.z, words[3] = vector.w;
}

// Budget of sm80::linear_small: 128 registers.
template <class T, int kChannels, int kTokens, bool kTransposed>
__global__ void __launch_bounds__(SmallTile<kChannels, kTokens>::kThreads, 2) linear_small(const LinearArguments args) {
  using Tile = SmallTile<kChannels, kTokens>;
  const BlockSparse& weight = args.weight;
  const int size = kChannels == 16 ? 16 : weight.size, runs = size / kChannels;  // of a row of blocks
  const int part_bits = size == 128 ? 2 : size == 64 ? 1 : 0;                    // of a unit's number
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  char* shared = ptx::smem();
  char* ring = shared + warp * Tile::kRingBytes;
  const int64_t token = static_cast<int64_t>(blockIdx.x % args.token_tiles) * kTokens;
  const int run_of_grid = blockIdx.x / args.token_tiles, first_row = run_of_grid % runs * kChannels;
  const int32_t row = inside_or_none(weight.order[run_of_grid / runs], args.rows);
  if (row < 0) return;
  const Entries entries = entries_of(weight, row, blockIdx.y, args.splits);
  const int units = (entries.last - entries.first + Tile::kEntriesOfUnit - 1) / Tile::kEntriesOfUnit << part_bits;
  const uint64_t once = ptx::policy_evict_first();

  // What the lane copies of a unit: a vector of x, and vectors of weights that are kRowsApart rows apart and
  // kPieceBytes in shared memory. Of each the entry of the unit that it lies in, and where it begins in there.
  const int input = lane % 4 * 8 % kChannels, slot_of_x = lane % 4 * 8 / kChannels;
  constexpr int kRowChunks = kChannels / 8, kRowsApart = kTransposed ? 8 / kRowChunks : 8;  // transposed: of inputs
  const int row_of_unit = lane / kRowChunks, chunk = lane % kRowChunks;
  const int slot = kTransposed ? row_of_unit % 8 * 4 / kChannels : slot_of_x;
  const int down =
      kTransposed ? (row_of_unit % 8 / 2 * 8 + row_of_unit / 8 * 2 + row_of_unit % 2) % kChannels : lane / 4;
  const int across = kTransposed ? chunk * 8 : input;
  const uint32_t own =
      kTransposed ? cuda_linear::place<Tile::kUnitInputs, kChannels>(row_of_unit, chunk * 16) : lane * 16;
  const auto part_of = [&](int unit) { return (unit & ((1 << part_bits) - 1)) * Tile::kUnitInputs; };

  int32_t column, block;  // of the next unit that is loaded; negative where there is no entry
  const auto look_up = [&](int unit) {
    const int32_t entry = entries.first + (unit >> part_bits) * Tile::kEntriesOfUnit;
    column = unit < units && entry + slot_of_x < entries.last ? weight.index[entry + slot_of_x] : -1;
    block = unit >= units || entry + slot >= entries.last ? -1
            : kTransposed                                 ? inside_or_none(weight.source[entry + slot], weight.blocks)
                                                          : entry + slot;
  };
  const auto load_stage = [&](int turn) {
    const int unit = turn * Tile::kWarps + warp;
    if (unit < units) {
      char* stage = ring + turn % Tile::kStages * Tile::kStageBytes;
      const int row_of_block = (kTransposed ? part_of(unit) : first_row) + down;
      const int column_of_block = (kTransposed ? first_row : part_of(unit)) + across;
      const char* values = static_cast<const char*>(weight.values) +
                           ((int64_t{block} * size + row_of_block) * size + column_of_block) * 2;
#pragma unroll
      for (int i = 0; i < 2 * Tile::kSlices; ++i) {
        if (block >= 0) {
          ptx::cp_async_hinted(stage + i * Tile::kPieceBytes + own, values + i * kRowsApart * size * 2, once);
        } else {
          ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(stage + i * Tile::kPieceBytes + own, weight.values, 0);
        }
      }
#pragma unroll
      for (int i = 0; i < Tile::kColumns; ++i)
        cuda_linear::load_token_vector(args, token + 8 * i + lane / 4, int64_t{column} * size + part_of(unit) + input,
                                       stage + Tile::kWeightBytes + i * Tile::kPieceBytes + lane * 16);
      look_up(unit + Tile::kWarps);
    }
    ptx::cp_async_commit();
  };

  float sums[Tile::kSlices][Tile::kColumns][4] = {};
  const auto multiply = [&](const char* stage) {
    uint4 x[Tile::kColumns];
#pragma unroll
    for (int i = 0; i < Tile::kColumns; ++i)
      x[i] = ptx::load_shared_16(stage + Tile::kWeightBytes + i * Tile::kPieceBytes + lane * 16);
#pragma unroll
    for (int slice = 0; slice < Tile::kSlices; ++slice) {
      uint32_t upper[4], lower[4];  // channels 0 to 7 of the slice, and 8 to 15
      if constexpr (kTransposed) {
        const auto row_of_lane = [&](int channel) {
          return stage + cuda_linear::place<Tile::kUnitInputs, kChannels>(lane, 2 * channel);
        };
        ptx::ldmatrix_transposed(upper, row_of_lane(16 * slice));
        ptx::ldmatrix_transposed(lower, row_of_lane(16 * slice + 8));
      } else {
        load_vector(upper, stage + 2 * slice * Tile::kPieceBytes + lane * 16);
        load_vector(lower, stage + (2 * slice + 1) * Tile::kPieceBytes + lane * 16);
      }
      const uint32_t a[2][4] = {{upper[0], lower[0], upper[1], lower[1]}, {upper[2], lower[2], upper[3], lower[3]}};
#pragma unroll
      for (int i = 0; i < Tile::kColumns; ++i) {
        const uint32_t b[2][2] = {{x[i].x, x[i].y}, {x[i].z, x[i].w}};
        ptx::mma<T>(sums[slice][i], a[0], b[0]);
        ptx::mma<T>(sums[slice][i], a[1], b[1]);
      }
    }
  };

  look_up(warp);
  for (int turn = 0; turn < Tile::kStages - 1; ++turn) load_stage(turn);
  for (int turn = 0; turn * Tile::kWarps + warp < units; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // What the other lanes copied has arrived too, and they are done with the stage that is loaded next.
    if constexpr (kTransposed) __syncwarp();
    load_stage(turn + Tile::kStages - 1);
    multiply(ring + turn % Tile::kStages * Tile::kStageBytes);
  }

  // [warp][channel][token] where the rings were: every copy has arrived.
  __syncthreads();
#pragma unroll
  for (int slice = 0; slice < Tile::kSlices; ++slice)
#pragma unroll
    for (int i = 0; i < Tile::kColumns; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int to = 16 * slice + lane / 4 + 8 * (e / 2), to_token = 8 * i + 2 * (lane % 4) + e % 2;
        ptx::store_shared_4(shared + cuda_linear::sum_place<kChannels, kTokens>(warp, to, to_token) * 4,
                            cuda_linear::bits_of(sums[slice][i][e]));
      }
  __syncthreads();
  cuda_linear::finish_warp_sums<float, Tile::kWarps, kChannels, kTokens, Tile::kThreads>(
      args, token, static_cast<int64_t>(row) * size + first_row, blockIdx.y, shared);
}

}  // namespace sparsecore::block_sparse::sm80

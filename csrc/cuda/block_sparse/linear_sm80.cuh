// y = x W^T with mma: a block of threads makes one row of blocks, kSize channels, for kTokens tokens.
//
//   grid      x: rows of blocks in `order`, the token tiles of a row next to each other; y: splits of a row's entries
//   a turn    64 inputs: half a block of 128, one of 64, two of 32, four of 16. A tile of kTokens x 128 bytes of x,
//             gathered from the columns of the turn's entries, and the weights of these entries
//   weights   as they stand, channels x 128 bytes; or, of the transposed matrix, 64 rows of inputs x kSize channels,
//   from
//             which ldmatrix makes the transposed operand
//   ring      kStages turns, cp.async, one barrier a turn; what a turn's copies need to know of the index is loaded a
//             turn before them
//   sums      through shared memory, finished row by row, or to the workspace with several splits (linear/epilogue.cuh)
//
// Entries past the end of a row and columns outside of the matrix are zeros on both sides. Shared memory for blocks of
// 128 and 128 tokens: 3 x 32 KB, which every device since sm_80 has.
#pragma once

#include "cuda/block_sparse/index.cuh"
#include "cuda/linear/product_tile.cuh"

namespace sparsecore::block_sparse::sm80 {

template <int kSizeOfBlock, int kTokensOfTile>
struct Tile : cuda_linear::ProductTile<kSizeOfBlock, kTokensOfTile> {
  using Base = cuda_linear::ProductTile<kSizeOfBlock, kTokensOfTile>;
  static constexpr int kSize = kSizeOfBlock, kTokens = kTokensOfTile;
  static constexpr int kBlocksOfTurn = kSize < kTurnColumns ? kTurnColumns / kSize : 1;
  static constexpr int kTurnsOfBlock = kSize > kTurnColumns ? kSize / kTurnColumns : 1;
  static constexpr int kStageBytes = Base::kTokenBytes + Base::kWeightBytes;
  static constexpr int kStages = kSize == 128 && kTokens == 128 ? 3 : 4;
  static constexpr int kResident = kSize == 128 && kTokens == 128 ? 1 : 2;  // blocks of threads that registers allow
  // Chunks of 16 bytes of weights, and how many a thread copies.
  static constexpr int kWeightChunks = Base::kWeightBytes / 16;
  static constexpr int kCopies = (kWeightChunks + Base::kThreads - 1) / Base::kThreads;
  static constexpr int kSharedBytes =
      Base::kSumsBytes > kStages* kStageBytes ? Base::kSumsBytes : kStages * kStageBytes;
};

// Where chunk q of a turn's weights comes from and goes to.
template <class Tile, bool kTransposed>
struct WeightChunk {
  int slot, row, byte;  // which of the turn's entries; row and byte of a block, without `half`
  uint32_t to;

  SC_DEVICE explicit WeightChunk(int q) {
    if constexpr (kTransposed) {
      constexpr int kRowChunks = Tile::kSize / 8;
      const int input = q / kRowChunks;
      slot = Tile::kBlocksOfTurn > 1 ? input / Tile::kSize : 0;
      row = Tile::kBlocksOfTurn > 1 ? input % Tile::kSize : input;
      byte = q % kRowChunks * 16;
      to = cuda_linear::place<kTurnColumns, Tile::kSize>(input, byte);
    } else {
      slot = Tile::kBlocksOfTurn > 1 ? q % 8 * 8 / Tile::kSize : 0;
      row = q / 8;
      byte = Tile::kBlocksOfTurn > 1 ? q % 8 * 16 % (2 * Tile::kSize) : q % 8 * 16;
      to = cuda_linear::place<Tile::kSize, kTurnColumns>(row, q % 8 * 16);
    }
  }
};

// Budget of sm80::linear: 208 registers.
template <class T, int kSize, int kTokens, bool kTransposed>
__global__ void __launch_bounds__(Tile<kSize, kTokens>::kThreads, Tile<kSize, kTokens>::kResident)
    linear(const LinearArguments args) {
  using Tile = sm80::Tile<kSize, kTokens>;
  const BlockSparse& weight = args.weight;
  char* shared = ptx::smem();
  const int thread = threadIdx.x;
  const int64_t token = static_cast<int64_t>(blockIdx.x % args.token_tiles) * kTokens;
  const int32_t row = inside_or_none(weight.order[blockIdx.x / args.token_tiles], args.rows);
  if (row < 0) return;
  const Entries entries = entries_of(weight, row, blockIdx.y, args.splits);
  const int turns =
      (entries.last - entries.first + Tile::kBlocksOfTurn - 1) / Tile::kBlocksOfTurn * Tile::kTurnsOfBlock;

  const cuda_linear::Matrix x = {args.p.x, args.p.m, args.p.k, args.p.x_row_stride, args.x_vectors};
  // Of the entries that this thread copies from in one turn: the column of its chunk of x, the blocks of its weights;
  // -1 where there is no entry.
  constexpr int kLookups = Tile::kBlocksOfTurn > 1 ? Tile::kCopies : 1;
  int32_t column = -1, blocks[kLookups];
  const int chunk = thread % 8, slot_of_x = Tile::kBlocksOfTurn > 1 ? chunk * 8 / kSize : 0;
  const auto look_up = [&](int turn) {
    const int32_t first = entries.first + turn / Tile::kTurnsOfBlock * Tile::kBlocksOfTurn;
    column = first + slot_of_x < entries.last ? weight.index[first + slot_of_x] : -1;
#pragma unroll
    for (int i = 0; i < kLookups; ++i) {
      const int32_t entry = first + WeightChunk<Tile, kTransposed>(thread + i * Tile::kThreads).slot;
      blocks[i] = entry >= entries.last ? -1
                  : kTransposed         ? inside_or_none(weight.source[entry], weight.blocks)
                                        : entry;
    }
  };
  const auto load_stage = [&](int turn) {
    if (turn < turns) {
      char* stage = shared + turn % Tile::kStages * Tile::kStageBytes;
      const int half = Tile::kTurnsOfBlock > 1 ? turn % Tile::kTurnsOfBlock : 0;
      constexpr int kSpan = kSize < kTurnColumns ? 2 * kSize : 2 * kTurnColumns;
      const int64_t input = static_cast<int64_t>(column) * kSize + half * kTurnColumns + chunk * 16 % kSpan / 2;
      cuda_linear::load_rows<kTokens, kTurnColumns, Tile::kThreads>(x, token, input, thread, stage);
      const char* values = static_cast<const char*>(weight.values);
#pragma unroll
      for (int i = 0; i < Tile::kCopies; ++i) {
        if (Tile::kWeightChunks % Tile::kThreads != 0 && thread + i * Tile::kThreads >= Tile::kWeightChunks) break;
        const WeightChunk<Tile, kTransposed> part(thread + i * Tile::kThreads);
        const int64_t block = blocks[i < kLookups ? i : 0];
        const int row_of_block = part.row + (kTransposed ? half * kTurnColumns : 0);
        const int byte = part.byte + (kTransposed ? 0 : half * 2 * kTurnColumns);
        ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(
            stage + Tile::kTokenBytes + part.to,
            block < 0 ? values : values + (block * kSize + row_of_block) * (2 * kSize) + byte, block < 0 ? 0 : 16);
      }
    }
    ptx::cp_async_commit();
  };

  for (int stage = 0; stage < Tile::kStages - 1; ++stage) {
    look_up(stage);
    load_stage(stage);
  }
  look_up(Tile::kStages - 1);
  cuda_linear::ProductSums<Tile> sums(thread);
  for (int turn = 0; turn < turns; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // The stage of this turn has arrived for everybody, and everybody is done with that of the last turn, whose place
    // the next load takes.
    __syncthreads();
    load_stage(turn + Tile::kStages - 1);
    look_up(turn + Tile::kStages);
    const char* stage = shared + turn % Tile::kStages * Tile::kStageBytes;
    sums.template multiply<T, kTransposed>(stage, stage + Tile::kTokenBytes);
  }
  sums.finish(args, static_cast<int64_t>(row) * kSize, token, blockIdx.y, shared);
}

}  // namespace sparsecore::block_sparse::sm80

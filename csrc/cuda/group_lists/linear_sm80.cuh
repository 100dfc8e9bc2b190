// y = x W^T for W as group lists: the lists are expanded into dense tiles in shared memory, and those multiplied by
// mma.
//
//   grid      x: token tiles x channel tiles of 64, the token tiles of a channel tile next to each other; y: splits of
//             the panels
//   a turn    64 inputs of one panel: a tile of kTokens x 128 bytes of x by cp.async, kStages of them, and a tile of 64
//             channels x 64 inputs of weights, two of them
//   expansion a team of lanes for each group: it makes the group's rows of the tile zero and then writes the records
//             that lie in the turn's columns, walking on along its list, by elements or, of row vectors, by 16 bytes.
//             Only its own warp touches these rows, so that one barrier a turn serves x and weights. The weights of
//             turn t + 1 are made beside the product of turn t
//   panels    which list a group has in a panel is found a panel ahead
#pragma once

#include "cuda/group_lists/lists.cuh"

namespace sparsecore::group_lists_cuda::sm80 {

template <int kTokensOfTile>
struct Tile : cuda_linear::ProductTile<kTileChannels, kTokensOfTile> {
  using Base = cuda_linear::ProductTile<kTileChannels, kTokensOfTile>;
  static constexpr int kStages = 4;
  static constexpr int kWeights = kStages * Base::kTokenBytes, kLists = kWeights + 2 * Base::kWeightBytes;
  static constexpr int kRingBytes = kLists + 2 * kTileChannels * static_cast<int>(sizeof(Records));
  static constexpr int kSharedBytes = Base::kSumsBytes > kRingBytes ? Base::kSumsBytes : kRingBytes;
};

// Budget of sm80::group_lists: 128 registers.
template <class T, int kTokens>
__global__ void __launch_bounds__(Tile<kTokens>::kThreads) group_lists(const LinearArguments args) {
  using Tile = sm80::Tile<kTokens>;
  const Lists& lists = args.lists;
  char* shared = ptx::smem();
  Records* found = reinterpret_cast<Records*>(shared + Tile::kLists);
  const int thread = threadIdx.x;
  const int64_t token = static_cast<int64_t>(blockIdx.x % args.token_tiles) * kTokens;
  const int64_t channel = static_cast<int64_t>(blockIdx.x / args.token_tiles) * kTileChannels;
  const int32_t rows = lists.weight.rows, group = static_cast<int32_t>(channel / rows);
  const cuda_linear::BlockRange panels = cuda_linear::split_range(lists.panels, blockIdx.y, args.splits);
  const int turns = static_cast<int>(panels.last - panels.first) * lists.panel_turns;
  const cuda_linear::Matrix x = {args.p.x, args.p.m, args.p.k, args.p.x_row_stride, args.x_vectors};

  const auto load_stage = [&](int turn) {
    if (turn < turns) {
      const int64_t column = (panels.first + turn / lists.panel_turns) * lists.weight.depth +
                             turn % lists.panel_turns * cuda_linear::kTurnColumns + thread % 8 * 8;
      cuda_linear::load_rows<kTokens, cuda_linear::kTurnColumns, Tile::kThreads>(
          x, token, column, thread, shared + turn % Tile::kStages * Tile::kTokenBytes);
    }
    ptx::cp_async_commit();
  };
  const auto find = [&](int panel_of_split) {
    if (panels.first + panel_of_split < panels.last)
      find_lists(lists, static_cast<int32_t>(panels.first) + panel_of_split, group, kTileChannels / rows, thread,
                 Tile::kThreads, found + panel_of_split % 2 * kTileChannels);
  };

  Walk walk(lists, thread, Tile::kThreads);
  const auto expand = [&](int turn) {
    if (turn >= turns) return;
    const int panel_of_split = turn / lists.panel_turns, part = turn % lists.panel_turns;
    char* tile = shared + Tile::kWeights + turn % 2 * Tile::kWeightBytes;
    const bool works = walk.works(lists);
    if (part == 0) {
      if (works) walk.left = found[panel_of_split % 2 * kTileChannels + walk.group];
      find(panel_of_split + 1);
    }
    if (works)
      for (int chunk = walk.team_lane; chunk < rows * 8; chunk += walk.team_lanes)
        ptx::store_shared_16(tile + cuda_linear::place<kTileChannels, cuda_linear::kTurnColumns>(
                                        walk.group * rows + chunk / 8, chunk % 8 * 16),
                             {0, 0, 0, 0});
    __syncwarp();
    const int32_t begin = part * cuda_linear::kTurnColumns;
    const int32_t end = begin + cuda_linear::kTurnColumns;
    const int run_bits = args.row_vectors ? 3 : 0;
    walk.take(lists, end, run_bits, [&](int32_t record, int32_t element, int32_t r, int32_t c, int32_t column) {
      if (column < begin || column >= end) return;  // lists that do not ascend
      const uint16_t* from = static_cast<const uint16_t*>(lists.weight.values) +
                             (static_cast<int64_t>(record) << (lists.row_bits + lists.column_bits)) + element;
      char* to = tile + cuda_linear::place<kTileChannels, cuda_linear::kTurnColumns>(walk.group * rows + r,
                                                                                     2 * (column - begin + c));
      if (run_bits) {
        ptx::store_shared_16(to, *reinterpret_cast<const uint4*>(from));
      } else {
        *reinterpret_cast<uint16_t*>(to) = *from;
      }
    });
  };

  for (int i = thread; i < 2 * kTileChannels; i += Tile::kThreads) found[i] = {0, 0};
  __syncthreads();
  find(0);
  for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_stage(stage);
  __syncthreads();
  expand(0);
  cuda_linear::ProductSums<Tile> sums(thread);
  for (int turn = 0; turn < turns; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // x and weights of this turn are there for everybody, and everybody is done with those of the last turn, whose
    // places the next ones take.
    __syncthreads();
    load_stage(turn + Tile::kStages - 1);
    expand(turn + 1);
    sums.template multiply<T, false>(shared + turn % Tile::kStages * Tile::kTokenBytes,
                                     shared + Tile::kWeights + turn % 2 * Tile::kWeightBytes);
  }
  sums.finish(args, channel, token, blockIdx.y, shared);
}

}  // namespace sparsecore::group_lists_cuda::sm80

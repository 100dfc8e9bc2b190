// The blocks of a cluster that share an operand: persistent products in which each copies a part of it to all.
#pragma once

#include "cuda/common/cluster.h"
#include "cuda/common/mbarrier.h"
#include "cuda/linear/arguments.h"

namespace sparsecore::cuda_linear {

// This block in its cluster, and the cluster among all that run.
struct Cluster {
  int blocks, rank;
  SC_DEVICE Cluster() : blocks(ptx::cluster_size()), rank(ptx::cluster_rank()) {}
  SC_DEVICE int index() const { return static_cast<int>(blockIdx.x) / blocks; }
  SC_DEVICE int count() const { return static_cast<int>(gridDim.x) / blocks; }
  SC_DEVICE int work_after(int index, int works) const { return cuda_linear::work_after(index, count(), works); }
  // For a copy to all of them.
  SC_DEVICE uint16_t everybody() const { return static_cast<uint16_t>((1 << blocks) - 1); }
  // All threads of all blocks.
  SC_DEVICE void meet() const {
    if (blocks > 1) {
      ptx::cluster_sync();
    } else {
      __syncthreads();
    }
  }
  // The warp no longer reads what this barrier of every block stands for: lane r tells block r.
  SC_DEVICE void give_back(uint64_t* barrier, int lane) const {
    if (lane < blocks) ptx::mbarrier_arrive_remote(barrier, lane);
  }
};

// The persistent schedule of blocks that share tokens: cluster c takes works c, c + clusters, ..; groups of 8 token
// tiles, so that a wave of blocks reads few of either operand. args.channel_tiles counts what a cluster makes.
struct ClusterWork {
  int64_t token, channel;
  int split;
  BlockRange range;

  // Tiles of `tokens` x `channels`, of `turns` turns.
  SC_DEVICE ClusterWork(const Arguments& args, int64_t turns, int index, int tokens, int channels, Cluster cluster) {
    constexpr int kGroup = 8;
    split = index % args.splits;
    const int tile = index / args.splits, group_tiles = kGroup * args.channel_tiles, group = tile / group_tiles;
    const int in_group = tile % group_tiles, left = args.token_tiles - group * kGroup;
    const int width = left < kGroup ? left : kGroup;
    token = static_cast<int64_t>(group * kGroup + in_group % width) * tokens;
    channel = (static_cast<int64_t>(in_group / width) * cluster.blocks + cluster.rank) * channels;
    range = split_range(turns, split, args.splits);
  }
};

}  // namespace sparsecore::cuda_linear

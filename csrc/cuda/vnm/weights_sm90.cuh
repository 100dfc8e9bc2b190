// V:N:M as a format of gathered products with wgmma.sp (gathered/matmul_sm90.cuh): a tile is a run of 64 or 128
// channels, a turn a block of Sp24. Values and metadata go from global memory to the registers of the warps whose
// slices they are, a turn ahead; shared memory holds gathered inputs alone.
#pragma once

#include "cuda/gathered/matmul_sm90.cuh"
#include "cuda/vnm/vnm.h"

namespace sparsecore::cuda_vnm::sm90 {

template <class T, int kGroupsOfRun>
struct Weights {
  using Arguments = MatmulArguments;
  static constexpr int kChannelGroups = kGroupsOfRun, kStageBytes = 0;

  SC_DEVICE static int64_t first_channel(const Arguments&, int64_t tile) { return tile * 64 * kChannelGroups; }
  SC_DEVICE static List list(const Arguments& args, int64_t tile) {
    return {args.weight.columns + tile * args.weight.picked, args.weight.picked, args.linear.p.k};
  }
  template <int kThreads>
  SC_DEVICE static void load(const Arguments&, int64_t, const List&, int64_t, int, char*) {}

  struct Registers {
    uint32_t values[2][4], metadata;

    // A block of channels past n has no weights: the last one's are as good, since its sums are not stored.
    SC_DEVICE void load(const Arguments& args, int64_t tile, int group, int64_t turn, int slice, int lane) {
      const int64_t n_block = tile * kChannelGroups + group, last = ceil_div(args.linear.p.n, 64) - 1;
      const int64_t at = ((n_block < last ? n_block : last) * args.k_blocks + turn) * kBlockSlices + slice;
      const uint4* from =
          reinterpret_cast<const uint4*>(static_cast<const char*>(args.weight.packed.values) + at * kSliceValueBytes) +
          lane;
#pragma unroll
      for (int span = 0; span < 2; ++span) {
        const uint4 vector = from[span * 32];
        values[span][0] = vector.x;
        values[span][1] = vector.y;
        values[span][2] = vector.z;
        values[span][3] = vector.w;
      }
      metadata = args.weight.packed.metadata[at * 32 + lane];
    }
    template <int kSums>
    SC_DEVICE void fence(float (&sums)[kSums]) {
      ptx::wgmma_fence(sums, values[0], values[1]);
    }
    template <int kSums>
    SC_DEVICE void multiply(float (&sums)[kSums], const char*, uint64_t tokens) {
      ptx::wgmma_sparse<T, 0, Major::kMN>(sums, values[0], tokens, metadata, true);
      ptx::wgmma_sparse<T, 1, Major::kMN>(sums, values[1], tokens + gathered::sm90::rows_on(32), metadata, true);
    }
  };
};

}  // namespace sparsecore::cuda_vnm::sm90

// V:N:M as a format of gathered products (gathered/matmul_sm80.cuh): a tile is a run of channels, or half of one of
// 128; a turn is a block of Sp24, 64 picked inputs.
//
// Sp24 holds values and metadata as the lanes of mma.sp want them, so a turn's weights are copied as they are and every
// lane reads its 16 bytes of values, and 4 of metadata for both spans.
#pragma once

#include "cuda/common/mma_sparse.h"
#include "cuda/common/shared_memory.h"
#include "cuda/gathered/tiles.cuh"
#include "cuda/vnm/vnm.h"

namespace sparsecore::cuda_vnm::sm80 {

template <class T, int kSlicesOfTile>
struct Weights {
  using Arguments = MatmulArguments;
  static constexpr int kSlices = kSlicesOfTile, kDepth = kBlockInputs, kStages = 3;
  static constexpr int kValueBytes = kSlices * kSliceValueBytes, kMetadataBytes = kSlices * kSliceMetadataBytes;
  static constexpr int kStageBytes = kValueBytes + kMetadataBytes;

  SC_DEVICE static int channels(const Arguments&) { return kSlices * kSliceChannels; }
  SC_DEVICE static int64_t first_channel(const Arguments&, int64_t tile) { return tile * kSlices * kSliceChannels; }
  SC_DEVICE static List list(const Arguments& args, int64_t tile) {
    const int64_t run = first_channel(args, tile) / args.weight.vector;
    return {args.weight.columns + run * args.weight.picked, args.weight.picked, args.linear.p.k};
  }

  // The slices of a tile lie together in their block.
  template <int kThreads>
  SC_DEVICE static void load(const Arguments& args, int64_t tile, const List&, int64_t turn, int thread, char* stage) {
    const int64_t slice = tile * kSlices;
    const int64_t at = (slice / kBlockSlices * args.k_blocks + turn) * kBlockSlices + slice % kBlockSlices;
    const char* values = static_cast<const char*>(args.weight.packed.values) + at * kSliceValueBytes;
    const char* metadata = reinterpret_cast<const char*>(args.weight.packed.metadata) + at * kSliceMetadataBytes;
#pragma unroll
    for (int i = thread * 16; i < kStageBytes; i += kThreads * 16)
      ptx::cp_async<16, ptx::CacheAt::kGlobal>(stage + i, i < kValueBytes ? values + i : metadata + (i - kValueBytes));
  }

  struct Fragment {
    uint32_t a[4], metadata;
    int span;

    SC_DEVICE void load(const char* stage, int span_of_turn, int slice, int lane) {
      const uint4 values = ptx::load_shared_16(stage + slice * kSliceValueBytes + span_of_turn * 512 + lane * 16);
      a[0] = values.x;
      a[1] = values.y;
      a[2] = values.z;
      a[3] = values.w;
      metadata = ptx::load_shared_4(stage + kValueBytes + slice * kSliceMetadataBytes + lane * 4);
      span = span_of_turn;
    }
    // The span is a constant once the loops around are unrolled.
    SC_DEVICE void multiply(float (&sums)[4], const uint32_t (&b)[4]) const {
      if (span == 0) {
        ptx::mma_sparse<T, 0>(sums, a, b, metadata);
      } else {
        ptx::mma_sparse<T, 1>(sums, a, b, metadata);
      }
    }
  };
};

}  // namespace sparsecore::cuda_vnm::sm80

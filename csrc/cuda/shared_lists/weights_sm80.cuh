// Shared lists as a format of gathered products (gathered/matmul_sm80.cuh): a tile is a group, a turn kDepth records.
//
// A record holds the V weights of one kept column, so 16 records are the A operand of an mma with channels contiguous:
// ldmatrix transposes it on the way, and the packed file needs no rearrangement.
#pragma once

#include "cuda/common/ldmatrix.h"
#include "cuda/common/mma.h"
#include "cuda/gathered/tiles.cuh"
#include "cuda/shared_lists/shared_lists.h"

namespace sparsecore::cuda_shared_lists::sm80 {

template <class T, int kSlicesOfGroup, int kRecords>
struct RecordWeights {
  using Arguments = MatmulArguments;
  static constexpr int kSlices = kSlicesOfGroup, kWidth = 16 * kSlices, kDepth = kRecords, kStages = 4;
  static constexpr int kStageBytes = kDepth * kWidth * 2;

  SC_DEVICE static int channels(const Arguments& args) { return args.weight.vector; }
  SC_DEVICE static int64_t first_channel(const Arguments& args, int64_t tile) { return tile * args.weight.vector; }
  SC_DEVICE static List list(const Arguments& args, int64_t tile) {
    const Records records(args.weight, tile);
    return {args.weight.columns + records.first, records.last - records.first, args.linear.p.k};
  }

  // A group of 8 channels fills half of a slice; the other half is zero.
  template <int kThreads>
  SC_DEVICE static void load(const Arguments& args, int64_t, const List& list, int64_t turn, int thread, char* stage) {
    constexpr int kChunks = kWidth / gathered::kChunk;
    const int64_t first = list.columns - args.weight.columns + turn * kDepth, left = list.length - turn * kDepth;
    const uint16_t* values = static_cast<const uint16_t*>(args.weight.values);
#pragma unroll
    for (int i = thread; i < kDepth * kChunks; i += kThreads) {
      const int row = i / kChunks, channel = i % kChunks * gathered::kChunk;
      const bool exists = row < left && channel < args.weight.vector;
      const uint16_t* source = exists ? values + (first + row) * args.weight.vector + channel : values;
      ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(stage + gathered::tile_place<kWidth, kDepth>(row, i % kChunks),
                                                     source, exists ? 16 : 0);
    }
  }

  struct Fragment {
    uint32_t a[2][4];  // of 16 inputs each

    SC_DEVICE void load(const char* stage, int span, int slice, int lane) {
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const int row = 32 * span + 16 * step + lane / 16 * 8 + lane % 8, chunk = 2 * slice + lane / 8 % 2;
        ptx::ldmatrix_transposed(a[step], stage + gathered::tile_place<kWidth, kDepth>(row, chunk));
      }
    }
    SC_DEVICE void multiply(float (&sums)[4], const uint32_t (&b)[4]) const {
      ptx::mma<T>(sums, a[0], {b[0], b[1]});
      ptx::mma<T>(sums, a[1], {b[2], b[3]});
    }
  };
};

template <class T, int kSlices>
using Weights = RecordWeights<T, kSlices, 32>;

}  // namespace sparsecore::cuda_shared_lists::sm80

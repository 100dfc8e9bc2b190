// out[r, v] = sum over tokens of grad_y[t, first channel of r's group + v] * x[t, columns[r]]: of the dense gradient
// only what the weight keeps.
//
//   operands       both transposed first, so that tokens lie side by side: A is V rows of grad_y^T, B the gathered rows
//                  of x^T, both as mma wants them and without a transposing ldmatrix
//   grid           groups; y: parts of 64 records, in turns where a group has more
//   warps          4, 16 records each, all V channels
//   shared memory  a ring of 64 tokens of the V + 64 rows, 128 bytes each, swizzled
#pragma once

#include "cuda/common/ldmatrix.h"
#include "cuda/common/mma.h"
#include "cuda/gathered/tiles.cuh"
#include "cuda/shared_lists/shared_lists.h"

namespace sparsecore::cuda_shared_lists {

struct WeightGradArguments {
  SharedLists weight;
  const uint16_t *grad_yt = nullptr, *xt = nullptr;  // [n, pitch], [k, pitch], zeros behind the last token
  float* out = nullptr;
  int64_t n = 0, k = 0, pitch = 0;
};

namespace sm80 {

template <int kSlicesOfGroup>
struct GradTile {
  static constexpr int kSlices = kSlicesOfGroup, kChannels = 16 * kSlices, kRecords = 64, kThreads = 128, kStages = 3;
  static constexpr int kRowBytes = 128, kTokens = kRowBytes / 2, kRows = kChannels + kRecords;
  static constexpr int kStageBytes = kRows * kRowBytes, kSharedBytes = kStages * kStageBytes;
};

// Budget of sm80::shared_lists_weight_grad: 168 registers.
template <class T, int kSlices>
__global__ void __launch_bounds__(128) shared_lists_weight_grad(const WeightGradArguments args) {
  using Tile = GradTile<kSlices>;
  constexpr int kChunks = Tile::kRowBytes / 16, kRowStep = Tile::kThreads / kChunks;
  constexpr int kRowsOfThread = Tile::kRows / kRowStep;
  char* shared = ptx::smem();
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, chunk = thread % kChunks;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * args.weight.vector;
  const Records records(args.weight, blockIdx.x);
  const List list{args.weight.columns + records.first, records.last - records.first, args.k};
  const int64_t turns = ceil_div(args.pitch, Tile::kTokens);

  for (int64_t part = blockIdx.y; part * Tile::kRecords < list.length; part += gridDim.y) {
    // The rows that this thread copies in every turn; null where there is none.
    const uint16_t* rows[kRowsOfThread];
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      const int row = thread / kChunks + i * kRowStep;
      if (row < Tile::kChannels) {
        const bool exists = row < args.weight.vector && channel + row < args.n;
        rows[i] = exists ? args.grad_yt + (channel + row) * args.pitch : nullptr;
      } else {
        const int32_t column = list.column(part * Tile::kRecords + row - Tile::kChannels);
        rows[i] = column >= 0 ? args.xt + column * args.pitch : nullptr;
      }
    }
    const auto load_stage = [&](int64_t turn) {
      if (turn < turns) {
        char* stage = shared + turn % Tile::kStages * Tile::kStageBytes;
        const int64_t at = turn * Tile::kTokens + chunk * gathered::kChunk;
#pragma unroll
        for (int i = 0; i < kRowsOfThread; ++i) {
          const bool exists = rows[i] && at < args.pitch;
          ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(
              stage + swizzled<Swizzle::k128>(thread / kChunks + i * kRowStep, chunk * 16),
              exists ? rows[i] + at : args.xt, exists ? 16 : 0);
        }
      }
      ptx::cp_async_commit();
    };

    float sums[kSlices][2][4] = {};
    for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_stage(stage);
    for (int64_t turn = 0; turn < turns; ++turn) {
      ptx::cp_async_wait<Tile::kStages - 2>();
      // The stage of this turn has arrived for everybody; everybody is done with the one that is filled next.
      __syncthreads();
      load_stage(turn + Tile::kStages - 1);
      const char* stage = shared + turn % Tile::kStages * Tile::kStageBytes;
#pragma unroll
      for (int span = 0; span < Tile::kTokens / 32; ++span) {
        uint32_t b[2][4];  // two eights of records, 32 tokens
#pragma unroll
        for (int i = 0; i < 2; ++i)
          ptx::ldmatrix(b[i], stage + swizzled<Swizzle::k128>(Tile::kChannels + 16 * warp + 8 * i + lane % 8,
                                                              64 * span + lane / 8 * 16));
#pragma unroll
        for (int slice = 0; slice < kSlices; ++slice)
#pragma unroll
          for (int step = 0; step < 2; ++step) {
            uint32_t a[4];
            ptx::ldmatrix(
                a, stage + swizzled<Swizzle::k128>(16 * slice + lane % 16, 64 * span + 32 * step + lane / 16 * 16));
#pragma unroll
            for (int i = 0; i < 2; ++i) ptx::mma<T>(sums[slice][i], a, {b[i][2 * step], b[i][2 * step + 1]});
          }
      }
    }
    // The next part's copies take places that slower warps may still read.
    __syncthreads();

#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice)
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int to = 16 * slice + lane / 4 + 8 * (e / 2);
          const int64_t record = part * Tile::kRecords + 16 * warp + 8 * i + 2 * (lane % 4) + e % 2;
          if (record < list.length && to < args.weight.vector)
            args.out[(records.first + record) * args.weight.vector + to] = sums[slice][i][e];
        }
  }
}

}  // namespace sm80
}  // namespace sparsecore::cuda_shared_lists

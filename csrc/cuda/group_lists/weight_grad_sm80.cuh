// Gradients of the values of group lists: a block of threads makes the dense gradient of 64 channels x 64 inputs of one
// panel in shared memory (linear/grad_tile.cuh), and a team of lanes for each group copies from it what the list keeps.
//
//   grid      x: turns of the panels; y: channel tiles
#pragma once

#include "cuda/group_lists/lists.cuh"
#include "cuda/linear/grad_tile.cuh"

namespace sparsecore::group_lists_cuda::sm80 {

using GradTile = cuda_linear::GradTile<kTileChannels>;
constexpr int kGradListsOffset = GradTile::kSharedBytes;
constexpr int kGradSharedBytes = kGradListsOffset + kTileChannels * static_cast<int>(sizeof(Records));

// Budget of sm80::group_lists_grad: 128 registers.
template <class T>
__global__ void __launch_bounds__(GradTile::kThreads) group_lists_grad(const GradArguments args) {
  const Lists& lists = args.lists;
  const GroupLists& weight = lists.weight;
  char* shared = ptx::smem();
  Records* found = reinterpret_cast<Records*>(shared + kGradListsOffset);
  const int thread = threadIdx.x;
  const int32_t panel = static_cast<int32_t>(blockIdx.x) / lists.panel_turns;
  const int32_t begin = static_cast<int32_t>(blockIdx.x) % lists.panel_turns * cuda_linear::kTurnColumns;
  const int64_t channel = static_cast<int64_t>(blockIdx.y) * kTileChannels;
  const int64_t input = static_cast<int64_t>(panel) * weight.depth + begin;
  for (int i = thread; i < kTileChannels; i += GradTile::kThreads) found[i] = {0, 0};
  __syncthreads();
  find_lists(lists, panel, static_cast<int32_t>(channel / weight.rows), kTileChannels / weight.rows, thread,
             GradTile::kThreads, found);
  const cuda_linear::Matrix grad_y = {args.p.grad_y, args.p.m, args.p.n, args.p.grad_y_row_stride, args.grad_y_vectors};
  const cuda_linear::Matrix x = {args.p.x, args.p.m, args.p.k, args.p.x_row_stride, args.x_vectors};
  cuda_linear::sum_over_tokens<T, kTileChannels>(grad_y, x, channel, input,
                                                 {0, ceil_div(args.p.m, cuda_linear::kTurnTokens)}, thread, shared);

  Walk walk(lists, thread, GradTile::kThreads);
  if (walk.works(lists)) walk.left = found[walk.group];
  const int32_t size = weight.rows * weight.cols;
  walk.take(lists, begin + cuda_linear::kTurnColumns, 0,
            [&](int32_t record, int32_t element, int32_t r, int32_t c, int32_t column) {
              if (column < begin || column >= begin + cuda_linear::kTurnColumns) return;
              const int32_t o = walk.group * weight.rows + r;
              args.p.out[static_cast<int64_t>(record) * size + element] =
                  __uint_as_float(ptx::load_shared_4(shared + (o * GradTile::kSumsStride + column - begin + c) * 4));
            });
  // The padding record belongs to nobody.
  if (blockIdx.x == 0 && blockIdx.y == 0)
    for (int i = thread; i < size; i += GradTile::kThreads) args.p.out[weight.records * size + i] = 0;
}

}  // namespace sparsecore::group_lists_cuda::sm80

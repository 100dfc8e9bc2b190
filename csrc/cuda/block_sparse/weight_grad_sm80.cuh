// Gradients of kept blocks: a block of threads makes one block (linear/grad_tile.cuh) of one split of the tokens.
//
//   grid      x: entries; y: splits of the tokens
//   result    to out, or with several splits to the workspace, [splits, blocks, kSize, kSize], which add_splits adds in
//             their order
#pragma once

#include "cuda/block_sparse/index.cuh"
#include "cuda/linear/grad_tile.cuh"

namespace sparsecore::block_sparse::sm80 {

using cuda_linear::GradTile;

SC_DEVICE void store_chunk(void* out, DType dtype, int64_t at, const float (&values)[cuda_linear::kChunk]) {
  if (dtype == DType::kFloat32) {
    float4* to = reinterpret_cast<float4*>(static_cast<float*>(out) + at);
    to[0] = {values[0], values[1], values[2], values[3]};
    to[1] = {values[4], values[5], values[6], values[7]};
  } else {
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(out) + at) =
        dtype == DType::kBFloat16 ? cuda_linear::packed<BFloat16>(values) : cuda_linear::packed<Float16>(values);
  }
}

// Budget of sm80::weight_grad: 176 registers.
template <class T, int kSize>
__global__ void __launch_bounds__(GradTile<kSize>::kThreads) weight_grad(const GradArguments args) {
  using Tile = GradTile<kSize>;
  char* shared = ptx::smem();
  const int thread = threadIdx.x;
  const int32_t entry = static_cast<int32_t>(blockIdx.x);
  const int64_t row = row_of(args.p.weight, args.rows, entry);
  const int64_t column = args.p.weight.index[entry];
  const cuda_linear::BlockRange range =
      cuda_linear::split_range(ceil_div(args.p.m, cuda_linear::kTurnTokens), blockIdx.y, args.splits);
  const cuda_linear::Matrix grad_y = {args.p.grad_y, args.p.m, args.p.n, args.p.grad_y_row_stride, args.grad_y_vectors};
  const cuda_linear::Matrix x = {args.p.x, args.p.m, args.p.k, args.p.x_row_stride, args.x_vectors};
  cuda_linear::sum_over_tokens<T, kSize>(grad_y, x, row * kSize, column * kSize, range, thread, shared);

  constexpr int kChunks = kSize * kSize / cuda_linear::kChunk, kRowChunks = kSize / cuda_linear::kChunk;
  for (int chunk = thread; chunk < kChunks; chunk += Tile::kThreads) {
    const int o = chunk / kRowChunks, i = chunk % kRowChunks * cuda_linear::kChunk;
    float values[cuda_linear::kChunk] = {};
#pragma unroll
    for (int w = 0; w < Tile::kTokenWarps; ++w) {
      const char* from = shared + ((w * kSize + o) * Tile::kSumsStride + i) * 4;
      const uint4 low = ptx::load_shared_16(from), high = ptx::load_shared_16(from + 16);
      const uint32_t words[cuda_linear::kChunk] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int e = 0; e < cuda_linear::kChunk; ++e) values[e] += __uint_as_float(words[e]);
    }
    const int64_t at = entry * static_cast<int64_t>(kSize * kSize) + o * kSize + i;
    if (args.splits > 1) {
      store_chunk(args.p.workspace, DType::kFloat32, blockIdx.y * args.p.weight.blocks * (kSize * kSize) + at, values);
    } else {
      store_chunk(args.p.out, args.p.out_dtype, at, values);
    }
  }
}

constexpr int kGradFinishThreads = 128;

// One thread for eight neighbours of the result, of which there are `chunks`.
// Budget of sm80::add_grad_splits: 40 registers.
static __global__ void __launch_bounds__(kGradFinishThreads) add_grad_splits(const GradArguments args, int64_t chunks) {
  const int64_t chunk = static_cast<int64_t>(blockIdx.x) * kGradFinishThreads + threadIdx.x;
  if (chunk >= chunks) return;
  float values[cuda_linear::kChunk] = {};
  for (int split = 0; split < args.splits; ++split) {
    const float4* from = static_cast<const float4*>(args.p.workspace) + 2 * (split * chunks + chunk);
    const float4 low = from[0], high = from[1];
    const float words[cuda_linear::kChunk] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int e = 0; e < cuda_linear::kChunk; ++e) values[e] += words[e];
  }
  store_chunk(args.p.out, args.p.out_dtype, chunk * cuda_linear::kChunk, values);
}

}  // namespace sparsecore::block_sparse::sm80

// The end of a product whose inputs were split: partial sums in the order of the splits, then the epilogue.
#pragma once

#include "cuda/linear/epilogue.cuh"

namespace sparsecore::cuda_linear {

constexpr int kFinishThreads = 128;

// One thread for eight channels of a token, blockIdx.x.
// Budget of cuda_linear::add_splits: 40 registers.
// With 40 a multiprocessor of 1536 threads is full, so ptxas rather spills one where it needs 41:
// Budget of cuda_linear::add_splits on sm_86: 40 registers, 8 bytes of stack, 8 bytes of spills.
// Budget of cuda_linear::add_splits on sm_89: 40 registers, 8 bytes of stack, 8 bytes of spills.
template <class Sum>
__global__ void __launch_bounds__(kFinishThreads) add_splits(const Arguments args) {
  const int64_t token = blockIdx.x;
  const int64_t channel = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kChunk;
  if (channel >= args.p.n) return;
  Sum sums[kChunk] = {};
  for (int split = 0; split < args.splits; ++split) {
    const uint4* from = partial_sums(args, split, token, channel);
    const uint4 low = from[0], high = from[1];
    const uint32_t words[kChunk] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < kChunk; ++i) sums[i] += sum_of<Sum>(words[i]);
  }
  float values[kChunk];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) values[i] = static_cast<float>(sums[i]);
  const ChannelChunk chunk(args.p, channel);
  finish_chunk(args, chunk, token, values, packed_residual(args, chunk, token));
}

// A product that another library stored in y, in out_dtype: the epilogue in place.
// Budget of cuda_linear::finish_stored: 40 registers.
static __global__ void __launch_bounds__(kFinishThreads) finish_stored(const Arguments args) {
  const int64_t token = blockIdx.x;
  const int64_t channel = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kChunk;
  if (channel >= args.p.n) return;
  const ChannelChunk chunk(args.p, channel);
  float values[kChunk];
#pragma unroll
  for (int i = 0; i < kChunk; ++i)
    values[i] = i < chunk.width ? load_float(args.p.y, args.p.out_dtype, token * args.p.y_row_stride + channel + i) : 0;
  finish_chunk(args, chunk, token, values, packed_residual(args, chunk, token));
}

}  // namespace sparsecore::cuda_linear

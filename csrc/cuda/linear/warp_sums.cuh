// Sums of a tile that several warps share the inputs of: added in the order of the warps, and finished or stored as
// partial sums.
#pragma once

#include "cuda/linear/epilogue.cuh"

namespace sparsecore::cuda_linear {

// Where warp `part` keeps its sum of a channel and a token in shared memory, in 4-byte words: one row for each channel,
// of odd length so that the lanes of a warp write to different banks.
template <int kChannels, int kTokens>
SC_DEVICE int sum_place(int part, int channel, int token) {
  return (part * kChannels + channel) * (kTokens + 1) + token;
}
template <int kParts, int kChannels, int kTokens>
constexpr int kWarpSumBytes = kParts * kChannels * (kTokens + 1) * 4;

// All of the block, after a barrier that follows the stores; `token` and `channel` are the tile's first.
template <class Sum, int kParts, int kChannels, int kTokens, int kThreads>
SC_DEVICE void finish_warp_sums(const Arguments& args, int64_t token, int64_t channel, int64_t split,
                                const char* shared) {
  for (int i = threadIdx.x; i < kChannels * kTokens; i += kThreads) {
    const int t = i / kChannels, o = i % kChannels;
    if (token + t >= args.p.m || channel + o >= args.p.n) continue;
    Sum sum = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part)
      sum += sum_of<Sum>(ptx::load_shared_4(shared + sum_place<kChannels, kTokens>(part, o, t) * 4));
    if (args.splits > 1) {
      static_cast<uint32_t*>(
          args.p.workspace)[(split * args.p.m + token + t) * padded_channels(args.p.n) + channel + o] = bits_of(sum);
    } else {
      finish_one(args, token + t, channel + o, sum);
    }
  }
}

}  // namespace sparsecore::cuda_linear

// A square tile of the gradient of a weight, sum over tokens of grad_y[t, o] * x[t, i], by mma: what the formats share
// that keep some of it.
//
//   a turn    64 tokens of both operands, kSize columns each, as they stand; ldmatrix transposes both
//   warps     tiles of 64 and 128 are shared out; of 32 and 16 every warp makes all, for 16 tokens of each turn
//   ring      kStages turns, cp.async, one barrier a turn
//   sums      in shared memory, [warp of tokens][o][i], to be added in the order of the warps
#pragma once

#include "cuda/linear/product_tile.cuh"

namespace sparsecore::cuda_linear {

constexpr int kTurnTokens = 64;

template <int kSizeOfTile>
struct GradTile {
  static constexpr int kSize = kSizeOfTile;
  static constexpr int kOutWarps = kSize == 128 ? 4 : kSize == 64 ? 2 : 1, kInWarps = kSize >= 64 ? 2 : 1;
  static constexpr int kTokenWarps = kSize >= 64 ? 1 : 4, kThreads = 32 * kOutWarps * kInWarps * kTokenWarps;
  static constexpr int kWarpOut = kSize / kOutWarps, kWarpIn = kSize / kInWarps;
  static constexpr int kSlices = kWarpOut / 16, kColumns = kWarpIn / 8;
  static constexpr int kSpans = kSize > 64 ? kSize / 64 : 1, kSpanWidth = kSize / kSpans;
  static constexpr int kOperandBytes = kTurnTokens * kSize * 2, kStageBytes = 2 * kOperandBytes;
  static constexpr int kStages = kSize == 128 ? 3 : 4;
  static constexpr int kSumsStride = kSize + 4, kSumsBytes = kTokenWarps * kSize * kSumsStride * 4;
  static constexpr int kSharedBytes = kSumsBytes > kStages* kStageBytes ? kSumsBytes : kStages * kStageBytes;
};

// Channels from `channel` on, inputs from `input` on, turns [range.first, range.last) of tokens; then the sums in
// shared memory, for everybody to read.
template <class T, int kSize>
SC_DEVICE void sum_over_tokens(const Matrix& grad_y, const Matrix& x, int64_t channel, int64_t input, BlockRange range,
                               int thread, char* shared) {
  using Tile = GradTile<kSize>;
  const int lane = thread % 32, warp = thread / 32;
  const int warp_out = warp % Tile::kOutWarps * Tile::kWarpOut;
  const int warp_in = warp / Tile::kOutWarps % Tile::kInWarps * Tile::kWarpIn;
  const int warp_token = warp / (Tile::kOutWarps * Tile::kInWarps);
  const auto load_stage = [&](int64_t turn) {
    if (turn < range.last) {
      char* stage = shared + (turn - range.first) % Tile::kStages * Tile::kStageBytes;
#pragma unroll
      for (int span = 0; span < Tile::kSpans; ++span) {
        const int column = span * Tile::kSpanWidth + thread % (Tile::kSpanWidth / 8) * 8;
        char* to = stage + span * (kTurnTokens * 128);
        load_rows<kTurnTokens, Tile::kSpanWidth, Tile::kThreads>(grad_y, turn * kTurnTokens, channel + column, thread,
                                                                 to);
        load_rows<kTurnTokens, Tile::kSpanWidth, Tile::kThreads>(x, turn * kTurnTokens, input + column, thread,
                                                                 to + Tile::kOperandBytes);
      }
    }
    ptx::cp_async_commit();
  };
  for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_stage(range.first + stage);

  float sums[Tile::kSlices][Tile::kColumns][4] = {};
  for (int64_t turn = range.first; turn < range.last; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // The stage of this turn has arrived for everybody, and everybody is done with that of the last turn, whose place
    // the next load takes.
    __syncthreads();
    load_stage(turn + Tile::kStages - 1);
    const char* stage = shared + (turn - range.first) % Tile::kStages * Tile::kStageBytes;
#pragma unroll
    for (int i = 0; i < kTurnTokens / 16 / Tile::kTokenWarps; ++i) {
      const int token = 16 * (i * Tile::kTokenWarps + warp_token);
      uint32_t a[Tile::kSlices][4];
#pragma unroll
      for (int slice = 0; slice < Tile::kSlices; ++slice)
        load_a_transposed<kTurnTokens, kSize>(a[slice], stage, token, warp_out + 16 * slice, lane);
#pragma unroll
      for (int c = 0; c < Tile::kColumns; c += 2) {
        uint32_t b[2][2];
        load_b_pair<kTurnTokens, kSize>(b[0], b[1], stage + Tile::kOperandBytes, token, warp_in + 8 * c, lane);
#pragma unroll
        for (int slice = 0; slice < Tile::kSlices; ++slice) {
          ptx::mma<T>(sums[slice][c], a[slice], b[0]);
          ptx::mma<T>(sums[slice][c + 1], a[slice], b[1]);
        }
      }
    }
  }

  // Where the stages were: they have all arrived and nobody reads them any more.
  __syncthreads();
#pragma unroll
  for (int slice = 0; slice < Tile::kSlices; ++slice)
#pragma unroll
    for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int o = warp_out + 16 * slice + lane / 4 + 8 * half, i = warp_in + 8 * c + 2 * (lane % 4);
        ptx::store_shared_8(shared + ((warp_token * kSize + o) * Tile::kSumsStride + i) * 4,
                            {bits_of(sums[slice][c][2 * half]), bits_of(sums[slice][c][2 * half + 1])});
      }
  __syncthreads();
}

}  // namespace sparsecore::cuda_linear

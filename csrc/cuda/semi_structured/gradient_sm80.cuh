// Gradients of Sp24 weights of 16 bits.
//
//   gather            values[e] = dense[place of e]: of a dense gradient what belongs to the stored weights
//   straight_through  out = grad + decay (w - w'), w' being the packed part of the dense w: SR-STE's gradient
//   sampled           values[e] = sum over tokens t of grad[t, channel of e] * x[t, input of e]
//
// The first two walk a block of the format with 256 threads: warp 2 slice + step, whose lane holds one register's worth
// of eight bytes of a dense row at a time. Bound by memory: per weight 2 bytes in and 1 out for gather, 5 in and 2 out
// for straight_through, and 1/8 of metadata.
//
// `sampled` is a dense product by mma.sync, since two of four scattered sums save a tensor core nothing; what it saves
// is the dense gradient, which never reaches memory. A block makes 128 channels x 128 inputs, 32 tokens at a time:
//
//   shared    kStages x (2 panels of grad, 2 of x), a panel being 32 tokens x 128 bytes, swizzled, by cp.async
//   fragments ldmatrix.trans of both, for tokens run down the rows of both
//   warps     2 along channels (a block of the format each) x 4 along inputs (a step each): 64 x 32 sums, 64 registers
//   end       a unit's four sums meet in one lane by shuffles, two of them stay by the metadata
#pragma once

#include "cuda/common/convert.h"
#include "cuda/common/ldmatrix.h"
#include "cuda/common/mma.h"
#include "cuda/linear/tokens.cuh"
#include "cuda/semi_structured/matmul.h"

namespace sparsecore::semi_structured::sm80 {

constexpr int kGradientThreads = 256;

// Two bits each for the two places of the unit that register h + 2b of a lane holds.
SC_DEVICE uint32_t places_of_unit(const uint32_t* metadata, int64_t slice, int step, int h, int b, int g, int t) {
  return metadata[slice * 32 + 4 * g + 2 * step + b] >> (16 * h + 4 * t) & 15;
}

SC_DEVICE uint32_t two_of_four(uint64_t elements, uint32_t places) {
  const uint32_t first = static_cast<uint32_t>(elements >> 16 * (places & 3)) & 0xffff;
  return first | static_cast<uint32_t>(elements >> 16 * (places >> 2)) << 16;
}

// Four neighbours of a row of 16-bit elements; those past the `left` that exist are zero and not read.
SC_DEVICE uint64_t load_four(const uint16_t* from, int64_t left, bool vectors) {
  if (vectors && left >= 4) {
    const uint2 pair = *reinterpret_cast<const uint2*>(from);
    return pair.x | static_cast<uint64_t>(pair.y) << 32;
  }
  uint64_t elements = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < left) elements |= static_cast<uint64_t>(from[i]) << 16 * i;
  return elements;
}

struct GatherArguments {
  const void* dense = nullptr;
  const uint32_t* metadata = nullptr;
  void* values = nullptr;
  int64_t n = 0, k = 0, row_stride = 0;
  uint32_t k_blocks = 0;
  bool vectors = false;  // every row begins at a multiple of 8 bytes
};

// Budget of sm80::gather: 40 registers.
__global__ void __launch_bounds__(kGradientThreads) gather(const GatherArguments args) {
  const int lane = threadIdx.x % 32, part = threadIdx.x / 64, step = threadIdx.x / 32 % 2, g = lane / 4, t = lane % 4;
  const uint32_t n_block = blockIdx.x / args.k_blocks, k_block = blockIdx.x % args.k_blocks;
  const int64_t slice = static_cast<int64_t>(blockIdx.x) * kSlices + part;
  uint32_t registers[4];
#pragma unroll
  for (int reg = 0; reg < 4; ++reg) {
    const int h = reg % 2, b = reg / 2;
    const int64_t channel = int64_t{n_block} * kBlockChannels + part * kSliceChannels + g + 8 * h;
    const int64_t input = int64_t{k_block} * 64 + (8 * step + 4 * b + t) * 4;
    const uint16_t* from = static_cast<const uint16_t*>(args.dense) + channel * args.row_stride + input;
    const uint64_t elements = channel < args.n ? load_four(from, args.k - input, args.vectors) : 0;
    registers[reg] = two_of_four(elements, places_of_unit(args.metadata, slice, step, h, b, g, t));
  }
  static_cast<uint4*>(args.values)[slice * kSliceVectors + step * 32 + lane] = {registers[0], registers[1],
                                                                                registers[2], registers[3]};
}

struct StraightThroughArguments {
  const void* grad = nullptr;
  const void* dense = nullptr;
  const void* values = nullptr;
  const uint32_t* metadata = nullptr;
  void* out = nullptr;
  int64_t n = 0, k = 0, grad_row_stride = 0, dense_row_stride = 0, out_row_stride = 0;
  float decay = 0;
  uint32_t k_blocks = 0;
  bool vectors = false;  // every row of the three begins at a multiple of 8 bytes
};

// Budget of sm80::straight_through: 56 registers.
template <class T>
__global__ void __launch_bounds__(kGradientThreads) straight_through(const StraightThroughArguments args) {
  const int lane = threadIdx.x % 32, part = threadIdx.x / 64, step = threadIdx.x / 32 % 2, g = lane / 4, t = lane % 4;
  const uint32_t n_block = blockIdx.x / args.k_blocks, k_block = blockIdx.x % args.k_blocks;
  const int64_t slice = static_cast<int64_t>(blockIdx.x) * kSlices + part;
  const uint4 vector = static_cast<const uint4*>(args.values)[slice * kSliceVectors + step * 32 + lane];
  const uint32_t registers[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int reg = 0; reg < 4; ++reg) {
    const int h = reg % 2, b = reg / 2;
    const int64_t channel = int64_t{n_block} * kBlockChannels + part * kSliceChannels + g + 8 * h;
    const int64_t input = int64_t{k_block} * 64 + (8 * step + 4 * b + t) * 4, left = args.k - input;
    if (channel >= args.n) continue;
    const uint64_t grad =
        load_four(static_cast<const uint16_t*>(args.grad) + channel * args.grad_row_stride + input, left, args.vectors);
    const uint64_t dense = load_four(static_cast<const uint16_t*>(args.dense) + channel * args.dense_row_stride + input,
                                     left, args.vectors);
    const uint32_t places = places_of_unit(args.metadata, slice, step, h, b, g, t);
    const uint64_t packed = static_cast<uint64_t>(registers[reg] & 0xffff) << 16 * (places & 3) |
                            static_cast<uint64_t>(registers[reg] >> 16) << 16 * (places >> 2);
    uint16_t* to = static_cast<uint16_t*>(args.out) + channel * args.out_row_stride + input;
    uint32_t words[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 of_grad = ptx::unpack2<T>(static_cast<uint32_t>(grad >> 32 * half));
      const float2 whole = ptx::unpack2<T>(static_cast<uint32_t>(dense >> 32 * half));
      const float2 kept = ptx::unpack2<T>(static_cast<uint32_t>(packed >> 32 * half));
      words[half] =
          ptx::pack2<T>(of_grad.x + args.decay * (whole.x - kept.x), of_grad.y + args.decay * (whole.y - kept.y));
    }
    if (args.vectors && left >= 4) {
      *reinterpret_cast<uint2*>(to) = {words[0], words[1]};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (i < left) to[i] = static_cast<uint16_t>(words[i / 2] >> 16 * (i % 2));
    }
  }
}

struct SampledArguments {
  Arguments grad, x;  // tokens of width n and of width k
  const uint32_t* metadata = nullptr;
  void* values = nullptr;
  int64_t n_blocks = 0, k_blocks = 0;
  uint32_t input_tiles = 0;
};

struct SampledTile {
  static constexpr int kTokens = 32, kStages = 4, kThreads = 256;
  static constexpr int kPanelBytes = kTokens * kRowBytes, kStageBytes = 4 * kPanelBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
};

// Budget of sm80::sampled: 128 registers.
template <class T>
__global__ void __launch_bounds__(256) sampled(const SampledArguments args) {
  using Tile = SampledTile;
  char* shared = ptx::smem();
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int64_t n_first = int64_t{blockIdx.x / args.input_tiles} * 2;
  const int64_t k_first = int64_t{blockIdx.x % args.input_tiles} * 2;
  const int grad_panel = warp % 2, x_panel = warp / 4, step = warp / 2 % 2;
  const int64_t turns = ceil_div(args.grad.p.m, Tile::kTokens);
  float sums[kSlices][4][4] = {};

  const auto load_stage = [&](int64_t turn) {
    if (turn < turns) {
      char* stage = shared + turn % Tile::kStages * Tile::kStageBytes;
      const int64_t token = turn * Tile::kTokens;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load_tokens<T, Tile::kTokens, Tile::kThreads>(args.grad, token, n_first + i, thread,
                                                      stage + i * Tile::kPanelBytes);
        load_tokens<T, Tile::kTokens, Tile::kThreads>(args.x, token, k_first + i, thread,
                                                      stage + (2 + i) * Tile::kPanelBytes);
      }
    }
    ptx::cp_async_commit();
  };
  for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_stage(stage);

  for (int64_t turn = 0; turn < turns; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // The panels of this turn have arrived for everybody, and everybody is done with those of the last turn, whose
    // place the next load takes.
    __syncthreads();
    load_stage(turn + Tile::kStages - 1);
    const char* stage = shared + turn % Tile::kStages * Tile::kStageBytes;
    const char* grad = stage + grad_panel * Tile::kPanelBytes;
    const char* x = stage + (2 + x_panel) * Tile::kPanelBytes;
#pragma unroll
    for (int tokens = 0; tokens < Tile::kTokens; tokens += 16) {
      uint32_t b[4][2];
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        uint32_t loaded[4];
        const int column = 32 * step + 16 * pair + lane / 16 * 8;
        ptx::ldmatrix_transposed(loaded, x + swizzled<Swizzle::k128>(tokens + lane % 16, 2 * column));
        b[2 * pair][0] = loaded[0];
        b[2 * pair][1] = loaded[1];
        b[2 * pair + 1][0] = loaded[2];
        b[2 * pair + 1][1] = loaded[3];
      }
#pragma unroll
      for (int slice = 0; slice < kSlices; ++slice) {
        uint32_t a[4];
        const int row = tokens + lane / 16 * 8 + lane % 8, column = kSliceChannels * slice + lane / 8 % 2 * 8;
        ptx::ldmatrix_transposed(a, grad + swizzled<Swizzle::k128>(row, 2 * column));
#pragma unroll
        for (int tile = 0; tile < 4; ++tile) ptx::mma<T>(sums[slice][tile], a, b[tile]);
      }
    }
  }

  const int64_t n_block = n_first + grad_panel, k_block = k_first + x_panel;
  if (n_block >= args.n_blocks || k_block >= args.k_blocks) return;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int part = 0; part < kSlices; ++part) {
    const int64_t slice = (n_block * args.k_blocks + k_block) * kSlices + part;
    uint32_t registers[4];
#pragma unroll
    for (int reg = 0; reg < 4; ++reg) {
      const int h = reg % 2, b = reg / 2;
      // Unit 4b + t lies in tile 2b + t / 2, and its halves in the lanes 2 (t % 2) and 2 (t % 2) + 1 of the quad.
      uint32_t halves[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int from = lane / 4 * 4 + t % 2 * 2 + half;
        uint32_t of_tile[2];
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
          const float* pair = &sums[part][2 * b + tile][2 * h];
          of_tile[tile] = __shfl_sync(0xffffffffu, ptx::pack2<T>(pair[0], pair[1]), from);
        }
        halves[half] = t / 2 ? of_tile[1] : of_tile[0];
      }
      registers[reg] = two_of_four(halves[0] | static_cast<uint64_t>(halves[1]) << 32,
                                   places_of_unit(args.metadata, slice, step, h, b, g, t));
    }
    static_cast<uint4*>(args.values)[slice * kSliceVectors + step * 32 + lane] = {registers[0], registers[1],
                                                                                  registers[2], registers[3]};
  }
}

}  // namespace sparsecore::semi_structured::sm80

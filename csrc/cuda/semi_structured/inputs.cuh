// Which bytes of x a block of 128 bytes of the weight's inputs is, and how a lane gets the registers of B from them:
// the same inputs for 2:4, windows of them for (2N-2):2N (sparsecore/window_lift.h).
#pragma once

#include "cuda/common/ldmatrix.h"
#include "cuda/linear/tokens.cuh"
#include "cuda/semi_structured/matmul.h"

namespace sparsecore::semi_structured {

// Bytes [first, last) of every row of x; first is a multiple of 16, and they are 128 at most.
struct InputBytes {
  int64_t first, last;
};

struct PlainInputs {
  static SC_DEVICE InputBytes bytes(const MatmulArguments&, int64_t k_block) {
    return {k_block * kRowBytes, (k_block + 1) * kRowBytes};
  }
  SC_DEVICE PlainInputs(const MatmulArguments&, int64_t, int) {}
  // B of one instruction, 64 bytes deep, from a tile of tokens: eight of them from `row` on.
  template <int kStep>
  SC_DEVICE void read(uint32_t (&b)[4], const char* tokens, int row, int lane) const {
    ptx::ldmatrix(b, tokens + swizzled<Swizzle::k128>(row + lane % 8, 64 * kStep + lane / 8 * 16));
  }
};

// Lifted input 4W + p is input 2 (W + W / (N - 1)) + p. Of 16-bit types register r of lane 4g + t holds inputs p = 0, 1
// (t even) or 2, 3 (t odd) of window 8 step + 2 r + t / 2: four bytes of x at a multiple of four, one load. Of 8-bit
// types it holds window 16 step + 4 r + t: four bytes at a multiple of two.
//
// The loads of a warp meet no bank twice: the four of a token are neighbouring words, so different words of a chunk of
// 16 bytes, and the swizzle gives the same chunk of eight tokens eight places. A window begins at most 24 pairs of
// inputs after the first of its block (16 windows, N = 3), so 128 bytes hold them all.
template <class T>
struct LiftedInputs {
  static constexpr int kWindowBytes = 4 * sizeof(T), kPairBytes = 2 * sizeof(T);
  static constexpr int kWindows = kRowBytes / kWindowBytes;  // of a block
  uint32_t offsets[2][4];  // in the eight rows of a tile; of 8-bit types of the upper half of a register in bits 16-31

  // What the windows of a block begin at, in pairs of inputs: window i of the block at pair + i + crossed(i).
  struct First {
    uint32_t pair, place;  // place: of the block's first window in its group
    SC_DEVICE First(const MatmulArguments& args, int64_t k_block) {
      const uint32_t window = static_cast<uint32_t>(k_block) * kWindows, group = window / args.group_windows;
      pair = window + group;
      place = window - group * args.group_windows;
    }
    // Groups that end before window i of the block: (place + i) / group_windows, exact below 2048.
    SC_DEVICE uint32_t crossed(const MatmulArguments& args, uint32_t i) const {
      return (place + i) * args.group_windows_inverse >> 16;
    }
    SC_DEVICE int64_t byte() const { return static_cast<int64_t>(pair) * kPairBytes & ~int64_t{15}; }
  };

  static SC_DEVICE InputBytes bytes(const MatmulArguments& args, int64_t k_block) {
    const First first(args, k_block);
    const int64_t last = static_cast<int64_t>(first.pair) + kWindows - 1 + first.crossed(args, kWindows - 1) + 2;
    return {first.byte(), last * kPairBytes};
  }

  SC_DEVICE LiftedInputs(const MatmulArguments& args, int64_t k_block, int lane) {
    const First first(args, k_block);
    const int g = lane / 4, t = lane % 4;
    const uint32_t skipped = static_cast<uint32_t>(static_cast<int64_t>(first.pair) * kPairBytes - first.byte());
#pragma unroll
    for (int step = 0; step < 2; ++step)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const uint32_t window = sizeof(T) == 2 ? 8 * step + 2 * r + t / 2 : 16 * step + 4 * r + t;
        const uint32_t byte = skipped + (window + first.crossed(args, window)) * kPairBytes;
        if constexpr (sizeof(T) == 2) {
          offsets[step][r] = swizzled<Swizzle::k128>(g, static_cast<int>(byte) + t % 2 * kPairBytes);
        } else {
          offsets[step][r] = swizzled<Swizzle::k128>(g, static_cast<int>(byte)) |
                             swizzled<Swizzle::k128>(g, static_cast<int>(byte) + kPairBytes) << 16;
        }
      }
  }

  template <int kStep>
  SC_DEVICE void read(uint32_t (&b)[4], const char* tokens, int row, int) const {
    const char* rows = tokens + row * kRowBytes;  // a multiple of eight rows: the swizzle repeats
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const uint32_t offset = offsets[kStep][r];
      if constexpr (sizeof(T) == 2) {
        b[r] = ptx::load_shared_4(rows + offset);
      } else {
        b[r] = ptx::load_shared_2(rows + (offset & 0xffff)) | ptx::load_shared_2(rows + (offset >> 16)) << 16;
      }
    }
  }
};

}  // namespace sparsecore::semi_structured

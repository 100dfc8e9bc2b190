// Tiles of 16-bit elements in shared memory whose rows are inputs, and the gathering of rows of xt into them.
//
// A tile of kWidth tokens or channels (8 to 128) and kRows inputs has rows of min(kWidth, 64) elements, those of 128 as
// two tiles of 64 one after the other; rows are swizzled by their width, so that eight rows of one 16-byte chunk, which
// is what ldmatrix and MN-major operands of wgmma read, fall into different banks.
#pragma once

#include "cuda/common/cp_async.h"
#include "cuda/common/swizzle.h"
#include "cuda/gathered/arguments.h"

namespace sparsecore::gathered {

constexpr int kChunk = 8;  // elements of 16 bytes

constexpr Swizzle swizzle_of(int width) {
  return width >= 64 ? Swizzle::k128 : width == 32 ? Swizzle::k64 : width == 16 ? Swizzle::k32 : Swizzle::kNone;
}

// Byte of a 16-byte chunk.
template <int kWidth, int kRows>
constexpr uint32_t tile_place(int row, int chunk) {
  if constexpr (kWidth >= 64) {
    return chunk / 8 * (kRows * 128) + swizzled<Swizzle::k128>(row, chunk % 8 * 16);
  } else if constexpr (kWidth > 8) {
    return swizzled<swizzle_of(kWidth)>(row, chunk * 16);
  } else {
    return row * 16;
  }
}

// How kThreads threads bring kDepth rows of xt, kTokens tokens of each. The columns of a turn are read a turn ahead.
template <int kTokens, int kDepth, int kThreads>
struct Gather {
  static constexpr int kChunks = kTokens / kChunk, kRowStep = kThreads / kChunks, kRows = kDepth / kRowStep;
  static_assert(kThreads % kChunks == 0 && kDepth % kRowStep == 0, "every thread keeps its chunk");
  int32_t columns[kRows];

  SC_DEVICE void fetch(const List& list, int64_t turn, int thread) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) columns[i] = list.column(turn * kDepth + thread / kChunks + i * kRowStep);
  }

  // Tokens [token, token + kTokens). What the list or the tokens lack becomes zero. The caller commits.
  SC_DEVICE void load(const uint16_t* xt, int64_t pitch, int64_t token, int thread, char* tile) const {
    const int chunk = thread % kChunks;
    const int64_t at = token + chunk * kChunk;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const bool exists = columns[i] >= 0 && at < pitch;
      const uint16_t* source = exists ? xt + columns[i] * pitch + at : xt;
      ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(
          tile + tile_place<kTokens, kDepth>(thread / kChunks + i * kRowStep, chunk), source, exists ? 16 : 0);
    }
  }
};

}  // namespace sparsecore::gathered

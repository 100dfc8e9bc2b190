// The one swizzle: rows of 32, 64 or 128 bytes in shared memory, their 16-byte chunks exchanged so that a column of
// chunks, which is what ldmatrix and the tensor cores read, falls into different banks.
//
//   byte address a  ->  a ^ ((a >> 7 & span - 1) << 4),  span = row bytes / 16
//
// With rows of 128 bytes that stores chunk c of row r at chunk c ^ (r & 7). Bits 4-6 follow bits 7-9 of the address, so
// the tile has to begin where those are zero: at a multiple of 1024 (128-byte rows), 512 (64) or 256 (32) bytes. TMA
// and wgmma apply the same exchange in hardware, cp.async and ldmatrix through this function.
#pragma once

#include <cstdint>

namespace sparsecore {

enum class Swizzle : int { kNone = 0, k32 = 32, k64 = 64, k128 = 128 };

constexpr int row_bytes(Swizzle swizzle) { return static_cast<int>(swizzle); }
constexpr int tile_alignment(Swizzle swizzle) { return swizzle == Swizzle::kNone ? 16 : 8 * row_bytes(swizzle); }

// `offset`: bytes from the start of the tile, rows of row_bytes(swizzle) one after another.
template <Swizzle kSwizzle>
constexpr uint32_t swizzled(uint32_t offset) {
  if constexpr (kSwizzle == Swizzle::kNone) {
    return offset;
  } else {
    return offset ^ ((offset >> 7 & (row_bytes(kSwizzle) / 16 - 1)) << 4);
  }
}

template <Swizzle kSwizzle>
constexpr uint32_t swizzled(int row, int byte) {
  return swizzled<kSwizzle>(static_cast<uint32_t>(row * row_bytes(kSwizzle) + byte));
}

}  // namespace sparsecore

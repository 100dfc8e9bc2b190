// How wgmma finds a matrix in shared memory: 64 bits that name its start, two strides and a swizzle.
//
//   bits 0-13   start address / 16          bits 49-51  base offset: 0, as every tile here begins at a multiple of its
//   bits 16-29  leading byte offset / 16                swizzle's alignment
//   bits 32-45  stride byte offset / 16     bits 62-63  swizzle: 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes
//
// The matrix has `mn` rows (A's m or B's n) and k columns, and is K-major (k contiguous) or MN-major. With rows of
// `s` swizzle bytes (16 without swizzle):
//   K-major    8 rows of s bytes of k follow each other; the next 8 rows are `stride` bytes on. Without swizzle the
//   next
//              16 bytes of k are `leading` bytes on; with it, an instruction's k lies within s bytes, and the start
//              address moves by 32 bytes of k inside the swizzled tile.
//   MN-major   8 k's of s bytes of mn follow each other; the next s bytes of mn are `leading` bytes on, the next 8 k's
//              `stride` bytes (without swizzle the two change places). 16-bit types only.
//
// Plain constexpr C++.
#pragma once

#include <cstdint>

#include "cuda/common/swizzle.h"

namespace sparsecore {

enum class Major { kK, kMN };

constexpr uint64_t matrix_descriptor(uint32_t shared_address, Swizzle swizzle, uint32_t leading_bytes,
                                     uint32_t stride_bytes) {
  const uint64_t code = swizzle == Swizzle::k128 ? 1 : swizzle == Swizzle::k64 ? 2 : swizzle == Swizzle::k32 ? 3 : 0;
  return (shared_address & 0x3ffff) >> 4 | static_cast<uint64_t>(leading_bytes >> 4 & 0x3fff) << 16 |
         static_cast<uint64_t>(stride_bytes >> 4 & 0x3fff) << 32 | code << 62;
}

// A K-major tile of whole swizzle rows one after another, as tensor copies of a box of that width leave it.
constexpr uint64_t k_major_descriptor(uint32_t shared_address, Swizzle swizzle) {
  return matrix_descriptor(shared_address, swizzle, 16, 8 * row_bytes(swizzle));
}

}  // namespace sparsecore

// Matrix operands of wgmma in shared memory: the 64-bit descriptor, and the canonical layouts of the PTX ISA
// ("Matrix Descriptor Format", "Strides", "Swizzling modes").
#pragma once

#include <cstdint>
#include <vector>

namespace cuda_emulation {

struct MatrixDescriptor {
  uint32_t start;    // 32-bit shared address
  uint32_t leading;  // bytes
  uint32_t stride;   // bytes
  uint32_t swizzle;  // bytes of a row: 128, 64, 32, or 16 without swizzle
};

// Violations: a base offset, or a start that is no multiple of 16 or does not fit the swizzle.
MatrixDescriptor decode_descriptor(uint64_t descriptor, const char* instruction);

// 16-byte chunks change places by the address itself: its bits 4, 5, 6 (as many as the swizzle has) by its bits 7,
// 8, 9.
constexpr uint32_t swizzled_address(uint32_t address, uint32_t swizzle) {
  const uint32_t mask = swizzle / 16 - 1;
  return address ^ (address / 128 & mask) * 16;
}

// The shared address of a byte of k of a row, where k is contiguous.
constexpr uint32_t k_major_address(const MatrixDescriptor& matrix, uint32_t row, uint32_t k_byte) {
  const uint32_t chunk_step = matrix.swizzle > 16 ? 16 : matrix.leading;
  const uint32_t address =
      matrix.start + row / 8 * matrix.stride + row % 8 * matrix.swizzle + k_byte / 16 * chunk_step + k_byte % 16;
  return swizzled_address(address, matrix.swizzle);
}

// The shared address of element (row, k) of 16 bits, where the rows are contiguous.
constexpr uint32_t mn_major_address(const MatrixDescriptor& matrix, uint32_t row, uint32_t k) {
  const bool plain = matrix.swizzle == 16;
  const uint32_t per_line = matrix.swizzle / 2;  // rows that lie together
  const uint32_t row_step = plain ? matrix.stride : matrix.leading, k_step = plain ? matrix.leading : matrix.stride;
  const uint32_t address =
      matrix.start + row / per_line * row_step + k / 8 * k_step + k % 8 * matrix.swizzle + row % per_line * 2;
  return swizzled_address(address, matrix.swizzle);
}

// `rows` (m or n) rows of `k_bytes` bytes, row after row, read as the async proxy sees shared memory.
std::vector<uint8_t> read_k_major(const MatrixDescriptor& matrix, int rows, int k_bytes, const char* instruction);
std::vector<uint8_t> read_mn_major(const MatrixDescriptor& matrix, int rows, int k_bytes, const char* instruction);

}  // namespace cuda_emulation

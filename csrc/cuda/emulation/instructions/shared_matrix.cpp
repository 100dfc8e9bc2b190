#include "shared_matrix.h"

#include <cstring>

#include "../machine.h"

namespace cuda_emulation {
namespace {

constexpr uint32_t kChunk = 16;

// Chunks change places by the address itself: its bits 4, 5, 6 (as many as the swizzle has) by its bits 7, 8, 9.
uint32_t swizzled(uint32_t address, uint32_t swizzle) {
  const uint32_t mask = swizzle / kChunk - 1;
  return address ^ (address / 128 & mask) * kChunk;
}

void read_chunk(uint8_t* to, uint32_t address, const MatrixDescriptor& matrix, const char* instruction) {
  const void* from = shared_pointer(swizzled(address, matrix.swizzle));
  check_shared(from, kChunk, kChunk, instruction);
  async_read_shared(to, from, kChunk, instruction);
}

}  // namespace

MatrixDescriptor decode_descriptor(uint64_t descriptor, const char* instruction) {
  constexpr uint32_t rows[4] = {16, 128, 64, 32};
  MatrixDescriptor matrix;
  matrix.start = static_cast<uint32_t>(descriptor & 0x3fff) * 16;
  matrix.leading = static_cast<uint32_t>(descriptor >> 16 & 0x3fff) * 16;
  matrix.stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) * 16;
  matrix.swizzle = rows[descriptor >> 62];
  if ((descriptor >> 49 & 7) != 0) {
    violation("%s: the descriptor's base offset is %d; tiles that begin off their swizzle's period are not emulated",
              instruction, static_cast<int>(descriptor >> 49 & 7));
  }
  const uint32_t period = 8 * matrix.swizzle;
  const uint32_t row = matrix.start % period / matrix.swizzle;
  if (matrix.swizzle > 16 && row != 0) {
    violation(
        "%s: the operand starts at shared address 0x%x, in row %u of a %u-byte swizzle, whose tiles begin at "
        "multiples of %u",
        instruction, matrix.start, row, matrix.swizzle, period);
  }
  return matrix;
}

std::vector<uint8_t> read_k_major(const MatrixDescriptor& matrix, int rows, int k_bytes, const char* instruction) {
  std::vector<uint8_t> bytes(static_cast<size_t>(rows) * k_bytes);
  const uint32_t within = matrix.start % matrix.swizzle;
  if (matrix.swizzle > 16 && within + k_bytes > matrix.swizzle) {
    violation("%s: %d bytes of k from byte %u of the row run past the %u-byte swizzle", instruction, k_bytes, within,
              matrix.swizzle);
  }
  for (int r = 0; r < rows; ++r) {
    const uint32_t row = matrix.start + r / 8 * matrix.stride + r % 8 * matrix.swizzle;
    for (int chunk = 0; chunk * 16 < k_bytes; ++chunk) {
      const uint32_t step = matrix.swizzle > 16 ? kChunk : matrix.leading;
      read_chunk(&bytes[static_cast<size_t>(r) * k_bytes + chunk * 16], row + chunk * step, matrix, instruction);
    }
  }
  return bytes;
}

std::vector<uint8_t> read_mn_major(const MatrixDescriptor& matrix, int rows, int k_bytes, const char* instruction) {
  std::vector<uint8_t> bytes(static_cast<size_t>(rows) * k_bytes);
  if (matrix.start % matrix.swizzle != 0) {
    violation("%s: a transposed operand starts at byte %u of a %u-byte row", instruction, matrix.start % matrix.swizzle,
              matrix.swizzle);
  }
  const uint32_t per_row = matrix.swizzle / 2;  // elements of mn that lie together
  const bool plain = matrix.swizzle == 16;
  const uint32_t mn_step = plain ? matrix.stride : matrix.leading, k_step = plain ? matrix.leading : matrix.stride;
  for (uint32_t k = 0; k < static_cast<uint32_t>(k_bytes) / 2; ++k) {
    for (uint32_t mn = 0; mn < static_cast<uint32_t>(rows); mn += 8) {
      const uint32_t address =
          matrix.start + mn / per_row * mn_step + k / 8 * k_step + k % 8 * matrix.swizzle + mn % per_row * 2;
      uint8_t chunk[kChunk];
      read_chunk(chunk, address, matrix, instruction);
      for (uint32_t i = 0; i < 8 && mn + i < static_cast<uint32_t>(rows); ++i) {
        std::memcpy(&bytes[(mn + i) * k_bytes + 2 * k], &chunk[2 * i], 2);
      }
    }
  }
  return bytes;
}

}  // namespace cuda_emulation

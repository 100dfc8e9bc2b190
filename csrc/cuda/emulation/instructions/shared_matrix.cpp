#include "shared_matrix.h"

#include <cstring>

#include "../machine.h"

namespace cuda_emulation {
namespace {

constexpr int kChunk = 16;

void read_chunk(uint8_t* to, uint32_t address, const char* instruction) {
  const void* from = shared_pointer(address);
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
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < k_bytes; k += kChunk) {
      read_chunk(&bytes[static_cast<size_t>(row) * k_bytes + k], k_major_address(matrix, row, k), instruction);
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
  for (int k = 0; k < k_bytes / 2; ++k) {
    for (int first = 0; first < rows; first += 8) {
      uint8_t chunk[kChunk];
      read_chunk(chunk, mn_major_address(matrix, first, k), instruction);
      for (int i = 0; i < 8; ++i)
        std::memcpy(&bytes[static_cast<size_t>(first + i) * k_bytes + 2 * k], &chunk[2 * i], 2);
    }
  }
  return bytes;
}

}  // namespace cuda_emulation

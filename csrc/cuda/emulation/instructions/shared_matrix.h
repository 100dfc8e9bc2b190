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

// `rows` (m or n) rows of `k_bytes` bytes, row after row, read as the async proxy sees shared memory.
std::vector<uint8_t> read_k_major(const MatrixDescriptor& matrix, int rows, int k_bytes, const char* instruction);
// The same matrix of 16-bit elements, stored with its rows contiguous.
std::vector<uint8_t> read_mn_major(const MatrixDescriptor& matrix, int rows, int k_bytes, const char* instruction);

}  // namespace cuda_emulation

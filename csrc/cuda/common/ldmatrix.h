// ldmatrix and stmatrix: 1, 2 or 4 tiles of 8 rows x 16 bytes between shared memory and a warp's registers.
//
// Lane 8i + r gives the address of row r of tile i, 16-byte aligned (x1 reads the addresses of lanes 0-7 alone, x2 of
// lanes 0-15). Register i then holds of tile i, in lane l, the four bytes at row l / 4, byte 4 (l % 4). Transposed, the
// tile is 8 x 8 elements of 16 bits and register i holds elements (2t, g) and (2t + 1, g), g = l / 4, t = l % 4.
// stmatrix goes the other way and needs sm_90.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/shared_memory.h"
#if SC_EMULATED
#include "cuda/emulation/instructions/ldmatrix.h"
#endif

namespace sparsecore::ptx {

template <int kTiles>
SC_DEVICE void ldmatrix(uint32_t (&registers)[kTiles], const void* row) {
  static_assert(kTiles == 1 || kTiles == 2 || kTiles == 4, "ldmatrix loads 1, 2 or 4 tiles");
#if SC_EMULATED
  cuda_emulation::ldmatrix(registers, row, false);
#else
  const uint32_t address = shared_address(row);
  if constexpr (kTiles == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(address) : "memory");
  } else if constexpr (kTiles == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

template <int kTiles>
SC_DEVICE void ldmatrix_transposed(uint32_t (&registers)[kTiles], const void* row) {
  static_assert(kTiles == 1 || kTiles == 2 || kTiles == 4, "ldmatrix loads 1, 2 or 4 tiles");
#if SC_EMULATED
  cuda_emulation::ldmatrix(registers, row, true);
#else
  const uint32_t address = shared_address(row);
  if constexpr (kTiles == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kTiles == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

template <int kTiles>
SC_DEVICE void stmatrix(void* row, const uint32_t (&registers)[kTiles]) {
  static_assert(kTiles == 1 || kTiles == 2 || kTiles == 4, "stmatrix stores 1, 2 or 4 tiles");
#if SC_EMULATED
  cuda_emulation::stmatrix(row, registers, false);
#else
  const uint32_t address = shared_address(row);
  if constexpr (kTiles == 1) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(address), "r"(registers[0]) : "memory");
  } else if constexpr (kTiles == 2) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1,%2};" ::"r"(address), "r"(registers[0]),
                 "r"(registers[1])
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(registers[0]),
                 "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
                 : "memory");
  }
#endif
}

template <int kTiles>
SC_DEVICE void stmatrix_transposed(void* row, const uint32_t (&registers)[kTiles]) {
  static_assert(kTiles == 1 || kTiles == 2 || kTiles == 4, "stmatrix stores 1, 2 or 4 tiles");
#if SC_EMULATED
  cuda_emulation::stmatrix(row, registers, true);
#else
  const uint32_t address = shared_address(row);
  if constexpr (kTiles == 1) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(address), "r"(registers[0])
                 : "memory");
  } else if constexpr (kTiles == 2) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1,%2};" ::"r"(address), "r"(registers[0]),
                 "r"(registers[1])
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address),
                 "r"(registers[0]), "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
                 : "memory");
  }
#endif
}

}  // namespace sparsecore::ptx

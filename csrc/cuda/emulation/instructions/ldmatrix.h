// ldmatrix and stmatrix: 8 x 8 tiles of 16-bit elements between shared memory and a warp's registers. Lane 8i + r names
// row r of tile i; lane l then has elements (l / 4, 2 (l % 4)) and the next of each tile, or of its transpose.
#pragma once

#include <cstdint>
#include <cstring>

#include "../collective.h"
#include "../machine.h"

namespace cuda_emulation {

struct MatrixLane {
  uint32_t* registers;
  char* row;
};

// Element (row, column) of a tile, of a lane's register: half `half` of it.
struct HalfPlace {
  int row, column;
};
inline HalfPlace half_of_tile(int lane, int half, bool transposed) {
  const int major = lane / 4, minor = 2 * (lane % 4) + half;
  return transposed ? HalfPlace{minor, major} : HalfPlace{major, minor};
}

template <int kTiles>
void check_rows(const char* instruction, MatrixLane* const* lanes) {
  const void* rows[32] = {};
  for (int lane = 0; lane < 8 * kTiles; ++lane) {
    rows[lane] = lanes[lane]->row;
    check_shared(rows[lane], 16, 16, instruction);
  }
  count_bank_conflicts(instruction, rows, 16);
}

template <int kTiles>
void ldmatrix(uint32_t (&registers)[kTiles], const void* row, bool transposed) {
  constexpr const char* instruction = "ldmatrix";
  MatrixLane own{registers, static_cast<char*>(const_cast<void*>(row))};
  warp_collective(instruction, own, [=](MatrixLane* const* lanes) {
    check_rows<kTiles>(instruction, lanes);
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int lane = 0; lane < 32; ++lane) {
        uint16_t halves[2];
        for (int half = 0; half < 2; ++half) {
          const HalfPlace at = half_of_tile(lane, half, transposed);
          std::memcpy(&halves[half], lanes[8 * tile + at.row]->row + 2 * at.column, 2);
        }
        lanes[lane]->registers[tile] = halves[0] | static_cast<uint32_t>(halves[1]) << 16;
      }
    }
  });
}

template <int kTiles>
void stmatrix(void* row, const uint32_t (&registers)[kTiles], bool transposed) {
  constexpr const char* instruction = "stmatrix";
  require_capability(90, instruction);
  MatrixLane own{const_cast<uint32_t*>(registers), static_cast<char*>(row)};
  warp_collective(instruction, own, [=](MatrixLane* const* lanes) {
    check_rows<kTiles>(instruction, lanes);
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int half = 0; half < 2; ++half) {
          const HalfPlace at = half_of_tile(lane, half, transposed);
          const uint16_t value = static_cast<uint16_t>(lanes[lane]->registers[tile] >> (16 * half));
          char* const to = lanes[8 * tile + at.row]->row + 2 * at.column;
          std::memcpy(to, &value, 2);
          note_shared_write(*warp().lanes[lane], to, 2);
        }
      }
    }
  });
}

}  // namespace cuda_emulation

// Tiles of 8 x 8 16-bit elements, and the registers that ldmatrix loads of them and stmatrix stores.
#pragma once

#include "cuda/conformance/check.h"

namespace sparsecore::conformance {

struct MatrixTiles {
  std::vector<uint16_t> elements;   // [tiles, 8, 8]
  std::vector<uint32_t> registers;  // [32 lanes, tiles]

  MatrixTiles(int tiles, bool transposed) : registers(32 * tiles) {
    std::mt19937 random(tiles);
    for (int i = 0; i < 64 * tiles; ++i) elements.push_back(static_cast<uint16_t>(random()));
    for (int tile = 0; tile < tiles; ++tile) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int half = 0; half < 2; ++half) {
          const int g = lane / 4, t = 2 * (lane % 4) + half, row = transposed ? t : g, column = transposed ? g : t;
          registers[lane * tiles + tile] |= static_cast<uint32_t>(elements[64 * tile + 8 * row + column])
                                            << (16 * half);
        }
      }
    }
  }
};

}  // namespace sparsecore::conformance

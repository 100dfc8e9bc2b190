// A warp's registers as matrices: the fragment figures of the PTX ISA ("Matrix Fragments for mma", "Sparse matrix
// storage", "Register Fragments for wgmma"), for 8, 16 and 32-bit elements.
//
// This is the emulator's own reading of those figures. Code under test brings its own maps, so that a
// misunderstanding has to be made twice to stay hidden.
#pragma once

#include <cstdint>

#include "number_formats.h"

namespace cuda_emulation {

template <class Format>
constexpr bool kIsInteger = false;
template <>
inline constexpr bool kIsInteger<Int8> = true;

template <class Format>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<Int8> {
  using type = int32_t;
};
// 8-bit floats came with compute capability 8.9.
template <class Format>
constexpr bool kNeedsSm89 = false;
template <>
inline constexpr bool kNeedsSm89<Fp8E4M3> = true;
template <>
inline constexpr bool kNeedsSm89<Fp8E5M2> = true;

// What products are summed in, and what D holds.
template <class Format>
using Sum = typename SumOf<Format>::type;

template <class Format>
auto element(uint32_t word, int index) {
  if constexpr (Format::bits == 32) {
    return Format::decode(word);
  } else {
    return Format::decode(word >> (Format::bits * index) & ((1u << Format::bits) - 1));
  }
}

// A of 16 rows, with 256 / bits columns stored per row, in four registers per lane: the four 8 x (128 / bits) quarters
// in the order upper left, lower left, upper right, lower right. A quarter's row is four lanes wide.
template <class Format>
struct ATile {
  static constexpr int kColumns = 256 / Format::bits;
  Sum<Format> at[16][kColumns];

  void load(const uint32_t* const (&registers)[32]) {
    constexpr int per_word = 32 / Format::bits;
    for (int lane = 0; lane < 32; ++lane) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        const int row = lane / 4 + (quarter % 2 ? 8 : 0), column = lane % 4 * per_word + (quarter / 2) * (kColumns / 2);
        for (int i = 0; i < per_word; ++i) at[row][column + i] = element<Format>(registers[lane][quarter], i);
      }
    }
  }
};

// B of kRows x 8, column major: each register a strip of 128 / bits rows.
template <class Format, int kRows>
struct BTile {
  Sum<Format> at[kRows][8];

  void load(const uint32_t* const (&registers)[32]) {
    constexpr int per_word = 32 / Format::bits, strip = 4 * per_word;
    for (int lane = 0; lane < 32; ++lane) {
      for (int r = 0; r < kRows / strip; ++r) {
        for (int i = 0; i < per_word; ++i) {
          at[r * strip + lane % 4 * per_word + i][lane / 4] = element<Format>(registers[lane][r], i);
        }
      }
    }
  }
};

// Place of register `index` of a lane in a C or D tile of 16 rows.
struct CPlace {
  int row, column;
};
inline CPlace c_place(int lane, int index) {
  const bool lower_half = index % 4 >= 2;
  return {lane / 4 + (lower_half ? 8 : 0), index / 4 * 8 + lane % 4 * 2 + index % 2};
}

}  // namespace cuda_emulation

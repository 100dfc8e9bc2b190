// Which lane holds what: the maps between places of a matrix tile and registers of a warp.
//
// Lane l stands at g = l / 4, t = l % 4. A register is 32 bits and holds P = 4 / sizeof(T) neighbours along k; element
// e of a register is the e-th from the low bits. The same formulas serve every element type through P:
//
//   A  16 x 8P   register r: row g + 8 (r & 1), column P t + e + 4P (r >> 1)            4 registers
//   B  k  x 8    register r: row P t + e + 4P r, column g                               2 registers (k = 8P), 4 (16P)
//   C  16 x 8    register i: row g + 8 (i >> 1), column 2t + (i & 1)                    4 registers
//
// A 2:4 sparse A has 8P stored columns in the map above, stored column j standing for one of the four logical columns
// 4 (j / 2) .. 4 (j / 2) + 3, and a B of 16P rows. A warpgroup's A and D (wgmma, 64 rows) are four of these tiles, warp
// w holding rows 16w .. 16w + 15; D of n columns repeats C every 8 columns, with registers 4 (n / 8) + i.
//
// Metadata: two bits for each stored element, its place 0..3 within the four, ascending within each pair.
//   16-bit elements, 16 x 32 logical: 16 words. Word (g, b) has row g in its low half, row g + 8 in its high half, and
//   of
//     each the 8 stored elements 8b .. 8b + 7, the first in the lowest bits. Lane 4g + b supplies it to an instruction
//     with selector 0, lane 4g + 2 + b to one with selector 1; the other lanes' words are not looked at.
//   8-bit elements, 16 x 64 logical: 32 words, one per lane, selector 0. Lane 4g + h + 2b has row g + 8h, stored
//     elements 16b .. 16b + 15.
// wgmma.sp reads the same words, each warp for its own 16 rows.
//
// Plain constexpr C++: packers on the host, kernels and tests use the same lines.
#pragma once

#include <cstdint>

namespace sparsecore::fragments {

struct Place {
  int row, column;
};
// Register r of a lane, element e of that register.
struct Slot {
  int lane, reg, element;
};

constexpr int kLanes = 32;

template <class T>
constexpr int kPerRegister = 4 / static_cast<int>(sizeof(T));
// Columns of a dense A tile, and of the stored columns of a sparse one.
template <class T>
constexpr int kStoredColumns = 8 * kPerRegister<T>;
// Columns that a sparse A tile stands for.
template <class T>
constexpr int kLogicalColumns = 2 * kStoredColumns<T>;

template <class T>
constexpr Place a_place(Slot s) {
  constexpr int p = kPerRegister<T>;
  return {s.lane / 4 + 8 * (s.reg & 1), p * (s.lane % 4) + s.element + 4 * p * (s.reg >> 1)};
}
template <class T>
constexpr Slot a_slot(Place at) {
  constexpr int p = kPerRegister<T>;
  return {4 * (at.row % 8) + at.column / p % 4, at.row / 8 + 2 * (at.column / (4 * p)), at.column % p};
}

// Rows run along k, columns along n.
template <class T>
constexpr Place b_place(Slot s) {
  constexpr int p = kPerRegister<T>;
  return {p * (s.lane % 4) + s.element + 4 * p * s.reg, s.lane / 4};
}
template <class T>
constexpr Slot b_slot(Place at) {
  constexpr int p = kPerRegister<T>;
  return {4 * at.column + at.row / p % 4, at.row / (4 * p), at.row % p};
}

// C and D, of one 16 x 8 tile or of n columns.
constexpr Place c_place(int lane, int reg) {
  return {lane / 4 + 8 * (reg / 2 % 2), 8 * (reg / 4) + 2 * (lane % 4) + reg % 2};
}
constexpr Slot c_slot(Place at) {
  return {4 * (at.row % 8) + at.column % 8 / 2, 4 * (at.column / 8) + 2 * (at.row / 8) + at.column % 2, 0};
}

// Where two bits of metadata lie: in the word of this lane, `shift` bits up.
struct MetadataSlot {
  int lane, shift;
};

// The bits of stored element `stored` of `row`, in a 16-row tile. 8-bit elements know selector 0 only.
template <class T>
constexpr MetadataSlot metadata_slot(int row, int stored, int selector) {
  static_assert(sizeof(T) == 1 || sizeof(T) == 2, "metadata is defined for 8-bit and 16-bit elements");
  if constexpr (sizeof(T) == 2) {
    return {4 * (row % 8) + 2 * selector + stored / 8, 16 * (row / 8) + 2 * (stored % 8)};
  } else {
    return {4 * (row % 8) + row / 8 + 2 * (stored / 16), 2 * (stored % 16)};
  }
}
// Whether an instruction with this selector looks at the word of this lane.
template <class T>
constexpr bool metadata_lane(int lane, int selector) {
  return sizeof(T) == 1 || lane % 4 / 2 == selector;
}

// The word of four pairs, each the first and the second element of a group of four: what padding carries.
constexpr uint32_t kPaddingMetadata = 0x44444444u;

}  // namespace sparsecore::fragments

// mma.sync and mma.sp::ordered_metadata: D (16 x 8) = A (16 x k) B (k x 8) + D.
//
// Products are exact and summed in float in the order of k (int32, wrapping, for 8-bit integers). Hardware aligns the
// products of one instruction before it adds them, so results are close to these, not the same bits.
#pragma once

#include "../collective.h"
#include "../machine.h"
#include "tensor_fragments.h"

namespace cuda_emulation {

// What one lane brings: its registers. `sum` is read and written.
template <class Format>
struct MmaLane {
  Sum<Format>* sum;
  const uint32_t* a;
  const uint32_t* b;
  uint32_t metadata;
};

// sums[0 .. n) += a * b[0 .. n); integers wrap.
template <class Format>
void add_scaled(Sum<Format>* sums, Sum<Format> a, const Sum<Format>* b, int n) {
  if constexpr (kIsInteger<Format>) {
    for (int i = 0; i < n; ++i) {
      sums[i] = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(a * b[i]));
    }
  } else {
    for (int i = 0; i < n; ++i) sums[i] += a * b[i];
  }
}

template <class Format, int kDepth>
void multiply_add(MmaLane<Format>* const* lanes, const Sum<Format> (&a)[16][kDepth],
                  const Sum<Format> (&b)[kDepth][8]) {
  Sum<Format> total[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) total[c_place(lane, i).row][c_place(lane, i).column] = lanes[lane]->sum[i];
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < kDepth; ++k) add_scaled<Format>(total[row], a[row][k], b[k], 8);
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) lanes[lane]->sum[i] = total[c_place(lane, i).row][c_place(lane, i).column];
  }
}

template <class Format, int kDepth>
void load_b(BTile<Format, kDepth>& b, MmaLane<Format>* const* lanes) {
  const uint32_t* registers[32];
  for (int lane = 0; lane < 32; ++lane) registers[lane] = lanes[lane]->b;
  b.load(registers);
}

template <class Format>
void mma_of_warp(MmaLane<Format>* const* lanes) {
  constexpr int depth = ATile<Format>::kColumns;
  ATile<Format> a;
  const uint32_t* registers[32];
  for (int lane = 0; lane < 32; ++lane) registers[lane] = lanes[lane]->a;
  a.load(registers);
  BTile<Format, depth> b;
  load_b(b, lanes);
  multiply_add<Format, depth>(lanes, a.at, b.at);
}

// Two bits for each of a row's stored elements, gathered from the lanes that the selector names.
//   16-bit elements: of each four lanes the pair `selector` counts; its first lane has the first eight stored elements
//     of two rows, the upper one in the low half of the word, its second lane the last eight.
//   8-bit elements: all four lanes count. Even lanes have the upper row, odd lanes the lower one; the first two lanes
//     the first sixteen stored elements, the last two the others.
template <class Format>
int metadata_of(const uint32_t (&words)[32], int row, int stored, int selector) {
  const int quad = row % 8 * 4, lower = row / 8;
  if constexpr (Format::bits == 16) {
    const uint32_t word = words[quad + selector * 2 + stored / 8];
    return word >> (lower * 16 + stored % 8 * 2) & 3;
  } else {
    const uint32_t word = words[quad + stored / 16 * 2 + lower];
    return word >> (stored % 16 * 2) & 3;
  }
}

// A's stored columns spread to the columns they stand for; what is not stored is zero.
template <class Format>
void expand(const char* instruction, const ATile<Format>& stored, const uint32_t (&words)[32], int selector,
            Sum<Format> (&a)[16][2 * ATile<Format>::kColumns]) {
  constexpr int selectors = Format::bits == 16 ? 2 : 1;
  if (selector < 0 || selector >= selectors) {
    violation("%s: the sparsity selector is %d and must be below %d for %d-bit elements", instruction, selector,
              selectors, Format::bits);
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 2 * ATile<Format>::kColumns; ++k) a[row][k] = 0;
    for (int pair = 0; pair < ATile<Format>::kColumns / 2; ++pair) {
      const int first = metadata_of<Format>(words, row, 2 * pair, selector);
      const int second = metadata_of<Format>(words, row, 2 * pair + 1, selector);
      if (first >= second) {
        violation("%s: the metadata of row %d, group %d is (%d, %d) and must be ascending", instruction, row, pair,
                  first, second);
      }
      a[row][4 * pair + first] = stored.at[row][2 * pair];
      a[row][4 * pair + second] = stored.at[row][2 * pair + 1];
    }
  }
}

template <class Format>
void mma_sparse_of_warp(const char* instruction, MmaLane<Format>* const* lanes, int selector) {
  constexpr int depth = 2 * ATile<Format>::kColumns;
  ATile<Format> stored;
  const uint32_t* registers[32];
  uint32_t words[32];
  for (int lane = 0; lane < 32; ++lane) {
    registers[lane] = lanes[lane]->a;
    words[lane] = lanes[lane]->metadata;
  }
  stored.load(registers);
  Sum<Format> a[16][depth];
  expand(instruction, stored, words, selector, a);
  BTile<Format, depth> b;
  load_b(b, lanes);
  multiply_add<Format, depth>(lanes, a, b.at);
}

// One warp's mma.sync: the element type settles k, 256 bits of it.
template <class Format>
void mma(Sum<Format> (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  constexpr const char* instruction = "mma.sync";
  if constexpr (kNeedsSm89<Format>) require_capability(89, instruction);
  MmaLane<Format> lane{d, a, b, 0};
  warp_collective(instruction, lane, [](MmaLane<Format>* const* lanes) { mma_of_warp<Format>(lanes); });
}

// mma.sp::ordered_metadata, k of 512 logical bits.
template <class Format>
void mma_sparse(Sum<Format> (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata, int selector) {
  constexpr const char* instruction = "mma.sp";
  if constexpr (kNeedsSm89<Format>) require_capability(89, instruction);
  MmaLane<Format> lane{d, a, b, metadata};
  warp_collective(instruction, lane,
                  [=](MmaLane<Format>* const* lanes) { mma_sparse_of_warp<Format>(instruction, lanes, selector); });
}

}  // namespace cuda_emulation

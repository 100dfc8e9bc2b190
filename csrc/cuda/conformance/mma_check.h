// The kernels and expectations of mma and mma.sp, for every element type.
#pragma once

#include "cuda/common/fragments.h"
#include "cuda/common/mma.h"
#include "cuda/common/mma_sparse.h"
#include "cuda/conformance/check.h"

namespace sparsecore::conformance {

template <class T>
SC_DEVICE uint32_t bits_of(T element) {
  if constexpr (std::is_same_v<T, int8_t>) {
    return static_cast<uint8_t>(element);
  } else {
    return element.bits;
  }
}

// A lane's registers of the matrix at `rows` (row major, `columns` wide), by a map of fragments.h.
template <class T, int kRegisters, class Map>
SC_DEVICE void load_fragment(uint32_t (&registers)[kRegisters], Map place_of, const T* rows, int columns,
                             bool transposed) {
  for (int r = 0; r < kRegisters; ++r) {
    registers[r] = 0;
    for (int e = 0; e < fragments::kPerRegister<T>; ++e) {
      const fragments::Place at = place_of(r, e);
      const T element = transposed ? rows[at.column * columns + at.row] : rows[at.row * columns + at.column];
      registers[r] |= bits_of(element) << (8 * static_cast<int>(sizeof(T)) * e);
    }
  }
}

// a [16, k], b [8, k], d [16, 8], all row major.
template <class T>
__global__ void mma_kernel(const T* a, const T* b, Accumulator<T>* d) {
  constexpr int k = fragments::kStoredColumns<T>;
  const int lane = threadIdx.x;
  uint32_t a_registers[4], b_registers[2];
  load_fragment(a_registers, [=](int r, int e) { return fragments::a_place<T>({lane, r, e}); }, a, k, false);
  load_fragment(b_registers, [=](int r, int e) { return fragments::b_place<T>({lane, r, e}); }, b, k, true);
  Accumulator<T> sums[4];
  for (int i = 0; i < 4; ++i) {
    const fragments::Place at = fragments::c_place(lane, i);
    sums[i] = d[8 * at.row + at.column];
  }
  ptx::mma<T>(sums, a_registers, b_registers);
  for (int i = 0; i < 4; ++i) {
    const fragments::Place at = fragments::c_place(lane, i);
    d[8 * at.row + at.column] = sums[i];
  }
}

// a [16, k / 2] as stored, metadata [32] words, b [8, k], d [16, 8].
template <class T, int kSelector>
__global__ void mma_sparse_kernel(const T* a, const uint32_t* metadata, const T* b, Accumulator<T>* d) {
  constexpr int stored = fragments::kStoredColumns<T>;
  const int lane = threadIdx.x;
  uint32_t a_registers[4], b_registers[4];
  load_fragment(a_registers, [=](int r, int e) { return fragments::a_place<T>({lane, r, e}); }, a, stored, false);
  load_fragment(b_registers, [=](int r, int e) { return fragments::b_place<T>({lane, r, e}); }, b, 2 * stored, true);
  Accumulator<T> sums[4];
  for (int i = 0; i < 4; ++i) {
    const fragments::Place at = fragments::c_place(lane, i);
    sums[i] = d[8 * at.row + at.column];
  }
  ptx::mma_sparse<T, kSelector>(sums, a_registers, b_registers, metadata[lane]);
  for (int i = 0; i < 4; ++i) {
    const fragments::Place at = fragments::c_place(lane, i);
    d[8 * at.row + at.column] = sums[i];
  }
}

// The metadata words, by lane, of one instruction's 16 rows and stored columns from the given first ones. Lanes that
// the selector does not name carry nonsense.
template <class T>
std::vector<uint32_t> metadata_words(const SparseMatrix<T>& a, int first_row, int first_stored, int selector) {
  std::vector<uint32_t> words(32, 0);
  for (int lane = 0; lane < 32; ++lane) {
    if (!fragments::metadata_lane<T>(lane, selector)) words[lane] = 0xdeadbeef;
  }
  for (int row = 0; row < 16; ++row) {
    for (int s = 0; s < fragments::kStoredColumns<T>; ++s) {
      const fragments::MetadataSlot slot = fragments::metadata_slot<T>(row, s, selector);
      words[slot.lane] |= static_cast<uint32_t>(a.place(first_row + row, first_stored + s)) << slot.shift;
    }
  }
  return words;
}

template <class T>
std::string check_mma() {
  std::mt19937 random(1);
  const Matrix<T> a(16, fragments::kStoredColumns<T>, random), b(8, fragments::kStoredColumns<T>, random);
  const auto c = small_sums<Accumulator<T>>(16 * 8, random);
  DeviceArray<T> device_a(a.elements), device_b(b.elements);
  DeviceArray<Accumulator<T>> device_d(c);
  require(launch(one_block(32), mma_kernel<T>, device_a.data(), device_b.data(), device_d.data()));
  finish();
  return first_difference(device_d.values(), product(a, b, c), 8);
}

template <class T, int kSelector>
std::string check_mma_sparse() {
  std::mt19937 random(2 + kSelector);
  const SparseMatrix<T> a(16, fragments::kStoredColumns<T>, random);
  const Matrix<T> b(8, fragments::kLogicalColumns<T>, random);
  const auto c = small_sums<Accumulator<T>>(16 * 8, random);
  DeviceArray<T> device_a(a.stored.elements), device_b(b.elements);
  DeviceArray<uint32_t> device_metadata(metadata_words(a, 0, 0, kSelector));
  DeviceArray<Accumulator<T>> device_d(c);
  require(launch(one_block(32), mma_sparse_kernel<T, kSelector>, device_a.data(), device_metadata.data(),
                 device_b.data(), device_d.data()));
  finish();
  return first_difference(device_d.values(), product(a, b, c), 8);
}

}  // namespace sparsecore::conformance

// wgmma.mma_async and its sparse form: D (64 x n) = A (64 x k) B (k x n) + D by the 128 threads of a warpgroup.
//
// What makes it asynchronous is made visible:
//   D     holds poison from the issue until a wait covers the operation, and must not be written in between
//   A, B  in shared memory are read at the issue or at the wait, as the adversary likes, through the async proxy
//   A     in registers must keep its values until the wait
//   wgmma.fence by every warp comes before the first operation, after D was changed by anything else, and, for A in
//         registers, in each group that brings new values
// Operations on one D follow each other without a wait, as long as they have the same shape.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "../collective.h"
#include "../machine.h"
#include "mma.h"
#include "shared_matrix.h"
#include "tensor_fragments.h"

namespace cuda_emulation {

constexpr int kWarpgroup = 128;

// What one thread brings. Registers are handled as bits.
struct WgmmaLane {
  uint32_t* sums;
  const uint32_t* a_registers;  // null: A is in shared memory
  uint64_t a_descriptor, b_descriptor;
  uint32_t metadata;
  bool accumulate;
};

struct WgmmaShape {
  int columns;
  int a_bytes, b_bytes;  // of k, per row
  bool a_transposed, b_transposed;
  int selector;
  uint32_t poison;  // what D holds while an operation is under way
};

struct WgmmaOperands {
  std::vector<uint8_t> a, b;            // 64 and n rows of k, where they came from shared memory
  uint32_t a_registers[kWarpgroup][4];  // where they did not
  uint32_t metadata[kWarpgroup];
};

// Adds the product to `sums`: thread t's registers from t * columns / 2.
using WgmmaProduct = void (*)(const char* instruction, const WgmmaOperands&, const WgmmaShape&, uint32_t* sums);

void wgmma_issue(const char* instruction, WgmmaLane* const* lanes, const WgmmaShape& shape, WgmmaProduct product);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int groups_left);

template <class Format>
std::vector<Sum<Format>> decode_rows(const std::vector<uint8_t>& bytes) {
  constexpr size_t size = Format::bits / 8;
  std::vector<Sum<Format>> values(bytes.size() / size);
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t word = 0;
    std::memcpy(&word, &bytes[i * size], size);
    values[i] = Format::decode(word);
  }
  return values;
}

// kGroup logical columns of A for each that is stored: 1 dense, 2 sparse.
template <class Format, int kGroup, bool kRegisters>
void wgmma_product(const char* instruction, const WgmmaOperands& operands, const WgmmaShape& shape, uint32_t* sums) {
  constexpr int stored = ATile<Format>::kColumns, depth = kGroup * stored;
  const int n = shape.columns;
  const std::vector<Sum<Format>> b_rows = decode_rows<Format>(operands.b);
  std::vector<Sum<Format>> b(static_cast<size_t>(depth) * n);  // k major, so that the loop below runs along n
  for (int column = 0; column < n; ++column) {
    for (int k = 0; k < depth; ++k)
      b[static_cast<size_t>(k) * n + column] = b_rows[static_cast<size_t>(column) * depth + k];
  }
  const std::vector<Sum<Format>> a_rows = decode_rows<Format>(operands.a);
  std::vector<Sum<Format>> total(static_cast<size_t>(16) * n);
  for (int warp = 0; warp < 4; ++warp) {
    ATile<Format> tile;
    if constexpr (kRegisters) {
      const uint32_t* registers[32];
      for (int lane = 0; lane < 32; ++lane) registers[lane] = operands.a_registers[32 * warp + lane];
      tile.load(registers);
    } else {
      std::memcpy(tile.at, &a_rows[static_cast<size_t>(16) * warp * stored], sizeof tile.at);
    }
    Sum<Format> a[16][depth];
    if constexpr (kGroup == 2) {
      uint32_t words[32];
      std::memcpy(words, &operands.metadata[32 * warp], sizeof words);
      expand(instruction, tile, words, shape.selector, a);
    } else {
      std::memcpy(a, tile.at, sizeof a);
    }
    uint32_t* warp_sums = sums + static_cast<size_t>(32) * warp * (n / 2);
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < n / 2; ++i) {
        const CPlace at = c_place(lane, i);
        std::memcpy(&total[static_cast<size_t>(at.row) * n + at.column], &warp_sums[lane * (n / 2) + i], 4);
      }
    }
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < depth; ++k)
        add_scaled<Format>(&total[static_cast<size_t>(row) * n], a[row][k], &b[static_cast<size_t>(k) * n], n);
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < n / 2; ++i) {
        const CPlace at = c_place(lane, i);
        std::memcpy(&warp_sums[lane * (n / 2) + i], &total[static_cast<size_t>(at.row) * n + at.column], 4);
      }
    }
  }
}

template <class Format, int kGroup, bool kRegisters>
void wgmma_any(WgmmaLane lane, int columns, bool a_transposed, bool b_transposed, int selector) {
  constexpr const char* instruction = kGroup == 2 ? "wgmma.sp" : "wgmma";
  const WgmmaShape shape{
      columns, 32, 32 * kGroup, a_transposed, b_transposed, selector, kIsInteger<Format> ? 0x8badf00du : 0xffffffffu};
  warpgroup_collective(instruction, lane, [&](WgmmaLane* const* lanes) {
    wgmma_issue(instruction, lanes, shape, wgmma_product<Format, kGroup, kRegisters>);
  });
}

template <class Format, int kCount>
void wgmma(Sum<Format> (&d)[kCount], uint64_t a, uint64_t b, bool accumulate, bool a_transposed, bool b_transposed) {
  wgmma_any<Format, 1, false>({reinterpret_cast<uint32_t*>(d), nullptr, a, b, 0, accumulate}, 2 * kCount, a_transposed,
                              b_transposed, 0);
}
template <class Format, int kCount>
void wgmma(Sum<Format> (&d)[kCount], const uint32_t (&a)[4], uint64_t b, bool accumulate, bool b_transposed) {
  wgmma_any<Format, 1, true>({reinterpret_cast<uint32_t*>(d), a, 0, b, 0, accumulate}, 2 * kCount, false, b_transposed,
                             0);
}
template <class Format, int kCount>
void wgmma_sparse(Sum<Format> (&d)[kCount], uint64_t a, uint64_t b, uint32_t metadata, int selector, bool accumulate,
                  bool a_transposed, bool b_transposed) {
  wgmma_any<Format, 2, false>({reinterpret_cast<uint32_t*>(d), nullptr, a, b, metadata, accumulate}, 2 * kCount,
                              a_transposed, b_transposed, selector);
}
template <class Format, int kCount>
void wgmma_sparse(Sum<Format> (&d)[kCount], const uint32_t (&a)[4], uint64_t b, uint32_t metadata, int selector,
                  bool accumulate, bool b_transposed) {
  wgmma_any<Format, 2, true>({reinterpret_cast<uint32_t*>(d), a, 0, b, metadata, accumulate}, 2 * kCount, false,
                             b_transposed, selector);
}

}  // namespace cuda_emulation

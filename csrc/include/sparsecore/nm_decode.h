// Per-row N:M for one to eight tokens, where reading the weight is what costs: 16 neighbouring output channels side
// by side, and each kept weight's place inside its group of m in as few bits as m needs.
//
//   tiles    = ceil(n / 16)          channels past the last are stored as zeros
//   groups   = ceil(k / m)           the last group may be short: its missing columns count as pruned
//   slots    = groups * n_kept       slot s belongs to group s / n_kept; unused slots hold value 0, code 0
//   bits     = ceil(log2(m)), per_word = 32 / bits, words = ceil(slots / per_word)
//   values   [tiles, slots, 16]
//   codes    uint32 [tiles, words, 16]   slot s of a channel: (codes[s / per_word] >> bits * (s % per_word)) & mask
//
// bytes = tiles * 16 * (slots * size_of(values) + 4 * words)
#pragma once

#include "sparsecore/linear.h"

namespace sparsecore {

struct NMDecode {
  const void* values = nullptr;
  const uint32_t* codes = nullptr;
  int64_t value_count = 0, code_count = 0;  // elements behind the two pointers, checked against the shape
  int32_t n_kept = 2, m = 4;                // 1 <= n_kept < m <= 32
};

SPARSECORE_API Status nm_decode_check(const NMDecode& weight, int64_t n, int64_t k);
// And every code: inside its group, ascending among the used slots, unused slots zero.
SPARSECORE_API Status nm_decode_validate(const NMDecode& weight, DType dtype, int64_t n, int64_t k, int64_t* where);
// Any m; made for m <= 8.
SPARSECORE_API Status nm_decode_linear(const LinearIo& io, const NMDecode& weight);
SPARSECORE_API Status nm_decode_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                     int32_t n_kept, int32_t m, void* values, uint32_t* codes);
SPARSECORE_API Status nm_decode_unpack(const NMDecode& weight, DType dtype, int64_t n, int64_t k, void* dense);

}  // namespace sparsecore

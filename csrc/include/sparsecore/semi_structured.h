// Sp24: 2:4 weights for sparse tensor cores. Two of every four neighbouring inputs of a channel are stored, in the
// order in which the lanes of a warp hold them as the first operand of mma.sp and of wgmma.sp, so that a kernel loads
// weights and metadata straight into registers, coalesced, and one packing serves both instructions.
//
//   e       = bytes of a weight: 2 (bfloat16, float16) or 1 (int8, float8 e4m3)
//   depth   = 128 / e inputs, 64 or 128: 128 bytes of a dense row
//   blocks  = ceil(n / 64) x ceil(k / depth); channels past n and inputs past k are stored as zeros
//   slice   = 16 channels of a block; step = half of the depth, what one instruction takes
//
//   values    [n blocks, k blocks, slice 4, step 2, lane 32, register 4]      4-byte registers
//   metadata  uint32 [n blocks, k blocks, slice 4, lane 32, word 2 / e]
//
// A unit is 8 bytes of a dense row, one or two groups of four, and becomes one register. Channel g + 8h of a slice
// (g < 8, h < 2), unit 8s + 4b + t of the block's sixteen (step s, b < 2, t < 4):
//
//   value     lane 4g + t, step s, register h + 2b
//   places    e = 2   lane 4g + 2s + b, word 0, four bits from bit 16h + 4t
//             e = 1   lane 4g + h + 2b, word s, eight bits from bit 8t
//
// with two bits for each stored weight, its place inside its group of four, strictly ascending in the group, the first
// in the lowest bits. A group with fewer than two kept weights stores zeros at its smallest free places.
//
// bytes = blocks * (4096 + 1024 / e), 9/16 of the dense weight in 16 bits and 5/8 in 8 bits
#pragma once

#include "sparsecore/nm_decode.h"
#include "sparsecore/types.h"

namespace sparsecore {

struct SemiStructured {
  const void* values = nullptr;
  const uint32_t* metadata = nullptr;
  int64_t value_bytes = 0, metadata_words = 0;  // behind the two pointers, checked against the shape
};

// bfloat16, float16, int8, float8 e4m3.
SPARSECORE_API bool semi_structured_supports(DType dtype);
// Sizes of the two arrays; -1 where the type or the shape has none.
SPARSECORE_API int64_t semi_structured_value_bytes(int64_t n, int64_t k, DType dtype);
SPARSECORE_API int64_t semi_structured_metadata_words(int64_t n, int64_t k, DType dtype);

// Types and sizes: enough for a kernel to stay inside its buffers, whatever the metadata says.
SPARSECORE_API Status semi_structured_check(const SemiStructured& weight, DType dtype, int64_t n, int64_t k);
// And every place: ascending in its group, and only zeros past n and k. `where` (may be null) receives the dense place
// channel * (k blocks * depth) + input of the first group that offends.
SPARSECORE_API Status semi_structured_validate(const SemiStructured& weight, DType dtype, int64_t n, int64_t k,
                                               int64_t* where);

// `dense` [n, k] contiguous. `mask` [n, k], 1 = kept, at most two of four; null keeps what is not zero.
SPARSECORE_API Status semi_structured_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                           void* values, uint32_t* metadata);
// The packing of the transposed matrix [k, n]: the mask keeps at most two of four neighbouring channels of an input.
SPARSECORE_API Status semi_structured_pack_transposed(const void* dense, DType dtype, const uint8_t* mask, int64_t n,
                                                      int64_t k, void* values, uint32_t* metadata);
// `dense` [n, k] is overwritten, zeros included. Where metadata is not valid a later weight overwrites an earlier one.
SPARSECORE_API Status semi_structured_unpack(const SemiStructured& weight, DType dtype, int64_t n, int64_t k,
                                             void* dense);

enum class SemiStructuredSelection : int32_t {
  kMask = 0,    // what a mask says
  kByRow = 1,   // the two largest magnitudes of four neighbouring inputs
  kTwoWay = 2,  // of 4 x 4 weights, from the largest on, each whose row and column hold fewer than two so far: at most
                // two of four in either direction, so that the transposed matrix can be packed too
};
// mask [n, k] of kByRow or kTwoWay. Equal magnitudes: the earlier channel first, then the earlier input. A NaN counts
// as the largest magnitude. What lies past n and k counts as zero.
SPARSECORE_API Status semi_structured_select(const void* dense, DType dtype, SemiStructuredSelection selection,
                                             int64_t n, int64_t k, uint8_t* mask);

// Kept weights in order and their places: values [n, ceil(k / 4) * 2], places uint8 of the same shape, 0..3, ascending
// in each group; a slot that a group leaves empty follows the used ones and holds value 0 and place 0.
SPARSECORE_API Status semi_structured_from_places(const void* values, DType dtype, const uint8_t* places, int64_t n,
                                                  int64_t k, void* packed_values, uint32_t* metadata);
// A weight in the layout of nm_decode.h with n_kept = 2 and m = 4; validated first.
SPARSECORE_API Status semi_structured_from_nm_decode(const NMDecode& weight, DType dtype, int64_t n, int64_t k,
                                                     void* packed_values, uint32_t* metadata);

}  // namespace sparsecore

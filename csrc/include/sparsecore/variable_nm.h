// A matrix in blocks of 16 x 16, each with its own N of 16: how many weights of every 16 inputs its rows keep.
//
//   n, k      multiples of 16; block (r, c) holds outputs 16 r .. 16 r + 15 and inputs 16 c .. 16 c + 15
//   codes     uint8 [n / 16, k / 16], each 0 (an empty block), 2, 4, 8 or 16 (a dense one)
//   values    [slots, 16]    per block N slots of 16 outputs side by side; in a dense block slot s is input s
//   indices   uint8 [pairs, 16]   per block with N = 2, 4 or 8: for slots 2 p and 2 p + 1 the place of their inputs
//                                 inside the block, in the low and the high four bits
//
// Block rows follow each other. Inside one the blocks with N = 2 come first, then 4, 8 and 16, each by ascending
// column, so that kernels run through blocks of one kind; where a block lies follows from the codes.
//
// bytes = sum over blocks of 1 + 16 N size_of(value) + (N < 16 ? 8 N : 0)
//
// Every place a four-bit index names is inside its block, so no weight can lead a kernel out of bounds.
// Format: FlightLLM (Zeng et al. 2024).
#pragma once

#include "sparsecore/linear.h"

namespace sparsecore {

struct VariableNM {
  const void* values = nullptr;
  const uint8_t* indices = nullptr;
  const uint8_t* codes = nullptr;
  int64_t value_count = 0, index_count = 0, code_count = 0;  // elements behind the pointers, checked against the codes
};

// Elements of the value and the index array; kBadPattern where a code is none of 0, 2, 4, 8, 16.
SPARSECORE_API Status variable_nm_count(const uint8_t* codes, int64_t n, int64_t k, int64_t* values, int64_t* indices);
SPARSECORE_API Status variable_nm_check(const VariableNM& weight, int64_t n, int64_t k);
// And every index: those of a row ascend inside a block.
SPARSECORE_API Status variable_nm_validate(const VariableNM& weight, int64_t n, int64_t k, int64_t* where);
// Any number of tokens; made for one to eight.
SPARSECORE_API Status variable_nm_linear(const LinearIo& io, const VariableNM& weight);
// Rows that keep fewer than N weights of a block get pruned ones besides, with value 0; more are kBadPattern.
SPARSECORE_API Status variable_nm_pack(const void* dense, DType dtype, const uint8_t* mask, const uint8_t* codes,
                                       int64_t n, int64_t k, void* values, uint8_t* indices);
SPARSECORE_API Status variable_nm_unpack(const VariableNM& weight, DType dtype, int64_t n, int64_t k, void* dense);

}  // namespace sparsecore

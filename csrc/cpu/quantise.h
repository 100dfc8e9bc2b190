// The rule by which Compute::kInt8 quantises a token (or an image), the same to the bit in every file:
//
//   largest = max |x[c]|            NaN counts as larger than infinity
//   largest is not finite           q = 0, scale = NaN: the token's outputs are NaN
//   largest < 2^-100                q = 0, scale = 0
//   else                            scale = largest / 127, q[c] = round(x[c] * (127 / largest)), ties to even
#pragma once

#include <cstring>

#include "sparsecore/types.h"

namespace sparsecore {
namespace {

struct TokenScale {
  float scale, inverse;
};

// `largest_bits`: the bits of largest, that is the largest of the bits of |x[c]| as integers.
inline TokenScale token_scale(uint32_t largest_bits) {
  float largest;
  std::memcpy(&largest, &largest_bits, 4);
  if (largest_bits >= 0x7f800000u) return {__builtin_nanf(""), 0.0f};
  if (largest_bits < 0x0d800000u) return {0.0f, 0.0f};
  return {largest / 127.0f, 127.0f / largest};
}

}  // namespace
}  // namespace sparsecore

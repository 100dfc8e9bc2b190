// V:N:M weights on a GPU, N = 2: V neighbouring output channels pick the same four of every M inputs, and each of them
// keeps two of these four. bfloat16 and float16.
//
//   groups     = ceil(k / M) of inputs; runs = ceil(n / V) of channels; V = 16, 32, 64 or 128
//   columns    uint16 [runs, 4 * groups]   the picked inputs, ascending; kNoColumn where a group has fewer than four
//   packed     Sp24 (sparsecore/semi_structured.h) of the picked matrix [n, 4 * groups]: element (o, j) is
//              w[o, columns[o / V, j]], or 0 where there is no such column
//
// bytes = n * k / M * (2 * size + 1) + runs * 8 * groups. Kernels count in 4 * groups. One that asks for M takes it
// from k and the number of groups, where these leave one answer, and may take a column outside of its group as zeros.
// They read nothing outside of x whatever the columns hold.
#pragma once

#include "sparsecore/linear_cuda.h"
#include "sparsecore/semi_structured.h"

namespace sparsecore {

constexpr uint16_t kNoColumn = 0xffff;  // so k <= 65535

struct VnmWeight {
  SemiStructured packed;
  const uint16_t* columns = nullptr;
  int64_t picked = 0;  // columns of a run: 4 * groups
  int32_t vector = 64;
};

struct VnmLinearParams : DeviceLinear {
  VnmWeight weight;  // [n, k]
};

// Depends on the shape alone.
SPARSECORE_API int64_t vnm_linear_workspace(int64_t m, int64_t n, int64_t k, int64_t picked, int32_t vector);
SPARSECORE_API Status vnm_linear_device(const VnmLinearParams& params, void* stream);

}  // namespace sparsecore

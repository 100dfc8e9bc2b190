// x [m, k] -> lifted x [m, lifted k], rows of lifted_row_bytes, for the kernel that can read only what stands in shared
// memory as it is multiplied (wgmma). One thread for 16 bytes of the result, two windows of 16-bit types or four of
// 8-bit ones; what lies past k becomes zero. Memory bounds it: k + 2 (N - 1) / N k elements of each token pass once.
#pragma once

#include "cuda/common/device.h"
#include "cuda/semi_structured/matmul.h"

namespace sparsecore::semi_structured::sm80 {

constexpr int kLiftThreads = 256;

// Two neighbouring elements, the first at a multiple of their size together; those past k are zero and not read.
template <class T>
SC_DEVICE uint32_t load_pair(const MatmulArguments& args, const char* row, int64_t input) {
  constexpr int kBits = 8 * sizeof(T);
  if (input + 1 < args.p.k) {
    const char* pair = row + input * static_cast<int64_t>(sizeof(T));
    return sizeof(T) == 2 ? *reinterpret_cast<const uint32_t*>(pair) : *reinterpret_cast<const uint16_t*>(pair);
  }
  if (input >= args.p.k) return 0;
  return kBits == 16 ? reinterpret_cast<const uint16_t*>(row)[input] : reinterpret_cast<const uint8_t*>(row)[input];
}

// Grid: tokens, chunks / kLiftThreads. Rows of x begin at multiples of 16 bytes.
// Budget of sm80::lift_tokens: 40 registers.
template <class T>
__global__ void __launch_bounds__(kLiftThreads)
    lift_tokens(const MatmulArguments args, void* lifted, int64_t lifted_row_bytes) {
  constexpr int kWindows = 16 / (4 * sizeof(T)), kPairBits = 16 * sizeof(T);
  const int64_t chunk = static_cast<int64_t>(blockIdx.y) * kLiftThreads + threadIdx.x;
  if (chunk * 16 >= lifted_row_bytes) return;
  const int64_t token = blockIdx.x;
  const char* row = static_cast<const char*>(args.p.x) + token * args.p.x_row_stride * static_cast<int64_t>(sizeof(T));
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kWindows; ++i) {
    const uint32_t window = static_cast<uint32_t>(chunk) * kWindows + i;
    const int64_t input = 2 * (static_cast<int64_t>(window) + window / args.group_windows);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t pair = load_pair<T>(args, row, input + 2 * half);
      words[(2 * i + half) * kPairBits / 32] |= pair << ((2 * i + half) * kPairBits % 32);
    }
  }
  *reinterpret_cast<uint4*>(static_cast<char*>(lifted) + token * lifted_row_bytes + chunk * 16) = {words[0], words[1],
                                                                                                   words[2], words[3]};
}

}  // namespace sparsecore::semi_structured::sm80

// Shared lists as a format of gathered products with wgmma (gathered/matmul_sm90.cuh): a tile is a group of 64
// channels, a turn 64 records, which in shared memory are the operand A, MN-major as they are stored.
#pragma once

#include "cuda/gathered/matmul_sm90.cuh"
#include "cuda/shared_lists/weights_sm80.cuh"

namespace sparsecore::cuda_shared_lists::sm90 {

template <class T>
struct Weights : sm80::RecordWeights<T, 4, gathered::sm90::kDepth> {
  static constexpr int kChannelGroups = 1;

  struct Registers {
    SC_DEVICE void load(const MatmulArguments&, int64_t, int, int64_t, int, int) {}
    template <int kSums>
    SC_DEVICE void fence(float (&sums)[kSums]) {
      ptx::wgmma_fence(sums);
    }
    template <int kSums>
    SC_DEVICE void multiply(float (&sums)[kSums], const char* stage, uint64_t tokens) {
      const uint64_t weights = gathered::sm90::mn_major_descriptor(stage);
#pragma unroll
      for (int i = 0; i < gathered::sm90::kDepth; i += 16)
        ptx::wgmma<T, Major::kMN, Major::kMN>(sums, weights + gathered::sm90::rows_on(i),
                                              tokens + gathered::sm90::rows_on(i), true);
    }
  };
};

}  // namespace sparsecore::cuda_shared_lists::sm90

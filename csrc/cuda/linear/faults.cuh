// Validation of a weight's arrays by one block of threads: once, where a weight is loaded, never beside a product.
//
// Each thread keeps the first fault it meets, as a number that sorts as the functions for the host meet faults: by
// stage, then by place, then by kind. The smallest of all threads is the answer, so that both name the same fault.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/shared_memory.h"
#include "sparsecore/types.h"

namespace sparsecore::cuda_linear {

constexpr int kValidateThreads = 512, kValidateSharedBytes = kValidateThreads * 8;
constexpr int64_t kNoFault = INT64_MAX;

struct FirstFault {
  int64_t first = kNoFault;

  // stage < 2^30, place < 2^31; kBadPointers, kBadIndex or kUnsorted.
  SC_DEVICE void add(int64_t stage, int64_t place, Status status) {
    const int64_t kind = static_cast<int64_t>(status) - static_cast<int64_t>(Status::kBadPointers);
    add(stage << 33 | place << 2 | kind);
  }
  SC_DEVICE void add(int64_t fault) { first = fault < first ? fault : first; }
};

// The smallest number of the block's threads, for thread 0; through kValidateSharedBytes.
SC_DEVICE int64_t smallest_of_block(int64_t mine, char* shared) {
  const int thread = threadIdx.x;
  const auto of = [&](int other) {
    const uint2 words = ptx::load_shared_8(shared + other * 8);
    return static_cast<int64_t>(static_cast<uint64_t>(words.y) << 32 | words.x);
  };
  ptx::store_shared_8(shared + thread * 8, {static_cast<uint32_t>(mine), static_cast<uint32_t>(mine >> 32)});
  for (int half = kValidateThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread >= half) continue;
    const int64_t other = of(thread + half);
    if (other < mine) mine = other;
    ptx::store_shared_8(shared + thread * 8, {static_cast<uint32_t>(mine), static_cast<uint32_t>(mine >> 32)});
  }
  return mine;
}

// where[0]: the status of the first fault, kOk without one; where[1]: its place, or -1.
SC_DEVICE void write_first_fault(const FirstFault& faults, char* shared, int64_t* where) {
  const int64_t first = smallest_of_block(faults.first, shared);
  if (threadIdx.x != 0) return;
  where[0] = first == kNoFault ? 0 : (first & 3) + static_cast<int64_t>(Status::kBadPointers);
  where[1] = first == kNoFault ? -1 : first >> 2 & 0x7fffffff;
}

// Whether a list begins at `record`, by bisection of ascending starts.
SC_DEVICE bool list_begins(const int32_t* starts, int64_t count, int64_t record) {
  int64_t first = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    if (starts[first + half] < record) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return starts[first] == record;
}

}  // namespace sparsecore::cuda_linear

// What bitmap_decode_check asks, on the device: starts of rows that ascend from 0 to nnz (stage 0), and in every row no
// bits past the last column and as many bits as values (stage 1, the place is the row). A warp takes a row.
#pragma once

#include "cuda/bitmap_decode/matmul.h"
#include "cuda/linear/faults.cuh"

namespace sparsecore::cuda_bitmap_decode {

struct ValidateArguments {
  BitmapDecode weight;
  int64_t n = 0, k = 0;
  int64_t* where = nullptr;
};

namespace sm80 {

// Budget of sm80::bitmap_validate: 40 registers.
static __global__ void __launch_bounds__(kValidateThreads) bitmap_validate(const ValidateArguments args) {
  const BitmapDecode& weight = args.weight;
  const int64_t words = ceil_div(args.k, kWordColumns);
  const uint64_t beyond = args.k % kWordColumns ? ~uint64_t{0} << (args.k % kWordColumns) : 0;
  const int lane = threadIdx.x % 32;
  FirstFault faults;
  if (threadIdx.x == 0 && (weight.row_ptr[0] != 0 || weight.row_ptr[args.n] != weight.nnz))
    faults.add(0, 0, Status::kBadPointers);
  for (int64_t row = threadIdx.x / 32; row < args.n; row += kValidateThreads / 32) {
    const uint64_t* bits = weight.bitmap + row * words;
    unsigned count = 0;
    for (int64_t w = lane; w < words; w += 32) count += static_cast<unsigned>(__popcll(bits[w]));
    count = __reduce_add_sync(0xffffffffu, count);
    const int64_t stored = static_cast<int64_t>(weight.row_ptr[row + 1]) - weight.row_ptr[row];
    if (stored < 0) faults.add(0, 0, Status::kBadPointers);
    if (words > 0 && (bits[words - 1] & beyond)) {
      faults.add(1, row, Status::kBadIndex);
    } else if (stored != count) {
      faults.add(1, row, Status::kBadPointers);
    }
  }
  write_first_fault(faults, ptx::smem(), args.where);
}

}  // namespace sm80
}  // namespace sparsecore::cuda_bitmap_decode

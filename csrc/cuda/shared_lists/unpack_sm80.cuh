// Shared lists -> dense [n, k], zeros included.
//
// A block takes a group and a window of columns: the records of the window, found by bisection, note their places in
// shared memory, and then every element of the window knows whether it is stored.
#pragma once

#include "cuda/common/shared_memory.h"
#include "cuda/shared_lists/shared_lists.h"

namespace sparsecore::cuda_shared_lists {

struct UnpackArguments {
  SharedLists weight;
  void* dense = nullptr;
  int64_t n = 0, k = 0;
};

namespace sm80 {

constexpr int kUnpackWindow = 512, kUnpackThreads = 128;
constexpr uint32_t kNotStored = 0xffffffffu;

// Budget of sm80::shared_lists_unpack: 40 registers.
template <class T>
__global__ void __launch_bounds__(kUnpackThreads) shared_lists_unpack(const UnpackArguments args) {
  char* shared = ptx::smem();
  const int64_t windows = ceil_div(args.k, kUnpackWindow);
  const int64_t group = blockIdx.x / windows, first = blockIdx.x % windows * kUnpackWindow;
  const int width = static_cast<int>(args.k - first < kUnpackWindow ? args.k - first : kUnpackWindow);
  const Records records(args.weight, group);
  for (int i = threadIdx.x; i < width; i += kUnpackThreads) ptx::store_shared_4(shared + 4 * i, kNotStored);
  __syncthreads();

  int64_t begin = records.first;
  for (int64_t end = records.last; begin < end;) {
    const int64_t middle = (begin + end) / 2;
    if (args.weight.columns[middle] < first) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  for (int64_t i = begin + threadIdx.x; i < records.last && args.weight.columns[i] < first + width; i += kUnpackThreads)
    if (args.weight.columns[i] >= first)
      ptx::store_shared_4(shared + 4 * (args.weight.columns[i] - first), static_cast<uint32_t>(i));
  __syncthreads();

  const int64_t channel = group * args.weight.vector;
  const int64_t channels = args.n - channel < args.weight.vector ? args.n - channel : args.weight.vector;
  const T* values = static_cast<const T*>(args.weight.values);
  T* dense = static_cast<T*>(args.dense);
  for (int64_t i = threadIdx.x; i < channels * width; i += kUnpackThreads) {
    const int64_t v = i / width, c = i % width;
    const uint32_t record = ptx::load_shared_4(shared + 4 * c);
    dense[(channel + v) * args.k + first + c] =
        record == kNotStored ? T{0} : values[static_cast<int64_t>(record) * args.weight.vector + v];
  }
}

}  // namespace sm80
}  // namespace sparsecore::cuda_shared_lists

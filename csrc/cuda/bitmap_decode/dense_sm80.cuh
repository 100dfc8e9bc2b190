// Weights behind a bitmap made dense, and what a dense matrix holds at their places. One warp takes a part of a row, 32
// words of the bitmap, a word to a lane: a word's first value is the row's first, and as many further as there are bits
// before the word. Then the warp goes word by word, a lane to a column of either half, so that neighbouring lanes touch
// neighbouring elements of the dense matrix and nearly neighbouring values.
#pragma once

#include "cuda/bitmap_decode/dense.h"
#include "cuda/common/convert.h"

namespace sparsecore::cuda_bitmap_decode::sm80 {

template <class T, class V>
SC_DEVICE T converted(V value) {
  if constexpr (std::is_same_v<T, V>) {
    return value;
  } else if constexpr (std::is_same_v<T, float>) {
    return static_cast<float>(value);
  } else {
    return ptx::from_float<T>(static_cast<float>(value));
  }
}

// visit(column, kept, place): every column of the warp's words, also past k; place: of its value, if it is kept.
template <class Visit>
SC_DEVICE void visit_part(const DenseArguments& args, int64_t row, int64_t part, Visit visit) {
  const int lane = threadIdx.x % 32;
  const int64_t first = part * kPartWords;
  const uint64_t* bits = args.weight.bitmap + row * args.words;
  int before = 0;  // kept weights of the row in front of this part
  for (int64_t word = lane; word < first; word += 32) before += __popcll(bits[word]);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) before += __shfl_xor_sync(0xffffffffu, before, distance);

  const uint64_t own = first + lane < args.words ? bits[first + lane] : 0;
  const int count = __popcll(own);
  int through = count;  // of the part, up to this lane's word
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, through, distance);
    if (lane >= distance) through += other;
  }
  // Of a damaged file anything: visitors ask whether there is such a place.
  const uint32_t own_place =
      static_cast<uint32_t>(args.weight.row_ptr[row]) + static_cast<uint32_t>(before + through - count);

  const uint32_t below = (1u << lane) - 1;
  for (int word = 0; word < kPartWords && first + word < args.words; ++word) {
    const uint32_t low = __shfl_sync(0xffffffffu, static_cast<uint32_t>(own), word);
    const uint32_t high = __shfl_sync(0xffffffffu, static_cast<uint32_t>(own >> 32), word);
    const uint32_t place = __shfl_sync(0xffffffffu, own_place, word);
    const int64_t column = (first + word) * kWordColumns + lane;
    visit(column, low >> lane & 1, place + static_cast<uint32_t>(__popc(low & below)));
    visit(column + 32, high >> lane & 1, place + static_cast<uint32_t>(__popc(low) + __popc(high & below)));
  }
}

// The warp's row and part, or false where there is none left for it.
SC_DEVICE bool part_of_warp(const DenseArguments& args, int64_t* row, int64_t* part) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * (kDenseThreads / 32) + threadIdx.x / 32;
  *row = unit / args.parts;
  *part = unit % args.parts;
  return *row < args.n;
}

// V: the stored type, T: that of the dense matrix. Bits past the values are zeros.
// Budget of sm80::to_dense: 40 registers.
template <class V, class T>
__global__ void __launch_bounds__(kDenseThreads) to_dense(const DenseArguments args) {
  int64_t row, part;
  if (!part_of_warp(args, &row, &part)) return;
  const V* values = static_cast<const V*>(args.weight.values);
  T* dense = static_cast<T*>(args.dense) + row * args.k;
  visit_part(args, row, part, [&](int64_t column, bool kept, uint32_t place) {
    if (column < args.k) dense[column] = kept && place < args.weight.nnz ? converted<T>(values[place]) : T();
  });
}

// Budget of sm80::gather: 40 registers.
template <class T>
__global__ void __launch_bounds__(kDenseThreads) gather(const DenseArguments args) {
  int64_t row, part;
  if (!part_of_warp(args, &row, &part)) return;
  const T* dense = static_cast<const T*>(args.dense) + row * args.k;
  T* values = static_cast<T*>(args.values);
  visit_part(args, row, part, [&](int64_t column, bool kept, uint32_t place) {
    if (kept && column < args.k && place < args.weight.nnz) values[place] = dense[column];
  });
}

}  // namespace sparsecore::cuda_bitmap_decode::sm80

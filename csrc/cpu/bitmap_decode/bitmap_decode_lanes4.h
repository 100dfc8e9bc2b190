// Bitmap decode on four lanes, compiled by the NEON file and the two WebAssembly files.
//
// The set bits of a few words become a list of columns once for all tokens; then four weights at a time are widened
// together and multiplied with four gathered activations. Kept weight i of a row's chunk adds to lane i % 4.
#pragma once

#include "cpu/bitmap_decode/bitmap_decode.h"
#include "cpu/panel_lanes4.h"

namespace sparsecore::bitmap_decode {
namespace {

constexpr int64_t kChunkWords = 8;

// Columns of the set bits, from the start of the chunk.
inline int32_t list_columns(const uint64_t* bitmap, int64_t words, uint16_t* columns) {
  int32_t count = 0;
  for (int64_t w = 0; w < words; ++w)
    for (uint64_t bits = bitmap[w]; bits; bits &= bits - 1)
      columns[count++] = static_cast<uint16_t>(64 * w + __builtin_ctzll(bits));
  return count;
}

template <typename T, size_t Tokens>
void run(const Row& row) {
  const T* values = static_cast<const T*>(row.values);
  const size_t x_stride = static_cast<size_t>(row.x_stride);
  uint16_t columns[64 * kChunkWords];
  Float4 sums[Tokens];
  each<Tokens>([&]<size_t t>() { sums[t] = splat4(0.0f); });
  for (int64_t w = 0; w < row.words; w += kChunkWords) {
    const float* x = row.x + 64 * w;
    const int32_t count =
        list_columns(row.bitmap + w, row.words - w < kChunkWords ? row.words - w : kChunkWords, columns);
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
      const Float4 weight = load4(values + i);
      each<Tokens>([&]<size_t t>() { sums[t] = madd4(weight, gather4(x + t * x_stride, columns + i), sums[t]); });
    }
    if (i < count) {  // lanes past the end multiply zero with zero
      const Float4 weight = load_some4(values + i, count - i);
      each<Tokens>([&]<size_t t>() {
        float rest[4] = {};
        for (int32_t j = i; j < count; ++j) rest[j - i] = x[t * x_stride + columns[j]];
        sums[t] = madd4(weight, load4(rest), sums[t]);
      });
    }
    values += count;
  }
  each<Tokens>([&]<size_t t>() {
    float lanes[4];
    store4(lanes, sums[t]);
    row.sums[t * row.sums_stride] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  });
}

template <typename T>
void run_tokens(const Row& row, int tokens) {
  switch (tokens) {
    case 1: return run<T, 1>(row);
    case 2: return run<T, 2>(row);
    case 4: return run<T, 4>(row);
    default: return run<T, 8>(row);
  }
}

}  // namespace
}  // namespace sparsecore::bitmap_decode

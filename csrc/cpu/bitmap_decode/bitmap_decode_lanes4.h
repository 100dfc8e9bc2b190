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
void run(const Rows& rows, int r) {
  const T* values = static_cast<const T*>(rows.values) + rows.starts[r];
  const uint64_t* bitmap = rows.bitmap + r * rows.words;
  const size_t x_stride = static_cast<size_t>(rows.x_stride);
  uint16_t columns[64 * kChunkWords];
  Float4 sums[Tokens];
  each<Tokens>([&]<size_t t>() { sums[t] = splat4(0.0f); });
  for (int64_t w = 0; w < rows.words; w += kChunkWords) {
    const float* x = rows.x + 64 * w;
    const int32_t count =
        list_columns(bitmap + w, rows.words - w < kChunkWords ? rows.words - w : kChunkWords, columns);
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
    rows.sums[t * rows.sums_stride + r] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  });
}

template <typename T>
void run_tokens(const Rows& rows, int tokens) {
  for (int r = 0; r < rows.rows; ++r) switch (tokens) {
      case 1: run<T, 1>(rows, r); break;
      case 2: run<T, 2>(rows, r); break;
      case 4: run<T, 4>(rows, r); break;
      default: run<T, 8>(rows, r);
    }
}

inline int64_t count(const uint64_t* words, int64_t number) {
  int64_t total = 0;
  for (int64_t w = 0; w < number; ++w) total += __builtin_popcountll(words[w]);
  return total;
}

}  // namespace
}  // namespace sparsecore::bitmap_decode

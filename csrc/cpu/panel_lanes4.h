// Widening arrays and turning activations, four lanes at a time; shared by the NEON and the WebAssembly files.
#pragma once

#include "cpu/lanes4.h"

namespace sparsecore {
namespace {

// Calls body(const T*) with the array as its own type.
template <typename Body>
inline void with_type(const void* array, DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32: return body(static_cast<const float*>(array));
    case DType::kBFloat16: return body(static_cast<const BFloat16*>(array));
    case DType::kFloat16: return body(static_cast<const Float16*>(array));
    case DType::kInt8: return body(static_cast<const int8_t*>(array));
  }
}

// The first `count` (1 to 4) values, the other lanes zero.
template <typename T>
inline Float4 load_some4(const T* from, int64_t count) {
  T copy[4] = {};
  std::memcpy(copy, from, count * sizeof(T));
  return load4(copy);
}

inline void widen_all(const void* from, DType dtype, int64_t count, float* to) {
  with_type(from, dtype, [&](auto* values) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) store4(to + i, load4(values + i));
    if (i == count) return;
    float rest[4];
    store4(rest, load_some4(values + i, count - i));
    std::memcpy(to + i, rest, (count - i) * sizeof(float));
  });
}

// Four tokens by four columns, turned; `rows` past `tokens` are not read and come out as zeros.
template <typename T>
inline void turn_block(const T* rows, int64_t stride, int tokens, int64_t columns, Float4 (&block)[4]) {
  for (int t = 0; t < 4; ++t) {
    const T* row = rows + t * stride;
    block[t] = t >= tokens ? splat4(0.0f) : columns >= 4 ? load4(row) : load_some4(row, columns);
  }
  transpose4(block[0], block[1], block[2], block[3]);
}

// x [tokens, columns] -> panel [columns, lanes], lanes a multiple of 4; missing tokens become 0.
inline void pack_lanes(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes,
                       float* panel) {
  with_type(x, dtype, [&](auto* rows) {
    Float4 turned[4];
    for (int t = 0; t < lanes; t += 4) {
      const auto* first = t < tokens ? rows + t * x_row_stride : rows;
      for (int c = 0; c < columns; c += 4) {
        turn_block(first + c, x_row_stride, tokens - t, columns - c, turned);
        for (int i = 0; i < 4 && c + i < columns; ++i) store4(panel + (c + i) * lanes + t, turned[i]);
      }
    }
  });
}

// sums [channels, lanes] -> rows [tokens, rows_stride], tokens <= lanes; nothing is written past `channels`.
inline void unpack_lanes(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride) {
  Float4 turned[4];
  for (int64_t o = 0; o < channels; o += 4) {
    const int64_t count = channels - o < 4 ? channels - o : 4;
    for (int t = 0; t < tokens; t += 4) {
      for (int i = 0; i < 4; ++i) turned[i] = i < count ? load4(sums + (o + i) * lanes + t) : splat4(0.0f);
      transpose4(turned[0], turned[1], turned[2], turned[3]);
      for (int i = 0; i < 4 && t + i < tokens; ++i) {
        float* to = rows + (t + i) * rows_stride + o;
        if (count == 4) {
          store4(to, turned[i]);
        } else {
          float row[4];
          store4(row, turned[i]);
          std::memcpy(to, row, count * sizeof(float));
        }
      }
    }
  }
}

// Columns follow each other in the panel, `tokens` floats each. Whole vectors are stored in that order, so that what
// one writes too much the next puts right; the last columns, which nothing follows, go through a copy.
template <typename T>
void pack_tokens(const T* rows, int64_t stride, int tokens, int64_t k, float* panel) {
  const int blocks = (tokens + 3) / 4;
  Float4 turned[2][4];
  for (int64_t c = 0; c < k; c += 4, panel += 4 * tokens) {
    for (int b = 0; b < blocks; ++b) turn_block(rows + 4 * b * stride + c, stride, tokens - 4 * b, k - c, turned[b]);
    if (c + 8 <= k) {
      for (int i = 0; i < 4; ++i)
        for (int b = 0; b < blocks; ++b) store4(panel + i * tokens + 4 * b, turned[b][i]);
    } else {
      for (int i = 0; i < 4 && c + i < k; ++i) {
        float column[8];
        for (int b = 0; b < blocks; ++b) store4(column + 4 * b, turned[b][i]);
        std::memcpy(panel + i * tokens, column, tokens * sizeof(float));
      }
    }
  }
}

}  // namespace
}  // namespace sparsecore

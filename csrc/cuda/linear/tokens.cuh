// Activations into shared memory: a block of tokens x 128 bytes, chunk c of row r at chunk c ^ (r & 7).
#pragma once

#include "cuda/common/cp_async.h"
#include "cuda/common/shared_memory.h"
#include "cuda/common/swizzle.h"
#include "cuda/linear/arguments.h"

namespace sparsecore::cuda_linear {

// Rows [token, token + kTokens) of x, bytes [first, last) of each, at most 128 and first a multiple of 16, by kThreads
// threads; what lies past them, and past m and k, becomes zero and is not read. Rows that begin at multiples of 16
// bytes come through cp.async, which the caller commits and waits for; others element by element, visible to others
// after the same barrier.
template <class T, int kTokens, int kThreads>
SC_DEVICE void load_token_bytes(const Arguments& args, int64_t token, int64_t first, int64_t last, int thread,
                                char* shared) {
  constexpr int kChunks = kRowBytes / 16, kElements = 16 / sizeof(T);
  static_assert(kThreads % kChunks == 0, "every thread keeps its chunk");
  const int chunk = thread % kChunks;
  const int64_t row_end = args.p.k * static_cast<int64_t>(sizeof(T));
  const int64_t byte = first + chunk * 16, left = (last < row_end ? last : row_end) - byte;
  const int in_row = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
  const int64_t row_bytes = args.p.x_row_stride * static_cast<int64_t>(sizeof(T));
  const char* x = static_cast<const char*>(args.p.x);
#pragma unroll
  for (int row = thread / kChunks; row < kTokens; row += kThreads / kChunks) {
    const int valid = token + row < args.p.m ? in_row : 0;
    const char* source = valid ? x + (token + row) * row_bytes + byte : x;
    char* destination = shared + swizzled<Swizzle::k128>(row, chunk * 16);
    if (args.x_vectors) {
      ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(destination, source, valid);
    } else {
      uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 0; i < kElements; ++i)
        if (i * static_cast<int>(sizeof(T)) < valid) {
          const uint32_t bits = sizeof(T) == 2 ? reinterpret_cast<const uint16_t*>(source)[i]
                                               : reinterpret_cast<const uint8_t*>(source)[i];
          words[i * sizeof(T) / 4] |= bits << (i * sizeof(T) % 4 * 8);
        }
      ptx::store_shared_16(destination, {words[0], words[1], words[2], words[3]});
    }
  }
}

// Bytes [128 * k_block, + 128) of each row.
template <class T, int kTokens, int kThreads>
SC_DEVICE void load_tokens(const Arguments& args, int64_t token, int64_t k_block, int thread, char* shared) {
  load_token_bytes<T, kTokens, kThreads>(args, token, k_block * kRowBytes, (k_block + 1) * kRowBytes, thread, shared);
}

// Eight neighbouring elements of 16 bits, of row `token` from `column` on, a multiple of 8, to shared memory; what lies
// outside of x becomes zero and is not read. As above, but visible to this thread alone without a barrier.
SC_DEVICE void load_token_vector(const Arguments& args, int64_t token, int64_t column, char* shared) {
  const int64_t left = column < 0 || token >= args.p.m ? 0 : args.p.k - column;
  const int valid = left >= 8 ? 8 : left > 0 ? static_cast<int>(left) : 0;
  const uint16_t* x = static_cast<const uint16_t*>(args.p.x);
  const uint16_t* source = valid ? x + token * args.p.x_row_stride + column : x;
  if (args.x_vectors) {
    ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(shared, source, 2 * valid);
    return;
  }
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (i < valid) words[i / 2] |= static_cast<uint32_t>(source[i]) << i % 2 * 16;
  ptx::store_shared_16(shared, {words[0], words[1], words[2], words[3]});
}

}  // namespace sparsecore::cuda_linear

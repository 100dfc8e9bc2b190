// y = x W^T for few tokens, W behind a bitmap: read once as it is stored, made dense in registers, multiplied by mma.
//
//   grid      token tiles x tiles of kRows channels; y: splits
//   a turn    two or four words of kRows rows, 64 columns each: their bits, their values and kTokens x 128 bytes of x
//   for
//             each word, in a ring of kStages turns in shared memory
//   copying   two threads for each word of a row. A row's values stand in order, so those of a turn begin where the
//   last turn's
//             end: each of the row's threads has 32 bits, loaded a turn ahead, counts them and adds up what the
//             others before it counted; together they copy the 16-byte chunks that the values lie in
//   warps     as many to 16 rows as the turn has words, one word each. A lane takes 16 neighbouring columns of two
//   rows: where its values begin
//             is the number of bits before them, and they follow one another (RowReader)
//   sums      of these warps are added in the order of the words (linear/warp_sums.cuh)
//
// The more tokens, the more rows share x, and the fewer columns have room beside it.
#pragma once

#include <type_traits>

#include "cuda/bitmap_decode/matmul.h"
#include "cuda/common/cache_hints.h"
#include "cuda/common/mma.h"
#include "cuda/linear/tokens.cuh"
#include "cuda/linear/warp_sums.cuh"

namespace sparsecore::cuda_bitmap_decode::sm80 {

// T is x's type, V the values': T or int8.
template <class V, int kTokensOfTile>
struct Tile {
  static constexpr int kTokens = kTokensOfTile, kColumns = kTokens / 8;
  static constexpr int kRowTiles = kTokens == 8 ? 1 : kTokens == 16 ? 2 : 4, kRows = 16 * kRowTiles;
  static constexpr int kTurnWords = kTokens == 32 ? 2 : 4, kTurnColumns = kTurnWords * kWordColumns;
  static constexpr int kThreads = 32 * kTurnWords * kRowTiles, kThreadsOfRow = 2 * kTurnWords;
  static constexpr int kStages = kTokens == 8 ? 4 : 3;
  // One chunk more than whole rows take, since they begin anywhere in their first. Rows then begin four banks apart.
  static constexpr int kValueRowBytes = kTurnColumns * sizeof(V) + 16;
  // {bits, place of their first value} of each thread, and room that puts four neighbouring rows into different banks.
  static constexpr int kBitsRowBytes = kThreadsOfRow * 8 + (kTurnWords == 4 ? 8 : 16);
  static constexpr int kTokenOffset = 0, kValueOffset = kTurnWords * kTokens * kRowBytes;
  static constexpr int kBitsOffset = kValueOffset + kRows * kValueRowBytes;
  static constexpr int kStageBytes = (kBitsOffset + kRows * kBitsRowBytes + 1023) / 1024 * 1024;  // for the swizzle
  static constexpr int kSumsBytes = kWarpSumBytes<kTurnWords, kRows, kTokens>;
  static constexpr int kSharedBytes = kSumsBytes > kStages* kStageBytes ? kSumsBytes : kStages * kStageBytes;
  static_assert(kThreads == kRows * kThreadsOfRow, "every row has its threads");
  static_assert(kSharedBytes <= 99 * 1024, "what a block may have on sm_86 and sm_89");
};

// 16 bytes of values from byte `at`, a multiple of 16; past the last value zeros.
template <class V>
SC_DEVICE void copy_values(const MatmulArguments& args, char* shared, int64_t at, uint64_t once) {
  const int64_t left = args.weight.nnz * static_cast<int64_t>(sizeof(V)) - at;
  const char* from = static_cast<const char*>(args.weight.values) + at;
  if (args.value_vectors) {
    if (left >= 16) {
      ptx::cp_async_hinted(shared, from, once);
    } else {
      ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(shared, left > 0 ? from : args.weight.values,
                                                     left > 0 ? static_cast<int>(left) : 0);
    }
    return;
  }
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < 16 / static_cast<int>(sizeof(V)); ++i)
    if (i * static_cast<int>(sizeof(V)) < left) {
      const uint32_t bits =
          sizeof(V) == 2 ? reinterpret_cast<const uint16_t*>(from)[i] : reinterpret_cast<const uint8_t*>(from)[i];
      words[i * sizeof(V) / 4] |= bits << (i * sizeof(V) % 4 * 8);
    }
  ptx::store_shared_16(shared, {words[0], words[1], words[2], words[3]});
}

// An int8 as a float: the mantissa of 2^23 + 128 + value, without a conversion, of which there are few per cycle.
SC_DEVICE float int8_to_float(uint32_t byte) { return __uint_as_float(0x4b000000u | (byte ^ 0x80u)) - 8388736.0f; }

// One lane's 16 neighbouring columns of one row, two at a time: kept weights where their bits are, zeros between. The
// values stand one after another, so a window over them moves by as many as were taken: one load for two columns.
template <class T, class V>
class RowReader {
 public:
  // meta: 32 bits of the row, and the place of their first value in `values`; `shift` is 0 or 16, the lane's half.
  SC_DEVICE RowReader(const char* values, uint2 meta, int shift) {
    bits_ = meta.x >> shift;
    place_ = meta.y + static_cast<uint32_t>(__popc(meta.x & ((1u << shift) - 1)));
    at_ = values + place_ / kPerWord * 4;
    current_ = ptx::load_shared_4(at_);
  }

  SC_DEVICE uint32_t next() {
    // Perhaps of the next row or behind the last: then it is not taken.
    const uint32_t following = ptx::load_shared_4(at_ + 4);
    const uint32_t in_word = place_ % kPerWord, code = bits_ & 3, taken = (code & 1) + (code >> 1);
    const uint32_t window = __funnelshift_r(current_, following, in_word * 8 * sizeof(V));
    bits_ >>= 2;
    place_ += taken;
    if (in_word + taken >= kPerWord) {
      current_ = following;
      at_ += 4;
    }
    // Bytes of the window, or 4, a zero: neither kept, the first, the second, both.
    if constexpr (sizeof(V) == 2) {
      return __byte_perm(window, 0, (code & 2 ? 0x32101044u : 0x44104444u) >> (code & 1) * 16 & 0xffff);
    } else {
      const uint32_t two = __byte_perm(window, 0, (code & 2 ? 0x44104404u : 0x44404444u) >> (code & 1) * 16 & 0xffff);
      return ptx::pack2<T>(int8_to_float(two & 0xff), int8_to_float(two >> 8));
    }
  }

 private:
  static constexpr uint32_t kPerWord = 4 / sizeof(V);
  uint32_t bits_, place_, current_;
  const char* at_;
};

// Budget of sm80::bitmap_matmul: 128 registers.
template <class T, class V, int kTokens>
__global__ void __launch_bounds__(Tile<V, kTokens>::kThreads) bitmap_matmul(const MatmulArguments args) {
  using Tile = sm80::Tile<V, kTokens>;
  char* shared = ptx::smem();
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int word = warp % Tile::kTurnWords, row_tile = warp / Tile::kTurnWords;
  const int64_t token = static_cast<int64_t>(blockIdx.x % args.token_tiles) * kTokens;
  const int64_t channel = static_cast<int64_t>(blockIdx.x / args.token_tiles) * Tile::kRows;
  const BlockRange range = split_range(args.turns, blockIdx.y, args.splits);
  const uint64_t once = ptx::policy_evict_first();

  // As a copier: its row, and which 32 of the row's columns of a turn.
  const int copy_row = thread / Tile::kThreadsOfRow, part = thread % Tile::kThreadsOfRow;
  const int64_t row = channel + copy_row;
  const auto bits_of_turn = [&](int64_t turn) {
    const int64_t half = turn * Tile::kThreadsOfRow + part;
    const uint32_t* halves = reinterpret_cast<const uint32_t*>(args.weight.bitmap);
    return row < args.p.n && half < 2 * args.words ? ptx::load_streaming_4(halves + row * 2 * args.words + half, once)
                                                   : 0u;
  };
  int64_t start = 0;  // of the values of the next turn
  if (row < args.p.n) {
    const int32_t first = static_cast<int32_t>(ptx::load_streaming_4(args.weight.row_ptr + row, once));
    start = first < 0 ? 0 : first < args.weight.nnz ? first : args.weight.nnz;
  }
  // The splits before this one have the row's first bits.
  int before = 0;
  for (int64_t turn = 0; turn < range.first; ++turn) before += __popc(bits_of_turn(turn));
#pragma unroll
  for (int distance = Tile::kThreadsOfRow / 2; distance > 0; distance /= 2)
    before += __shfl_xor_sync(0xffffffffu, before, distance, Tile::kThreadsOfRow);
  start += before;
  uint32_t next_bits = bits_of_turn(range.first);

  const auto load_turn = [&](int64_t turn) {
    if (turn < range.last) {
      char* stage = shared + (turn - range.first) % Tile::kStages * Tile::kStageBytes;
#pragma unroll
      for (int i = 0; i < Tile::kTurnWords; ++i)
        load_tokens<T, kTokens, Tile::kThreads>(args, token, turn * Tile::kTurnWords + i, thread,
                                                stage + Tile::kTokenOffset + i * kTokens * kRowBytes);
      const uint32_t bits = next_bits;
      next_bits = bits_of_turn(turn + 1);
      const int count = __popc(bits);
      int through = count;  // of this thread's columns and those before them in the turn
#pragma unroll
      for (int distance = 1; distance < Tile::kThreadsOfRow; distance *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, through, distance, Tile::kThreadsOfRow);
        if (part >= distance) through += other;
      }
      const int total = __shfl_sync(0xffffffffu, through, Tile::kThreadsOfRow - 1, Tile::kThreadsOfRow);
      const int64_t byte = start * static_cast<int64_t>(sizeof(V)), chunk = byte & ~int64_t{15};
      const int lead = static_cast<int>(byte - chunk) / static_cast<int>(sizeof(V));
      ptx::store_shared_8(stage + Tile::kBitsOffset + copy_row * Tile::kBitsRowBytes + part * 8,
                          {bits, static_cast<uint32_t>(lead + through - count)});
      const int bytes = (lead + total) * static_cast<int>(sizeof(V));
      for (int at = part * 16; at < bytes; at += Tile::kThreadsOfRow * 16)
        copy_values<V>(args, stage + Tile::kValueOffset + copy_row * Tile::kValueRowBytes + at, chunk + at, once);
      start += total;
    }
    ptx::cp_async_commit();
  };

  float sums[Tile::kColumns][4] = {};
  const int g = lane / 4, t = lane % 4;
  const auto multiply = [&](const char* stage) {
    const char* tokens = stage + Tile::kTokenOffset + word * kTokens * kRowBytes;
    const char* values = stage + Tile::kValueOffset + (row_tile * 16 + g) * Tile::kValueRowBytes;
    const char* bits = stage + Tile::kBitsOffset + (row_tile * 16 + g) * Tile::kBitsRowBytes + (2 * word + t / 2) * 8;
    RowReader<T, V> upper(values, ptx::load_shared_8(bits), t % 2 * 16);
    RowReader<T, V> lower(values + 8 * Tile::kValueRowBytes, ptx::load_shared_8(bits + 8 * Tile::kBitsRowBytes),
                          t % 2 * 16);
    // Lane 4g + t has columns 16t .. 16t + 15 of the word, of its rows and of token g: which columns the products call
    // k = 2t, 2t + 1, 2t + 8 and 2t + 9 does not matter, as long as both operands agree.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 x[Tile::kColumns];
#pragma unroll
      for (int column = 0; column < Tile::kColumns; ++column)
        x[column] = ptx::load_shared_16(tokens + swizzled<Swizzle::k128>(8 * column + g, (2 * t + half) * 16));
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        uint32_t a[4];
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
          a[2 * pair] = upper.next();
          a[2 * pair + 1] = lower.next();
        }
#pragma unroll
        for (int column = 0; column < Tile::kColumns; ++column) {
          const uint32_t b[2] = {step ? x[column].z : x[column].x, step ? x[column].w : x[column].y};
          ptx::mma<T>(sums[column], a, b);
        }
      }
    }
  };

  for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_turn(range.first + stage);
  for (int64_t turn = range.first; turn < range.last; ++turn) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    // This turn's data has arrived for everybody, and everybody is done with the last turn's, whose place is next.
    __syncthreads();
    load_turn(turn + Tile::kStages - 1);
    multiply(shared + (turn - range.first) % Tile::kStages * Tile::kStageBytes);
  }

  // Sums where the ring was: every copy has arrived, and nobody reads it any more.
  __syncthreads();
#pragma unroll
  for (int column = 0; column < Tile::kColumns; ++column)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      ptx::store_shared_4(
          shared +
              sum_place<Tile::kRows, kTokens>(word, row_tile * 16 + g + 8 * (e / 2), 8 * column + 2 * t + e % 2) * 4,
          bits_of(sums[column][e]));
  __syncthreads();
  finish_warp_sums<float, Tile::kTurnWords, Tile::kRows, kTokens, Tile::kThreads>(args, token, channel, blockIdx.y,
                                                                                  shared);
}

}  // namespace sparsecore::cuda_bitmap_decode::sm80

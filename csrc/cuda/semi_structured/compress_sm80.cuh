// dense -> Sp24, in one direction or in both with one read, and back. A block of 256 threads makes one block of the
// format, 64 channels x 128 bytes:
//
//   1  the tile comes to shared memory, zeros past n and k, 16-byte chunk c of row r at c ^ (r & 7)
//   2  a thread decides 4 x 4 weights and leaves 16 bits, bit 4r + c: kept
//   3  warp 2 slice + step packs what one instruction takes; a lane's register is 8 bytes of a row, and the two bits of
//      its places meet those of the other three lanes of its quad in a metadata word
//
// Bound by memory: per weight of 16 bits 2 bytes in and 1.125 out, 2.25 with the transposed packing.
#pragma once

#include <type_traits>

#include "cuda/common/shared_memory.h"
#include "cuda/common/swizzle.h"
#include "cuda/linear/faults.cuh"
#include "cuda/semi_structured/matmul.h"

namespace sparsecore::semi_structured::sm80 {

struct CompressArguments {
  SemiStructuredCompressParams p;
  uint32_t n_blocks = 0, k_blocks = 0;
  bool vectors = false;         // every row of the dense matrix begins at a multiple of 16 bytes
  bool mask_words = false;      // every row of the mask at a multiple of 4
  bool magnitude_int8 = false;  // else the magnitude of a weight is its bits without the sign
};

constexpr int kCompressThreads = 256, kTileBytes = kBlockChannels * kRowBytes, kKeepStride = 33;
constexpr int kCompressSharedBytes = kTileBytes + 16 * kKeepStride * 4;

template <int kBytes>
SC_DEVICE uint32_t magnitude(uint32_t bits, bool int8) {
  if constexpr (kBytes == 2) {
    return bits & 0x7fff;
  } else {
    return int8 ? ((bits & 0x80) ? 256 - bits : bits) : bits & 0x7f;
  }
}

// Of the candidates (bit i: place i), the two of largest magnitude, the earlier of equals.
SC_DEVICE uint32_t two_largest(const uint32_t (&magnitudes)[4], uint32_t candidates) {
  uint32_t kept = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int before = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      before += j != i && (candidates >> j & 1) &&
                (magnitudes[j] > magnitudes[i] || (magnitudes[j] == magnitudes[i] && j < i));
    kept |= static_cast<uint32_t>((candidates >> i & 1) && before < 2) << i;
  }
  return kept;
}

// From the largest of 16 on, each whose row and column hold fewer than two so far.
SC_DEVICE uint32_t two_way(const uint32_t (&magnitudes)[16]) {
  // The place breaks ties, so that no two keys are equal and any sort gives the same order.
  uint32_t keys[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) keys[i] = magnitudes[i] << 4 | (15 - i);
#pragma unroll
  for (int size = 2; size <= 16; size *= 2)
#pragma unroll
    for (int stride = size / 2; stride > 0; stride /= 2)
#pragma unroll
      for (int i = 0; i < 16; ++i)
        if (const int j = i ^ stride; j > i) {
          const uint32_t high = max(keys[i], keys[j]), low = min(keys[i], keys[j]);
          keys[i] = (i & size) == 0 ? high : low;
          keys[j] = (i & size) == 0 ? low : high;
        }
  uint32_t kept = 0, in_row = 0, in_column = 0;  // counts of two bits
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const uint32_t place = 15 - (keys[i] & 15), row = place / 4 * 2, column = place % 4 * 2;
    const uint32_t keep = (in_row >> row & 2) == 0 && (in_column >> column & 2) == 0 ? 1 : 0;
    kept |= keep << place;
    in_row += keep << row;
    in_column += keep << column;
  }
  return kept;
}

// Bits of a group of four in `kept` (more than two: the first two) -> four bits of metadata. `real` tells which of the
// two places are kept and which only fill.
SC_DEVICE uint32_t places_of(uint32_t kept, bool (&real)[2]) {
  uint32_t places = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) places |= (kept >> i & 1) && __popc(places) < 2 ? 1u << i : 0;
  const uint32_t used = places;
#pragma unroll
  for (int i = 0; i < 4; ++i) places |= __popc(places) < 2 ? 1u << i : 0;
  const uint32_t first = __ffs(static_cast<int>(places)) - 1, second = 31 - __clz(static_cast<int>(places));
  real[0] = used >> first & 1;
  real[1] = used >> second & 1;
  return first | second << 2;
}

// The weights of one direction: elements(row, unit, e) gives bits of the dense tile, kept(row, group) four bits.
// A lane's register: P = 4 / kBytes stored weights, from one group (16 bits) or two (8 bits).
template <int kBytes, class Elements, class Kept>
SC_DEVICE void pack_step(int slice, int step, int lane, void* values, uint32_t* metadata, Elements elements,
                         Kept kept) {
  constexpr int kGroups = 2 / kBytes, kUnitElements = 8 / kBytes;
  const int g = lane / 4, t = lane % 4;
  uint32_t registers[4] = {0, 0, 0, 0}, words[4] = {0, 0, 0, 0};  // words by b, or by h + 2b
#pragma unroll
  for (int reg = 0; reg < 4; ++reg) {
    const int h = reg % 2, b = reg / 2, row = slice * kSliceChannels + g + 8 * h, unit = 8 * step + 4 * b + t;
    uint32_t code = 0;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      bool real[2];
      const uint32_t places = places_of(kept(row, unit * kGroups + group), real);
      code |= places << (4 * group);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int element = unit * kUnitElements + 4 * group + static_cast<int>(places >> (2 * i) & 3);
        const uint32_t bits = real[i] ? elements(row, element) : 0;
        registers[reg] |= bits << (8 * kBytes * (2 * group + i));
      }
    }
    if constexpr (kBytes == 2) {
      words[b] |= code << (16 * h + 4 * t);
    } else {
      words[reg] = code << (8 * t);
    }
  }
  static_cast<uint4*>(values)[slice * kSliceVectors + step * 32 + lane] = {registers[0], registers[1], registers[2],
                                                                           registers[3]};
  constexpr int kWords = kBytes == 2 ? 2 : 4;
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    words[i] |= __shfl_xor_sync(0xffffffffu, words[i], 1);
    words[i] |= __shfl_xor_sync(0xffffffffu, words[i], 2);
  }
  if constexpr (kBytes == 2) {
    if (t / 2 == step) metadata[slice * 32 + lane] = t % 2 ? words[1] : words[0];
  } else {
    metadata[(slice * 32 + lane) * 2 + step] = t == 0 ? words[0] : t == 1 ? words[1] : t == 2 ? words[2] : words[3];
  }
}

// Budget of sm80::compress: 48 registers.
template <int kBytes>
__global__ void __launch_bounds__(kCompressThreads) compress(const CompressArguments args) {
  constexpr int kDepth = kRowBytes / kBytes, kTilesInRow = kDepth / 4, kChunkElements = 16 / kBytes;
  using Bits = std::conditional_t<kBytes == 2, uint16_t, uint8_t>;
  const SemiStructuredCompressParams& p = args.p;
  char* tile = ptx::smem();
  char* keep = tile + kTileBytes;  // uint32 [16][kKeepStride]: 4 x 4 weights each
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const uint32_t n_block = blockIdx.x / args.k_blocks, k_block = blockIdx.x % args.k_blocks;
  const int64_t channel = int64_t{n_block} * kBlockChannels, input = int64_t{k_block} * kDepth;

#pragma unroll
  for (int i = thread; i < kBlockChannels * 8; i += kCompressThreads) {
    const int row = i / 8, chunk = i % 8;
    const int64_t left = channel + row < p.n ? p.k - input - chunk * kChunkElements : 0;
    const Bits* from =
        static_cast<const Bits*>(p.dense) + (channel + row) * p.row_stride + input + chunk * kChunkElements;
    uint4 vector = {0, 0, 0, 0};
    if (args.vectors && left >= kChunkElements) {
      vector = *reinterpret_cast<const uint4*>(from);
    } else {
      uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
      for (int e = 0; e < kChunkElements; ++e)
        if (e < left) words[e * kBytes / 4] |= static_cast<uint32_t>(from[e]) << (e * kBytes % 4 * 8);
      vector = {words[0], words[1], words[2], words[3]};
    }
    ptx::store_shared_16(tile + swizzled<Swizzle::k128>(row, chunk * 16), vector);
  }
  __syncthreads();

#pragma unroll
  for (int i = thread; i < 16 * kTilesInRow; i += kCompressThreads) {
    const int row = i / kTilesInRow * 4, column = i % kTilesInRow * 4;
    uint32_t magnitudes[16];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const char* from = tile + swizzled<Swizzle::k128>(row + r, column * kBytes);
      uint32_t words[2] = {0, 0};
      if constexpr (kBytes == 2) {
        const uint2 pair = ptx::load_shared_8(from);
        words[0] = pair.x;
        words[1] = pair.y;
      } else {
        words[0] = ptx::load_shared_4(from);
      }
#pragma unroll
      for (int c = 0; c < 4; ++c)
        magnitudes[4 * r + c] = magnitude<kBytes>(
            words[c * kBytes / 4] >> (c * kBytes % 4 * 8) & (kBytes == 2 ? 0xffff : 0xff), args.magnitude_int8);
    }
    uint32_t kept = 0;
    if (p.selection == SemiStructuredSelection::kTwoWay) {
      // What lies past n and k took part as zeros, but is not kept.
      const int64_t rows = p.n - channel - row, columns = p.k - input - column;
      const uint32_t in_range = columns >= 4 ? 0xffffu : columns <= 0 ? 0u : ((1u << columns) - 1) * 0x1111u;
      kept = two_way(magnitudes) & in_range & (rows >= 4 ? 0xffffu : rows <= 0 ? 0u : (1u << 4 * rows) - 1);
    } else {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        uint32_t candidates = 15;
        if (p.selection == SemiStructuredSelection::kMask) {
          candidates = 0;
          const int64_t o = channel + row + r, first = input + column;
          const uint8_t* mask = p.mask + o * p.k + first;
          if (o < p.n && args.mask_words && first + 4 <= p.k) {
            const uint32_t bytes = *reinterpret_cast<const uint32_t*>(mask);
#pragma unroll
            for (int c = 0; c < 4; ++c) candidates |= (bytes >> (8 * c) & 0xff) ? 1u << c : 0;
          } else if (o < p.n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) candidates |= first + c < p.k && mask[c] ? 1u << c : 0;
          }
        }
        const uint32_t row_magnitudes[4] = {magnitudes[4 * r], magnitudes[4 * r + 1], magnitudes[4 * r + 2],
                                            magnitudes[4 * r + 3]};
        kept |= two_largest(row_magnitudes, candidates) << (4 * r);
      }
    }
    ptx::store_shared_4(keep + (row / 4 * kKeepStride + column / 4) * 4, kept);
  }
  __syncthreads();

  const int slice = warp / 2, step = warp % 2;
  const int64_t block = blockIdx.x;
  const auto weight = [&](int row, int column) -> uint32_t {
    const char* at = tile + swizzled<Swizzle::k128>(row, column * kBytes);
    const uint32_t word =
        ptx::load_shared_4(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(at) & ~uintptr_t{3}));
    return word >> (reinterpret_cast<uintptr_t>(at) % 4 * 8) & (kBytes == 2 ? 0xffff : 0xff);
  };
  const auto kept_of = [&](int tile_row, int tile_column) {
    return ptx::load_shared_4(keep + (tile_row * kKeepStride + tile_column) * 4);
  };
  pack_step<kBytes>(slice, step, lane, static_cast<char*>(p.values) + block * kSlices * kSliceValueBytes,
                    p.metadata + block * kSlices * 32 * (2 / kBytes), weight,
                    [&](int row, int group) { return kept_of(row / 4, group) >> (row % 4 * 4) & 15; });
  if constexpr (kBytes == 2) {
    if (p.values_t) {
      const int64_t block_t = int64_t{k_block} * args.n_blocks + n_block;
      pack_step<kBytes>(
          slice, step, lane, static_cast<char*>(p.values_t) + block_t * kSlices * kSliceValueBytes,
          p.metadata_t + block_t * kSlices * 32, [&](int row, int column) { return weight(column, row); },
          [&](int row, int group) {
            const uint32_t kept = kept_of(group, row / 4) >> row % 4;
            return (kept & 1) | (kept >> 3 & 2) | (kept >> 6 & 4) | (kept >> 9 & 8);
          });
    }
  }
}

struct DecompressArguments {
  const void* values = nullptr;
  const uint32_t* metadata = nullptr;
  void* dense = nullptr;
  int64_t n = 0, k = 0, row_stride = 0;
  uint32_t k_blocks = 0;
  bool vectors = false;  // every row begins at a multiple of 8 bytes
};

// Budget of sm80::decompress: 40 registers.
template <int kBytes>
__global__ void __launch_bounds__(kCompressThreads) decompress(const DecompressArguments args) {
  constexpr int kDepth = kRowBytes / kBytes, kGroups = 2 / kBytes, kUnitElements = 8 / kBytes;
  using Bits = std::conditional_t<kBytes == 2, uint16_t, uint8_t>;
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 64, step = threadIdx.x / 32 % 2, g = lane / 4, t = lane % 4;
  const uint32_t n_block = blockIdx.x / args.k_blocks, k_block = blockIdx.x % args.k_blocks;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kSlices + slice;
  const uint4 vector = static_cast<const uint4*>(args.values)[at * kSliceVectors + step * 32 + lane];
  const uint32_t registers[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int reg = 0; reg < 4; ++reg) {
    const int h = reg % 2, b = reg / 2, unit = 8 * step + 4 * b + t;
    const int64_t channel = int64_t{n_block} * kBlockChannels + slice * kSliceChannels + g + 8 * h;
    const int64_t input = int64_t{k_block} * kDepth + unit * kUnitElements;
    const uint32_t code = kBytes == 2 ? args.metadata[at * 32 + 4 * g + 2 * step + b] >> (16 * h + 4 * t)
                                      : args.metadata[(at * 32 + 4 * g + h + 2 * b) * 2 + step] >> (8 * t);
    uint64_t dense = 0;
#pragma unroll
    for (int i = 0; i < 2 * kGroups; ++i) {
      constexpr uint64_t kMask = kBytes == 2 ? 0xffff : 0xff;
      const uint32_t shift = (i / 2 * 4 + (code >> (2 * i) & 3)) * 8 * kBytes;
      dense = (dense & ~(kMask << shift)) | (registers[reg] >> (8 * kBytes * i) & kMask) << shift;
    }
    if (channel >= args.n) continue;
    Bits* to = static_cast<Bits*>(args.dense) + channel * args.row_stride + input;
    if (args.vectors && input + kUnitElements <= args.k) {
      *reinterpret_cast<uint2*>(to) = {static_cast<uint32_t>(dense), static_cast<uint32_t>(dense >> 32)};
    } else {
#pragma unroll
      for (int e = 0; e < kUnitElements; ++e)
        if (input + e < args.k) to[e] = static_cast<Bits>(dense >> (8 * kBytes * e));
    }
  }
}

struct ValidateArguments {
  const void* values = nullptr;
  const uint32_t* metadata = nullptr;
  int64_t* where = nullptr;
  int64_t n = 0, k = 0, n_blocks = 0, k_blocks = 0;
};

// Budget of sm80::validate: 40 registers.
template <int kBytes>
__global__ void __launch_bounds__(kValidateThreads) validate(const ValidateArguments args) {
  constexpr int kDepth = kRowBytes / kBytes, kWords = 2 / kBytes, kBlockWords = kSlices * 32 * kWords;
  const int64_t padded_k = args.k_blocks * kDepth, words = args.n_blocks * args.k_blocks * kBlockWords;
  int64_t first = kNoFault;
  for (int64_t i = threadIdx.x; i < words; i += kValidateThreads) {
    const uint32_t word = args.metadata[i];
    const int64_t block = i / kBlockWords, n_block = block / args.k_blocks, k_block = block - n_block * args.k_blocks;
    const bool edge = (n_block + 1) * kBlockChannels > args.n || (k_block + 1) * kDepth > args.k;
    // Bit 4j: pair j ascends.
    const uint32_t low = word & 0x33333333u, high = word >> 2 & 0x33333333u;
    const uint32_t ascends = (high + 0x44444444u - low - 0x11111111u) >> 2 & 0x11111111u;
    if (ascends == 0x11111111u && !edge) continue;
    const int in_block = static_cast<int>(i % kBlockWords), slice = in_block / (32 * kWords);
    const int lane = in_block / kWords % 32, g = lane / 4;
    for (int pair = 0; pair < 8; ++pair) {
      const int step = kBytes == 2 ? lane / 2 % 2 : in_block % 2, b = kBytes == 2 ? lane % 2 : lane / 2 % 2;
      const int h = kBytes == 2 ? pair / 4 : lane % 2, t = kBytes == 2 ? pair % 4 : pair / 2;
      const int group = kBytes == 2 ? 0 : pair % 2, unit = 8 * step + 4 * b + t;
      const int64_t channel = n_block * kBlockChannels + slice * kSliceChannels + g + 8 * h;
      const int64_t input = k_block * kDepth + unit * (8 / kBytes) + 4 * group;
      const uint32_t value = static_cast<const uint32_t*>(
          args.values)[(((block * kSlices + slice) * 2 + step) * 32 + 4 * g + t) * 4 + h + 2 * b];
      bool good = ascends >> (4 * pair) & 1;
      for (int j = 0; j < 2; ++j) {
        const bool outside = channel >= args.n || input + (word >> (4 * pair + 2 * j) & 3) >= args.k;
        const uint32_t bits = value >> (8 * kBytes * (2 * group + j)) & (kBytes == 2 ? 0xffff : 0xff);
        good = good && !(outside && bits != 0);
      }
      const int64_t place = channel * padded_k + input;
      if (!good && place < first) first = place;
    }
  }
  first = smallest_of_block(first, ptx::smem());
  if (threadIdx.x == 0) *args.where = first == kNoFault ? -1 : first;
}

}  // namespace sparsecore::semi_structured::sm80

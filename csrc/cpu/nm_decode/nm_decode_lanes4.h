// N:M decode on four lanes, compiled by the NEON file and the two WebAssembly files.
//
// A byte permute picks the four bytes of x[code] for every channel: its control is 4 * code + {0, 1, 2, 3}. A window
// of more than four floats takes several registers; a place outside a register picks zero, so the picks of all are
// joined by OR. Every sum is one chain in the order of the slots, whatever the number of tokens.
#pragma once

#include "cpu/lanes4.h"
#include "cpu/nm_decode/nm_decode.h"

namespace sparsecore::nm_decode {
namespace {

#if defined(SPARSECORE_ARM)

// 4 tokens x 16 channels: 16 sums, 4 codes, 4 controls, a weight, and up to 8 registers of a window pass one by one.
constexpr size_t kVectors = 4;
using Words4 = uint32x4_t;
inline Words4 zero_words() { return vdupq_n_u32(0); }
inline Words4 load_words(const uint32_t* p) { return vld1q_u32(p); }
inline Words4 shift_right(Words4 words, int bits) { return vshlq_u32(words, vdupq_n_s32(-bits)); }
inline Words4 control_of(Words4 words, uint32_t mask) {
  return vmlaq_n_u32(vdupq_n_u32(0x03020100u), vandq_u32(words, vdupq_n_u32(mask)), 0x04040404u);
}
// The bytes of the register at x + 4 * Part that `control` names, zero where it names another register.
template <size_t Part>
inline Words4 pick_from(const float* x, Words4 control) {
  const uint8x16_t places = vsubq_u8(vreinterpretq_u8_u32(control), vdupq_n_u8(16 * Part));
  return vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(vld1q_f32(x + 4 * Part)), places));
}
inline Words4 join(Words4 a, Words4 b) { return vorrq_u32(a, b); }
inline Float4 as_floats(Words4 words) { return vreinterpretq_f32_u32(words); }

#elif defined(SPARSECORE_WASM)

// 4 tokens x 8 channels: 8 sums, 2 codes, 2 controls, a weight and a window.
constexpr size_t kVectors = 2;
using Words4 = v128_t;
inline Words4 zero_words() { return wasm_i32x4_const_splat(0); }
inline Words4 load_words(const uint32_t* p) { return wasm_v128_load(p); }
inline Words4 shift_right(Words4 words, int bits) { return wasm_u32x4_shr(words, bits); }
inline Words4 control_of(Words4 words, uint32_t mask) {
  const v128_t codes = wasm_v128_and(words, wasm_i32x4_splat(static_cast<int32_t>(mask)));
  return wasm_i32x4_add(wasm_i32x4_mul(codes, wasm_i32x4_const_splat(0x04040404)), wasm_i32x4_const_splat(0x03020100));
}
template <size_t Part>
inline Words4 pick_from(const float* x, Words4 control) {
  return wasm_i8x16_swizzle(wasm_v128_load(x + 4 * Part), wasm_i8x16_sub(control, wasm_i8x16_const_splat(16 * Part)));
}
inline Words4 join(Words4 a, Words4 b) { return wasm_v128_or(a, b); }
inline Float4 as_floats(Words4 words) { return words; }

#endif

template <size_t Parts>
inline Float4 pick(const float* x, Words4 control) {
  Words4 picked = pick_from<0>(x, control);
  each<Parts - 1>([&]<size_t part>() { picked = join(picked, pick_from<part + 1>(x, control)); });
  return as_floats(picked);
}

// 4 * kVectors channels from `channel` on; Parts registers hold a window.
template <typename T, size_t Tokens, size_t Parts>
__attribute__((noinline)) void run_channels(const Tile& tile, size_t channel) {
  const T* values = static_cast<const T*>(tile.values) + channel;
  const uint32_t* words = tile.codes + channel;
  const uint32_t mask = (1u << tile.bits) - 1;
  const size_t x_stride = static_cast<size_t>(tile.x_stride);
  Float4 sums[Tokens][kVectors];
  each<Tokens>([&]<size_t t>() { each<kVectors>([&]<size_t v>() { sums[t][v] = splat4(0.0f); }); });
  Words4 codes[kVectors];
  each<kVectors>([&]<size_t v>() { codes[v] = zero_words(); });
  int32_t left = 0;
  const float* x = tile.x;
  for (int64_t g = 0; g < tile.groups; ++g, x += tile.m)
    for (int32_t j = 0; j < tile.n_kept; ++j, values += kTile) {
      if (left == 0) {
        each<kVectors>([&]<size_t v>() { codes[v] = load_words(words + 4 * v); });
        words += kTile;
        left = tile.per_word;
      }
      --left;
      each<kVectors>([&]<size_t v>() {
        const Words4 control = control_of(codes[v], mask);
        codes[v] = shift_right(codes[v], tile.bits);
        const Float4 weight = load4(values + 4 * v);
        each<Tokens>(
            [&]<size_t t>() { sums[t][v] = madd4(weight, pick<Parts>(x + t * x_stride, control), sums[t][v]); });
      });
    }
  each<Tokens>([&]<size_t t>() {
    each<kVectors>([&]<size_t v>() { store4(tile.sums + t * tile.sums_stride + channel + 4 * v, sums[t][v]); });
  });
}

template <typename T, size_t Tokens>
void run(const Tile& tile) {
  for (size_t channel = 0; channel < kTile; channel += 4 * kVectors) {
    if (tile.m <= 4) {
      run_channels<T, Tokens, 1>(tile, channel);
    } else if (tile.m <= 8) {
      run_channels<T, Tokens, 2>(tile, channel);
    } else if (tile.m <= 16) {
      run_channels<T, Tokens, 4>(tile, channel);
    } else {
      run_channels<T, Tokens, 8>(tile, channel);
    }
  }
}

template <typename T>
void run_tokens(const Tile& tile, int tokens) {
  switch (tokens) {
    case 1: return run<T, 1>(tile);
    case 2: return run<T, 2>(tile);
    default: break;
  }
  Tile part = tile;
  for (int t = 0; t < tokens; t += 4) {
    part.x = tile.x + t * tile.x_stride;
    part.sums = tile.sums + t * tile.sums_stride;
    run<T, 4>(part);
  }
}

}  // namespace
}  // namespace sparsecore::nm_decode

// Variable N:16 on four lanes, compiled by the NEON file and the two WebAssembly files.
//
// A block's 16 inputs are 64 bytes, four registers. Bytes 4 * index + {0, 1, 2, 3} make a lane: one lookup in a table
// of 64 bytes on NEON; on WebAssembly four swizzles, each of which yields zero for bytes of another register, joined by
// OR. Every sum is one chain in the order of the slots, whatever the number of tokens.
#pragma once

#include "cpu/lanes4.h"
#include "cpu/variable_nm/variable_nm.h"

namespace sparsecore::variable_nm {
namespace {

#if defined(SPARSECORE_ARM)

using Bytes = uint8x16_t;
// Four bytes, each an index in its low four bits after the shift, as the byte numbers of four lanes.
template <int Shift>
inline Bytes control_of(const uint8_t* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four >> Shift & 0x0f0f0f0fu)));
  const uint32x4_t lanes = vmovl_u16(vget_low_u16(wide));
  return vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32(0x03020100u), lanes, 0x04040404u));
}
struct Window {
  uint8x16x4_t bytes;
};
inline Window load_window(const float* x) {
  Window window;
  for (int i = 0; i < 4; ++i) window.bytes.val[i] = vreinterpretq_u8_f32(vld1q_f32(x + 4 * i));
  return window;
}
inline Float4 pick(const Window& window, Bytes control) {
  return vreinterpretq_f32_u8(vqtbl4q_u8(window.bytes, control));
}

#elif defined(SPARSECORE_WASM)

using Bytes = v128_t;
template <int Shift>
inline Bytes control_of(const uint8_t* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  const v128_t bytes = wasm_i32x4_splat(static_cast<int32_t>(four >> Shift & 0x0f0f0f0fu));
  const v128_t lanes = wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(bytes));
  return wasm_i32x4_add(wasm_i32x4_mul(lanes, wasm_i32x4_const_splat(0x04040404)), wasm_i32x4_const_splat(0x03020100));
}
struct Window {
  v128_t bytes[4];
};
inline Window load_window(const float* x) {
  return {{wasm_v128_load(x), wasm_v128_load(x + 4), wasm_v128_load(x + 8), wasm_v128_load(x + 12)}};
}
inline Float4 pick(const Window& window, Bytes control) {
  v128_t picked = wasm_i8x16_swizzle(window.bytes[0], control);
  each<3>([&]<size_t part>() {
    const v128_t places = wasm_i8x16_sub(control, wasm_i8x16_const_splat(16 * (part + 1)));
    picked = wasm_v128_or(picked, wasm_i8x16_swizzle(window.bytes[part + 1], places));
  });
  return picked;
}

#endif

template <typename T, size_t Tokens>
struct Run {
  static constexpr size_t kVectors = 4;  // 16 outputs
  const T* values;
  const uint8_t* indices;
  Float4 sums[Tokens][kVectors];

  template <int Shift>
  void slot(const Window* windows) {
    each<kVectors>([&]<size_t v>() {
      const Bytes control = control_of<Shift>(indices + 4 * v);
      const Float4 weight = load4(values + 4 * v);
      each<Tokens>([&]<size_t t>() { sums[t][v] = madd4(weight, pick(windows[t], control), sums[t][v]); });
    });
    values += kBlock;
  }

  void sparse(const Tile& tile, int kind) {
    for (int64_t i = 0; i < tile.counts[kind]; ++i) {
      const float* x = tile.x + int64_t{tile.columns[kind][i]} * kBlock;
      Window windows[Tokens];
      for (size_t t = 0; t < Tokens; ++t) windows[t] = load_window(x + static_cast<int64_t>(t) * tile.x_stride);
      for (int pair = 0; pair < kKept[kind] / 2; ++pair, indices += kBlock) {
        slot<0>(windows);
        slot<4>(windows);
      }
    }
  }

  void dense(const Tile& tile) {
    for (int64_t i = 0; i < tile.counts[kKinds - 1]; ++i) {
      const float* x = tile.x + int64_t{tile.columns[kKinds - 1][i]} * kBlock;
      for (int s = 0; s < kBlock; ++s, values += kBlock)
        each<kVectors>([&]<size_t v>() {
          const Float4 weight = load4(values + 4 * v);
          each<Tokens>([&]<size_t t>() {
            sums[t][v] = madd4(weight, splat4(x[static_cast<int64_t>(t) * tile.x_stride + s]), sums[t][v]);
          });
        });
    }
  }
};

template <typename T, size_t Tokens>
__attribute__((noinline)) void run(const Tile& tile) {
  Run<T, Tokens> state;
  state.values = static_cast<const T*>(tile.values);
  state.indices = tile.indices;
  each<Tokens>([&]<size_t t>() { each<4>([&]<size_t v>() { state.sums[t][v] = splat4(0.0f); }); });
  for (int kind = 0; kind + 1 < kKinds; ++kind) state.sparse(tile, kind);
  state.dense(tile);
  each<Tokens>([&]<size_t t>() {
    each<4>(
        [&]<size_t v>() { store4(tile.sums + static_cast<int64_t>(t) * tile.sums_stride + 4 * v, state.sums[t][v]); });
  });
}

// Two tokens at a time: eight sums, and a block's window of each.
template <typename T>
void run_tokens(const Tile& tile, int tokens) {
  if (tokens == 1) return run<T, 1>(tile);
  Tile part = tile;
  for (int t = 0; t < tokens; t += 2) {
    part.x = tile.x + t * tile.x_stride;
    part.sums = tile.sums + t * tile.sums_stride;
    run<T, 2>(part);
  }
}

}  // namespace
}  // namespace sparsecore::variable_nm

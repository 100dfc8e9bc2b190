// The part of the CUDA language that kernels here use, for a C++20 compiler without a toolkit.
//
// Left out on purpose: __shared__ (shared memory comes from one function), __activemask and warp intrinsics without a
// mask, textures, streams with any meaning. A launch is cuda_emulation::launch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "async.h"
#include "atomics.h"
#include "barrier.h"
#include "collective.h"
#include "emulator.h"
#include "global_buffer.h"
#include "machine.h"
#include "mbarrier.h"
#include "memory.h"
#include "vector_types.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

#define threadIdx (::cuda_emulation::lane().thread)
#define blockIdx (::cuda_emulation::cta().block)
#define blockDim (::cuda_emulation::wave().config->block)
#define gridDim (::cuda_emulation::wave().config->grid)
constexpr int warpSize = 32;

inline void __syncthreads() { cuda_emulation::sync_threads(); }
inline int __syncthreads_count(int predicate) { return cuda_emulation::sync_threads_count(predicate); }
inline int __syncthreads_or(int predicate) { return cuda_emulation::sync_threads_or(predicate); }
inline int __syncthreads_and(int predicate) { return cuda_emulation::sync_threads_and(predicate); }

template <class T>
T __shfl_sync(unsigned mask, T value, int index, int width = 32) {
  return cuda_emulation::shuffle_index(mask, value, index, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return cuda_emulation::shuffle_up(mask, value, delta, width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return cuda_emulation::shuffle_down(mask, value, delta, width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  return cuda_emulation::shuffle_xor(mask, value, bits, width);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return cuda_emulation::ballot("__ballot_sync", mask, predicate);
}
inline int __any_sync(unsigned mask, int predicate) {
  return cuda_emulation::ballot("__any_sync", mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return cuda_emulation::ballot("__all_sync", mask, predicate) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  return cuda_emulation::match_any(mask, value);
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* predicate) {
  return cuda_emulation::match_all(mask, value, predicate);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { cuda_emulation::sync_warp(mask); }

inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return cuda_emulation::reduce("__reduce_add_sync", mask, value, [](unsigned a, unsigned b) { return a + b; });
}
inline int __reduce_add_sync(unsigned mask, int value) {
  return static_cast<int>(__reduce_add_sync(mask, static_cast<unsigned>(value)));
}
template <class T>
T __reduce_min_sync(unsigned mask, T value) {
  return cuda_emulation::reduce("__reduce_min_sync", mask, value, [](T a, T b) { return a < b ? a : b; });
}
template <class T>
T __reduce_max_sync(unsigned mask, T value) {
  return cuda_emulation::reduce("__reduce_max_sync", mask, value, [](T a, T b) { return a < b ? b : a; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return cuda_emulation::reduce("__reduce_and_sync", mask, value, [](unsigned a, unsigned b) { return a & b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return cuda_emulation::reduce("__reduce_or_sync", mask, value, [](unsigned a, unsigned b) { return a | b; });
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
  return cuda_emulation::reduce("__reduce_xor_sync", mask, value, [](unsigned a, unsigned b) { return a ^ b; });
}

template <class T>
T atomicAdd(T* address, T value) {
  return cuda_emulation::atomic_update("atomicAdd", address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicSub(T* address, T value) {
  return cuda_emulation::atomic_update("atomicSub", address, [=](T old) { return static_cast<T>(old - value); });
}
template <class T>
T atomicExch(T* address, T value) {
  return cuda_emulation::atomic_update("atomicExch", address, [=](T) { return value; });
}
template <class T>
T atomicMin(T* address, T value) {
  return cuda_emulation::atomic_update("atomicMin", address, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, T value) {
  return cuda_emulation::atomic_update("atomicMax", address, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicAnd(T* address, T value) {
  return cuda_emulation::atomic_update("atomicAnd", address, [=](T old) { return old & value; });
}
template <class T>
T atomicOr(T* address, T value) {
  return cuda_emulation::atomic_update("atomicOr", address, [=](T old) { return old | value; });
}
template <class T>
T atomicXor(T* address, T value) {
  return cuda_emulation::atomic_update("atomicXor", address, [=](T old) { return old ^ value; });
}
template <class T>
T atomicCAS(T* address, T compare, T value) {
  return cuda_emulation::atomic_update("atomicCAS", address, [=](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return cuda_emulation::atomic_update("atomicInc", address, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
  return cuda_emulation::atomic_update("atomicDec", address,
                                       [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) { cuda_emulation::poll("__nanosleep"); }
inline void __trap() { cuda_emulation::violation("the kernel executed __trap()"); }

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned choice = selector >> (4 * i) & 0xF;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (choice & 7))) & 0xFF;
    if ((choice & 8) != 0) byte = (byte & 0x80) != 0 ? 0xFF : 0;  // the sign, spread
    result |= byte << (8 * i);
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return c;
}

template <class To, class From>
To cuda_emulation_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float x) { return cuda_emulation_bits<unsigned>(x); }
inline int __float_as_int(float x) { return cuda_emulation_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cuda_emulation_bits<float>(x); }
inline float __int_as_float(int x) { return cuda_emulation_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_emulation_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_emulation_bits<double>(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

using std::max;
using std::min;

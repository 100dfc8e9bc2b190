// CUDA's small vectors and dim3, with the alignments that decide between one access and several.
#pragma once

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

#define CUDA_EMULATION_VECTORS(name, type)                                               \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                               \
  struct alignas(sizeof(type) > 4 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
  constexpr name##2 make_##name##2(type x, type y) { return {x, y}; }                    \
  constexpr name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CUDA_EMULATION_VECTORS(char, signed char)
CUDA_EMULATION_VECTORS(uchar, unsigned char)
CUDA_EMULATION_VECTORS(short, short)
CUDA_EMULATION_VECTORS(ushort, unsigned short)
CUDA_EMULATION_VECTORS(int, int)
CUDA_EMULATION_VECTORS(uint, unsigned)
CUDA_EMULATION_VECTORS(float, float)
CUDA_EMULATION_VECTORS(longlong, long long)
CUDA_EMULATION_VECTORS(ulonglong, unsigned long long)
CUDA_EMULATION_VECTORS(double, double)
#undef CUDA_EMULATION_VECTORS

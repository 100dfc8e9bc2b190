// The one door to CUDA: the toolkit under nvcc, the emulator under any other compiler.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define SC_EMULATED 0
#else
#include "cuda/emulation/cuda.h"
#define SC_EMULATED 1
#endif

#define SC_DEVICE __device__ __forceinline__

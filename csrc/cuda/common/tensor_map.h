// Tensor maps: what the copy engine knows of a tensor in global memory. Made on the host, handed to a kernel as a
// `const __grid_constant__ TensorMap` parameter.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#include "cuda/common/swizzle.h"
#if SC_EMULATED
#include "cuda/emulation/tensor_copy.h"
#else
#include <cuda.h>
#endif

namespace sparsecore {

#if SC_EMULATED
using TensorMap = cuda_emulation::TensorMap;
#else
using TensorMap = CUtensorMap;
#endif

}  // namespace sparsecore

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

// Dimension 0 is the innermost, whose elements are dense. Address and strides are multiples of 16 bytes, the innermost
// row of a box is at most the swizzle's bytes. Bytes of boxes outside the tensor are loaded as zero.
struct TensorShape {
  const void* address = nullptr;
  DType dtype = DType::kBFloat16;
  int rank = 2;
  uint64_t sizes[5] = {};
  uint64_t strides[5] = {};  // bytes from one index to the next; [0] is not used
  uint32_t box[5] = {};
  Swizzle swizzle = Swizzle::k128;
};

// False where the driver refuses the shape, or is too old to know tensor maps. Asks the runtime for the driver's
// function, so that nothing links the driver. A thread that has not used the device yet, as one of autograd's may be,
// has no context, which the driver's functions may want: choosing the device again gives it one (CUDA 12).
inline bool make_tensor_map(const TensorShape& shape, TensorMap* map) {
#if SC_EMULATED
  using cuda_emulation::TensorElement;
  cuda_emulation::TensorShape emulated;
  emulated.address = const_cast<void*>(shape.address);
  emulated.element = size_of(shape.dtype) == 1         ? TensorElement::kInt8
                     : shape.dtype == DType::kBFloat16 ? TensorElement::kBf16
                     : shape.dtype == DType::kFloat16  ? TensorElement::kFp16
                                                       : TensorElement::kFloat32;
  emulated.rank = shape.rank;
  for (int i = 0; i < shape.rank; ++i) {
    emulated.sizes[i] = shape.sizes[i];
    emulated.strides[i] = shape.strides[i];
    emulated.box[i] = shape.box[i];
  }
  emulated.swizzle_bytes = row_bytes(shape.swizzle);
  *map = cuda_emulation::encode_tensor_map(emulated);
  return true;
#else
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) return false;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) !=
          cudaSuccess ||
      found != cudaDriverEntryPointSuccess)
    return false;
  const CUtensorMapDataType type = size_of(shape.dtype) == 1         ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                   : shape.dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                   : shape.dtype == DType::kFloat16  ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                                     : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  const CUtensorMapSwizzle swizzle = shape.swizzle == Swizzle::k128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : shape.swizzle == Swizzle::k64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                     : shape.swizzle == Swizzle::k32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                                                     : CU_TENSOR_MAP_SWIZZLE_NONE;
  cuuint64_t sizes[5], strides[5];
  cuuint32_t box[5], every[5];
  for (int i = 0; i < shape.rank; ++i) {
    sizes[i] = shape.sizes[i];
    if (i > 0) strides[i - 1] = shape.strides[i];
    box[i] = shape.box[i];
    every[i] = 1;
  }
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  return encode(map, type, static_cast<cuuint32_t>(shape.rank), const_cast<void*>(shape.address), sizes, strides, box,
                every, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
#endif
}

}  // namespace sparsecore

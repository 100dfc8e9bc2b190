// Tensor maps: what the copy engine knows of a tensor in global memory. Made on the host, handed to a kernel as a
// `const __grid_constant__ TensorMap` parameter.
#pragma once

#include <cstdint>
#include <type_traits>

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

// Dimension 0 is the innermost and dense. The address and every stride are multiples of 16 bytes; the box's innermost
// row is a multiple of 16 bytes, and with a swizzle no longer than its row.
struct TensorBox {
  void* address;
  int rank;             // 2 to 5
  uint64_t sizes[5];    // elements
  uint64_t strides[5];  // bytes from one index to the next; strides[0] is not looked at
  uint32_t box[5];      // elements, at most 256
  Swizzle swizzle;
};

// Null, or one sentence on what was refused. T is the type of an element: BFloat16, Float16, float, int32_t, or any of
// one byte. The driver's function is looked up when first needed, so that nothing links the driver.
template <class T>
[[nodiscard]] const char* encode_tensor_map(TensorMap* map, const TensorBox& tensor) {
#if SC_EMULATED
  using cuda_emulation::TensorElement;
  cuda_emulation::TensorShape shape;
  shape.address = tensor.address;
  shape.element = std::is_same_v<T, BFloat16>  ? TensorElement::kBf16
                  : std::is_same_v<T, Float16> ? TensorElement::kFp16
                  : std::is_same_v<T, float>   ? TensorElement::kFloat32
                  : std::is_same_v<T, int32_t> ? TensorElement::kInt32
                                               : TensorElement::kInt8;
  shape.rank = tensor.rank;
  shape.swizzle_bytes = row_bytes(tensor.swizzle);
  for (int i = 0; i < tensor.rank; ++i) {
    shape.sizes[i] = tensor.sizes[i];
    shape.strides[i] = tensor.strides[i];
    shape.box[i] = tensor.box[i];
  }
  *map = cuda_emulation::encode_tensor_map(shape);
  return nullptr;
#else
  static_assert(sizeof(T) == 1 || std::is_same_v<T, BFloat16> || std::is_same_v<T, Float16> ||
                    std::is_same_v<T, float> || std::is_same_v<T, int32_t>,
                "tensor maps have no such element type");
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess
               ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)
               : nullptr;
  }();
  if (encode == nullptr) return "the driver has no cuTensorMapEncodeTiled, which came with CUDA 12";
  const CUtensorMapDataType type = std::is_same_v<T, BFloat16>  ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                   : std::is_same_v<T, Float16> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                   : std::is_same_v<T, float>   ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                                   : std::is_same_v<T, int32_t> ? CU_TENSOR_MAP_DATA_TYPE_INT32
                                                                : CU_TENSOR_MAP_DATA_TYPE_UINT8;
  const CUtensorMapSwizzle swizzle = tensor.swizzle == Swizzle::k128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : tensor.swizzle == Swizzle::k64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                     : tensor.swizzle == Swizzle::k32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                                                      : CU_TENSOR_MAP_SWIZZLE_NONE;
  constexpr cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  cuuint64_t sizes[5], strides[5];
  for (int i = 0; i < 5; ++i) {
    sizes[i] = tensor.sizes[i];
    strides[i] = tensor.strides[i];
  }
  const CUresult result = encode(map, type, static_cast<cuuint32_t>(tensor.rank), tensor.address, sizes, strides + 1,
                                 tensor.box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr : "cuTensorMapEncodeTiled refused the tensor's sizes, strides or box";
#endif
}

}  // namespace sparsecore

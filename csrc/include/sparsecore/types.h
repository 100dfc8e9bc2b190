// Element types, instruction sets, activations and status codes shared by every operator.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define SPARSECORE_API __declspec(dllexport)
#else
#define SPARSECORE_API __attribute__((visibility("default")))
#endif

namespace sparsecore {

enum class DType : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kInt8 = 3 };
// Types that only CUDA has stand outside, so that no switch of the CPU's has to name them.
constexpr DType kFloat8E4M3 = static_cast<DType>(4);

constexpr int64_t size_of(DType dtype) { return dtype == DType::kFloat32 ? 4 : dtype >= DType::kInt8 ? 1 : 2; }

// Storage only: arithmetic happens after widening to float. Sixteen bits, same layout as torch and IEEE.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

// Levels of one architecture are ordered and each includes the ones below it.
enum class Isa : int32_t {
  kScalar = 0,
  kAvx2 = 1,        // AVX2, FMA, F16C
  kAvx512 = 2,      // F, BW, VL, DQ
  kAvx512Vnni = 3,  // and VNNI, VBMI
  kAvx512Bf16 = 4,  // and BF16
  kAvx512Fp16 = 5,  // and FP16
  kNeon = 10,
  kNeonDot = 11,   // and dotprod
  kNeonI8mm = 12,  // and bf16, i8mm
  kWasmSimd = 20,
  kWasmRelaxed = 21,
};

// ReLU6 is min(max(x, 0), 6); hard sigmoid is ReLU6(x + 3) / 6, hard swish x times that.
enum class Activation : int32_t {
  kNone = 0,
  kRelu = 1,
  kGelu = 2,
  kGeluTanh = 3,
  kSilu = 4,
  kRelu6 = 5,
  kHardSwish = 6,
  kHardSigmoid = 7,
  kSigmoid = 8,
};
constexpr int32_t kLastActivation = static_cast<int32_t>(Activation::kSigmoid);

enum class Status : int32_t {
  kOk = 0,
  kNullPointer,       // a required pointer is null while the shape is not empty
  kBadShape,          // a negative or overflowing dimension or stride
  kBadPattern,        // n, m, vector or block outside what the format allows
  kBadPointers,       // list starts not ascending, or not ending at the number of values
  kBadIndex,          // an index outside its block, group or row
  kUnsorted,          // indices of a list not strictly ascending
  kBadScale,          // a weight scale that is not finite
  kUnsupportedDType,  // no kernel for this combination of types
  kOutOfMemory,       // scratch memory could not be had
  kLaunchFailed,      // the device refused a kernel
};

// One English sentence without a full stop, never null.
SPARSECORE_API const char* describe(Status status);

}  // namespace sparsecore

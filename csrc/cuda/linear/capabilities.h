// What each kernel of a family can do, as a list that its chooser walks and its error prints.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "sparsecore/types.h"

namespace sparsecore::cuda_linear {

using Types = uint32_t;
constexpr Types type(DType dtype) { return 1u << static_cast<int32_t>(dtype); }
constexpr Types kHalves = type(DType::kBFloat16) | type(DType::kFloat16);
constexpr Types kMultiplied = kHalves | type(DType::kInt8) | type(kFloat8E4M3);
constexpr Types kStored = kMultiplied | type(DType::kFloat32);

constexpr int kAnyNewer = 999;
constexpr int64_t kAnyNumber = INT64_MAX;

struct Capability {
  int kernel;  // the family's own number of it
  const char* name;
  Types types;                    // of the weight; 0: its values are not looked at
  int from = 80, to = kAnyNewer;  // compute capability, as 80
  int32_t sizes = 0;              // powers of two that the format's numbers may be, as their sum; 0: it has none
  int32_t most_group = 0;         // inputs of a group, which the kernel has to know; 0: it does not ask
  int alignment = 1;              // where the weight's values begin: a multiple of so many bytes
  bool tensor_copies = false;     // needs an x, and a weight, that tensor copies can bring
  int64_t most_tokens = kAnyNumber;
  // Tokens; the kernel takes fewer and more too, but another one is faster.
  int64_t worth_from = 0, worth_to = kAnyNumber;
};

// Of an enumeration of kernels.
template <class Kernel>
constexpr int number_of(Kernel kernel) {
  return static_cast<int>(kernel);
}

struct Capabilities {
  std::span<const Capability> rows;
  const char* sizes = "";  // what they are of: "vectors of"
};

// What a call asks for. The defaults ask for little.
struct Need {
  DType dtype = DType::kBFloat16;
  int capability = 80;
  int64_t tokens = 0;
  int32_t sizes[2] = {0, 0};  // the format's numbers
  int32_t group = 0;          // inputs of a group; 0: nobody knows
  int alignment = 16;         // of the values at hand
  bool tensor_copies = true;  // whether they can bring x and the weight at hand
};
// The largest power of two up to 16 that the address is a multiple of.
constexpr int alignment_of(uintptr_t address) { return static_cast<int>(address % 16 == 0 ? 16 : address & -address); }
inline int alignment_of(const void* address) { return alignment_of(reinterpret_cast<uintptr_t>(address)); }

// The first row that serves and is worth it, or nullptr. Where a kernel is asked for by name (asked.h) and the list has
// it, that one, whether it serves or not.
const Capability* choose(const Capabilities& list, const Need& need);
// Refuses, in the words of `function`, a kernel that does not serve.
Status check_kernel(const char* function, const Capabilities& list, int kernel, const Need& need);
// "matmul_sm90: bfloat16, float16 on sm_90, vectors of 64; .."
std::string describe(const Capabilities& list);

}  // namespace sparsecore::cuda_linear

// Shared lists on every level this machine has, many tokens: GFLOP/s on kept weights and the share of the peak.
//
//   bench_shared_lists --benchmark_filter='v64/2:4/float32/avx512/' [--benchmark_format=json]
#include <string>

#include "packings.h"
#include "sparsecore/cpu.h"

using namespace bench;

namespace {

struct Type {
  DType dtype;
  Compute compute;
  const char* name;
};
constexpr Type kTypes[] = {{DType::kFloat32, Compute::kFloat32, "float32"},
                           {DType::kBFloat16, Compute::kFloat32, "bfloat16"},
                           {DType::kFloat16, Compute::kFloat32, "float16"},
                           {DType::kInt8, Compute::kInt8, "int8"}};

// The product that limits a type on a level: see the dot-product rows of the dispatch table.
const char* roof_of(const Type& type, Isa isa) {
  if (type.compute == Compute::kInt8) return "dot_int8";
  const bool dots = isa == Isa::kAvx512Bf16 || isa == Isa::kAvx512Fp16;
  return type.dtype == DType::kBFloat16 && dots && sparsecore::fast_bf16_dot() ? "dot_bfloat16" : "fma_float32";
}

}  // namespace

int main(int argc, char** argv) {
  for (const Shape& shape : kLayers)
    for (const Type& type : kTypes)
      for (const auto& [kept, group] : {std::pair{2, 4}, {1, 4}, {1, 8}})
        for (const int vector : {64, 32, 16}) {
          const std::string name = "shared_lists/v" + std::to_string(vector) + "/" + std::to_string(kept) + ":" +
                                   std::to_string(group) + "/" + type.name;
          for (const Isa isa : levels("shared_lists_linear", type.dtype))
            for (const int64_t tokens : kTokens)
              for (const int threads : thread_counts())
                add({name,
                     isa,
                     threads,
                     roof_of(type, isa),
                     shape,
                     type.dtype,
                     {kept, group, vector},
                     tokens,
                     type.compute,
                     shared_lists_bytes,
                     false,
                     pack_shared_lists});
        }
  return run(argc, argv);
}

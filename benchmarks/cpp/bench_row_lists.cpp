// Row lists on every level this machine has, many tokens: GFLOP/s on kept weights and the share of the FMA peak.
//
//   bench_row_lists --benchmark_filter='2:4/float32/avx512/' [--benchmark_format=json]
#include <string>

#include "packings.h"

using namespace bench;

int main(int argc, char** argv) {
  struct Type {
    DType dtype;
    Compute compute;
    const char* name;
  };
  for (const Shape& shape : kLayers)
    for (const Type& type :
         {Type{DType::kFloat32, Compute::kFloat32, "float32"}, Type{DType::kBFloat16, Compute::kFloat32, "bfloat16"},
          Type{DType::kFloat16, Compute::kFloat16, "float16"}})
      for (const auto& [kept, group] : {std::pair{2, 4}, {1, 4}, {1, 8}, {3, 32}}) {
        const std::string name =
            "row_lists/" + std::to_string(kept) + ":" + std::to_string(group) + "/" + std::string(type.name);
        for (const Isa isa : levels("row_lists_linear", type.dtype)) {
          const bool half = type.compute == Compute::kFloat16 && isa == Isa::kAvx512Fp16;
          for (const int64_t tokens : kTokens)
            for (const int threads : thread_counts())
              add({name,
                   isa,
                   threads,
                   half ? "fma_float16" : "fma_float32",
                   shape,
                   type.dtype,
                   {kept, group, 1},
                   tokens,
                   type.compute,
                   row_lists_bytes,
                   false,
                   pack_row_lists});
        }
      }
  return run(argc, argv);
}

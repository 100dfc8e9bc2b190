// The specification of the variable N:16 kernel.
#include "cpu/narrow.h"
#include "cpu/variable_nm/variable_nm.h"

namespace sparsecore::variable_nm::scalar {
namespace {

template <typename T>
void run(const Tile& tile, int tokens) {
  for (int t = 0; t < tokens; ++t) {
    const T* values = static_cast<const T*>(tile.values);
    const uint8_t* indices = tile.indices;
    float* sums = tile.sums + t * tile.sums_stride;
    for (int c = 0; c < kBlock; ++c) sums[c] = 0.0f;
    for (int kind = 0; kind < kKinds; ++kind)
      for (int64_t i = 0; i < tile.counts[kind]; ++i) {
        const float* x = tile.x + t * tile.x_stride + int64_t{tile.columns[kind][i]} * kBlock;
        const bool dense = kKept[kind] == kBlock;
        for (int s = 0; s < kKept[kind]; ++s, values += kBlock)
          for (int c = 0; c < kBlock; ++c) {
            const int place = dense ? s : indices[s / 2 * kBlock + c] >> (4 * (s % 2)) & 15;
            sums[c] += widen(values[c]) * x[place];
          }
        if (!dense) indices += kKept[kind] / 2 * kBlock;
      }
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kScalar,
                        .name = "scalar::variable_nm",
                        .f32 = run<float>,
                        .bf16 = run<BFloat16>,
                        .f16 = run<Float16>,
                        .i8 = run<int8_t>};

}  // namespace sparsecore::variable_nm::scalar

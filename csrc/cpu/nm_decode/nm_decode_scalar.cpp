// The specification of the N:M decode kernel.
#include "cpu/narrow.h"
#include "cpu/nm_decode/nm_decode.h"

namespace sparsecore::nm_decode::scalar {
namespace {

template <typename T>
void run(const Tile& tile, int tokens) {
  const T* values = static_cast<const T*>(tile.values);
  const uint32_t mask = (1u << tile.bits) - 1;
  for (int t = 0; t < tokens; ++t) {
    float* sums = tile.sums + t * tile.sums_stride;
    for (int c = 0; c < kTile; ++c) sums[c] = 0.0f;
    for (int64_t s = 0; s < tile.groups * tile.n_kept; ++s) {
      const float* window = tile.x + t * tile.x_stride + s / tile.n_kept * tile.m;
      const uint32_t* words = tile.codes + s / tile.per_word * kTile;
      const int shift = static_cast<int>(s % tile.per_word) * tile.bits;
      for (int c = 0; c < kTile; ++c) sums[c] += widen(values[s * kTile + c]) * window[(words[c] >> shift) & mask];
    }
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kScalar,
                        .name = "scalar::nm_decode",
                        .f32 = run<float>,
                        .bf16 = run<BFloat16>,
                        .f16 = run<Float16>,
                        .i8 = run<int8_t>};

}  // namespace sparsecore::nm_decode::scalar

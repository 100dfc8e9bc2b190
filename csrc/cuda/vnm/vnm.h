// What the kernels over V:N:M weights share.
#pragma once

#include "cuda/gathered/arguments.h"
#include "cuda/linear/capabilities.h"
#include "sparsecore/vnm_cuda.h"

namespace sparsecore::cuda_vnm {

using gathered::ceil_div;
using gathered::List;
using gathered::Plan;

// Sp24 of 16-bit weights in the units that the kernels count in.
constexpr int kBlockChannels = 64, kSliceChannels = 16, kBlockSlices = 4, kBlockInputs = 64;
constexpr int kSliceValueBytes = 1024, kSliceMetadataBytes = 128;

// The kernel that picks from whole tiles of xt: its tile, the groups of a window, and the largest of these.
constexpr int kPickedTokens = 128, kPickedChannels = 256;
constexpr int kWindowGroups = 8, kLargestPickedGroup = 16;

struct MatmulArguments : gathered::Arguments {
  VnmWeight weight;
  int64_t k_blocks = 0;  // of the picked matrix
  int32_t group = 0;     // M, which picking from windows asks for
};

// M where it follows from the sizes, that is for all k but the small ones: the one number with ceil(k / M) groups. 0
// where several have as many.
constexpr int32_t group_of(int64_t k, int64_t picked) {
  const int64_t groups = picked / 4;
  if (k <= 0 || groups <= 0) return 0;
  const int64_t smallest = ceil_div(k, groups);  // with at most so many
  return ceil_div(k, smallest) == groups && ceil_div(k, smallest + 1) != groups ? static_cast<int32_t>(smallest) : 0;
}

// Channels of a tile: a run, or half of one of 128.
constexpr int tile_channels(int32_t vector) { return vector < 64 ? vector : 64; }

const cuda_linear::Capabilities& matmul_capabilities();
// capability: as 80, 86, 89 or 90.
Plan choose_plan(int64_t m, int64_t n, int64_t k, int64_t picked, int32_t vector, DType dtype, int capability);
// With a plan given, as the tests do. Checks the parameters first.
Status run_plan(const Plan& plan, const VnmLinearParams& params, void* stream);

// Of run_plan, in files of their own: compiled for sm_90a alone.
Status launch_sm90(const char* function, const Plan& plan, const MatmulArguments& args, void* stream);
Status launch_picked_sm90(const char* function, const Plan& plan, MatmulArguments args, void* stream);

}  // namespace sparsecore::cuda_vnm

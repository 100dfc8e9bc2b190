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
constexpr int kSliceChannels = 16, kBlockSlices = 4, kBlockInputs = 64;
constexpr int kSliceValueBytes = 1024, kSliceMetadataBytes = 128;

struct MatmulArguments : gathered::Arguments {
  VnmWeight weight;
  int64_t k_blocks = 0;  // of the picked matrix
};

// Channels of a tile: a run, or half of one of 128.
constexpr int tile_channels(int32_t vector) { return vector < 64 ? vector : 64; }

const cuda_linear::Capabilities& matmul_capabilities();
// capability: as 80, 86, 89 or 90.
Plan choose_plan(int64_t m, int64_t n, int64_t picked, int32_t vector, DType dtype, int capability);
// With a plan given, as the tests do. Checks the parameters first.
Status run_plan(const Plan& plan, const VnmLinearParams& params, void* stream);

// Of run_plan, in a file of its own: compiled for sm_90a alone.
Status launch_sm90(const char* function, const Plan& plan, const MatmulArguments& args, void* stream);

}  // namespace sparsecore::cuda_vnm

// Which kernel takes a V:N:M product, and its launch.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/gathered/launch.cuh"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/vnm/weights_sm80.cuh"

namespace sparsecore {
namespace cuda_vnm {
namespace {

using cuda_linear::number_of;
using cuda_linear::refuse;
using Kernel = Plan::Kernel;

constexpr const char* kName = "vnm_linear";

constexpr cuda_linear::Capability kRows[] = {
    {.kernel = number_of(Kernel::kPickedSm90),
     .name = "matmul_picked_sm90",
     .types = cuda_linear::kHalves,
     .from = 90,
     .to = 90,
     .sizes = 32 + 64,
     .most_group = kLargestPickedGroup,
     .alignment = 16,
     .worth_from = 129},
    {.kernel = number_of(Kernel::kWgmmaSm90),
     .name = "matmul_sm90",
     .types = cuda_linear::kHalves,
     .from = 90,
     .to = 90,
     .sizes = 64 + 128,
     .alignment = 16,
     .worth_from = 65},
    {.kernel = number_of(Kernel::kSmallSm80),
     .name = "matmul_small_sm80",
     .types = cuda_linear::kHalves,
     .sizes = 16 + 32 + 64 + 128,
     .alignment = 16,
     .most_tokens = 32},
    {.kernel = number_of(Kernel::kTiledSm80),
     .name = "matmul_sm80",
     .types = cuda_linear::kHalves,
     .sizes = 16 + 32 + 64 + 128,
     .alignment = 16},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "runs of"};

Status check_weight(const VnmWeight& weight, DType dtype, int64_t n, int64_t k) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  if (k >= kNoColumn || weight.picked < 0 || weight.picked % 4 != 0 || weight.picked > k + 3)
    return refuse(Status::kBadShape,
                  "%s: needs k < 65535 and four columns for each group of inputs, at most %lld, got k=%lld and %lld",
                  kName, number(k + 3), number(k), number(weight.picked));
  const Status status = semi_structured_check(weight.packed, dtype, n, weight.picked);
  if (status == Status::kBadShape)
    return refuse(
        status,
        "%s: the picked weight [%lld, %lld] has %lld bytes of values and %lld words of metadata, got %lld and "
        "%lld",
        kName, number(n), number(weight.picked), number(semi_structured_value_bytes(n, weight.picked, dtype)),
        number(semi_structured_metadata_words(n, weight.picked, dtype)), number(weight.packed.value_bytes),
        number(weight.packed.metadata_words));
  if (status != Status::kOk || (n > 0 && weight.picked > 0 && !weight.columns))
    return refuse(Status::kNullPointer, "%s: needs values, metadata and columns", kName);
  return Status::kOk;
}

}  // namespace

const cuda_linear::Capabilities& matmul_capabilities() { return kCapabilities; }

Plan choose_plan(int64_t m, int64_t n, int64_t k, int64_t picked, int32_t vector, DType dtype, int capability) {
  const int32_t group = group_of(k, picked);
  const cuda_linear::Capability* const row = cuda_linear::choose(
      kCapabilities, {.dtype = dtype, .capability = capability, .tokens = m, .sizes = {vector, 0}, .group = group});
  const Kernel kernel = row ? static_cast<Kernel>(row->kernel) : Kernel::kTiledSm80;
  // wgmma's tiles are whole runs.
  const int32_t channels = kernel == Kernel::kPickedSm90  ? kPickedChannels
                           : kernel == Kernel::kWgmmaSm90 ? vector
                                                          : tile_channels(vector);
  Plan plan = gathered::plan_for(kernel, m, ceil_div(n, channels), ceil_div(picked, kBlockInputs));
  // The blocks of a cluster copy parts of a window that begin at multiples of 8 inputs.
  while (group % plan.cluster != 0) plan.cluster /= 2;
  return plan;
}

Status run_plan(const Plan& plan, const VnmLinearParams& params, void* stream) {
  Status status = cuda_linear::check_operands(kName, params);
  if (status == Status::kOk)
    status =
        cuda_linear::check_kernel(kName, kCapabilities, number_of(plan.kernel),
                                  {.dtype = params.dtype,
                                   .capability = current_device().capability,
                                   .tokens = params.m,
                                   .sizes = {params.weight.vector, 0},
                                   .group = group_of(params.k, params.weight.picked),
                                   .alignment = std::min(cuda_linear::alignment_of(params.weight.packed.values),
                                                         cuda_linear::alignment_of(params.weight.packed.metadata))});
  if (status == Status::kOk) status = check_weight(params.weight, params.dtype, params.n, params.k);
  if (status != Status::kOk) return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  MatmulArguments args;
  args.weight = params.weight;
  args.k_blocks = ceil_div(params.weight.picked, kBlockInputs);
  args.group = group_of(params.k, params.weight.picked);
  args.linear.channel_tiles = static_cast<int32_t>(ceil_div(params.n, tile_channels(params.weight.vector)));
  status = gathered::prepare(kName, plan, params, &args, stream);
  if (status != Status::kOk) return status;
  return gathered::launch_plan<sm80::Weights>(kName, plan, tile_channels(params.weight.vector) / kSliceChannels, args,
                                              stream);
}

}  // namespace cuda_vnm

int64_t vnm_linear_workspace(int64_t m, int64_t n, int64_t k, int64_t picked, int32_t vector) {
  using namespace cuda_vnm;
  if (m <= 0 || n <= 0 || k < 0 || picked < 0 || vector <= 0) return 0;
  // Of whichever kernel the device has.
  return std::max(gathered::workspace_bytes(choose_plan(m, n, k, picked, vector, DType::kBFloat16, 80), m, n, k),
                  gathered::workspace_bytes(choose_plan(m, n, k, picked, vector, DType::kBFloat16, 90), m, n, k));
}

Status vnm_linear_device(const VnmLinearParams& p, void* stream) {
  using namespace cuda_vnm;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(choose_plan(length(p.m), length(p.n), length(p.k), length(p.weight.picked),
                              std::max(p.weight.vector, 1), p.dtype, current_device().capability),
                  p, stream);
}

}  // namespace sparsecore

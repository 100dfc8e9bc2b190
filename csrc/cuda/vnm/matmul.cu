// Which kernel takes a V:N:M product, and its launch.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/gathered/launch.cuh"
#include "cuda/linear/capabilities.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/vnm/weights_sm80.cuh"

namespace sparsecore {
namespace cuda_vnm {
namespace {

using cuda_linear::refuse;
using Kernel = Plan::Kernel;

constexpr const char* kName = "vnm_linear";

// What each kernel can do. The chooser takes the first row that fits.
constexpr cuda_linear::Capability kCapabilities[] = {
    {static_cast<int>(Kernel::kWgmmaSm90), "matmul_sm90 (runs of 64 and 128)", DType::kBFloat16, 90, 90},
    {static_cast<int>(Kernel::kWgmmaSm90), "matmul_sm90 (runs of 64 and 128)", DType::kFloat16, 90, 90},
    {static_cast<int>(Kernel::kSmallSm80), "matmul_small_sm80", DType::kBFloat16, 80, cuda_linear::kAnyNewer},
    {static_cast<int>(Kernel::kSmallSm80), "matmul_small_sm80", DType::kFloat16, 80, cuda_linear::kAnyNewer},
    {static_cast<int>(Kernel::kTiledSm80), "matmul_sm80", DType::kBFloat16, 80, cuda_linear::kAnyNewer},
    {static_cast<int>(Kernel::kTiledSm80), "matmul_sm80", DType::kFloat16, 80, cuda_linear::kAnyNewer},
};

Status check_weight(const VnmWeight& weight, DType dtype, int64_t n, int64_t k) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  if (dtype != DType::kBFloat16 && dtype != DType::kFloat16)
    return refuse(Status::kUnsupportedDType, "%s: no kernel for %s. There are %s", kName, cuda_linear::name_of(dtype),
                  cuda_linear::describe(kCapabilities).c_str());
  if (weight.vector != 16 && weight.vector != 32 && weight.vector != 64 && weight.vector != 128)
    return refuse(Status::kBadPattern, "%s: kernels take runs of 16, 32, 64 and 128 channels, got %d", kName,
                  static_cast<int>(weight.vector));
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
  const auto unaligned = [](const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 != 0; };
  if (status != Status::kOk || (n > 0 && weight.picked > 0 && !weight.columns) || unaligned(weight.packed.values) ||
      unaligned(weight.packed.metadata))
    return refuse(Status::kNullPointer,
                  "%s: needs values, metadata and columns, the first two at multiples of 16 bytes", kName);
  return Status::kOk;
}

}  // namespace

Plan choose_plan(int64_t m, int64_t n, int64_t picked, int32_t vector, int capability) {
  if (capability == 90 && vector >= 64 && m > 64)
    return gathered::choose_wgmma_plan(m, ceil_div(n, vector), ceil_div(picked, kBlockInputs), vector == 64);
  return gathered::choose_plan(m, ceil_div(n, tile_channels(vector)), ceil_div(picked, kBlockInputs));
}

Status run_plan(const Plan& plan, const VnmLinearParams& params, void* stream) {
  Status status = cuda_linear::check_operands(kName, params);
  if (status == Status::kOk) status = check_weight(params.weight, params.dtype, params.n, params.k);
  if (status != Status::kOk) return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  if (const Status refused = cuda_linear::check_kernel(kName, kCapabilities, static_cast<int>(plan.kernel),
                                                       params.dtype, current_device().capability);
      refused != Status::kOk)
    return refused;
  MatmulArguments args;
  args.weight = params.weight;
  args.k_blocks = ceil_div(params.weight.picked, kBlockInputs);
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
  return std::max(gathered::workspace_bytes(choose_plan(m, n, picked, vector, 80), m, n, k),
                  gathered::workspace_bytes(choose_plan(m, n, picked, vector, 90), m, n, k));
}

Status vnm_linear_device(const VnmLinearParams& p, void* stream) {
  using namespace cuda_vnm;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(choose_plan(length(p.m), length(p.n), length(p.weight.picked), std::max(p.weight.vector, 1),
                              current_device().capability),
                  p, stream);
}

}  // namespace sparsecore

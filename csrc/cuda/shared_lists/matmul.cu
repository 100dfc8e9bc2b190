// Which kernel takes a product over shared lists, and its launch.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/gathered/launch.cuh"
#include "cuda/linear/capabilities.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/shared_lists/check.h"
#include "cuda/shared_lists/weights_sm80.cuh"

namespace sparsecore {
namespace cuda_shared_lists {
namespace {

using cuda_linear::refuse;
using Kernel = Plan::Kernel;

constexpr const char* kName = "shared_lists_linear";

// What each kernel can do. The chooser takes the first row that fits.
constexpr cuda_linear::Capability kCapabilities[] = {
    {static_cast<int>(Kernel::kWgmmaSm90), "matmul_sm90 (vectors of 64)", DType::kBFloat16, 90, 90},
    {static_cast<int>(Kernel::kWgmmaSm90), "matmul_sm90 (vectors of 64)", DType::kFloat16, 90, 90},
    {static_cast<int>(Kernel::kSmallSm80), "matmul_small_sm80", DType::kBFloat16, 80, cuda_linear::kAnyNewer},
    {static_cast<int>(Kernel::kSmallSm80), "matmul_small_sm80", DType::kFloat16, 80, cuda_linear::kAnyNewer},
    {static_cast<int>(Kernel::kTiledSm80), "matmul_sm80", DType::kBFloat16, 80, cuda_linear::kAnyNewer},
    {static_cast<int>(Kernel::kTiledSm80), "matmul_sm80", DType::kFloat16, 80, cuda_linear::kAnyNewer},
};

}  // namespace

Plan choose_plan(int64_t m, int64_t n, int64_t records, int32_t vector, int capability) {
  const int64_t groups = ceil_div(n, vector), average = ceil_div(records, std::max<int64_t>(groups, 1));
  if (capability == 90 && vector == 64 && m > 64)
    return gathered::choose_wgmma_plan(m, groups, ceil_div(average, 64), true);
  return gathered::choose_plan(m, groups, ceil_div(average, 32));
}

Status run_plan(const Plan& plan, const SharedListsLinearParams& params, void* stream) {
  Status status = cuda_linear::check_operands(kName, params);
  if (status == Status::kOk) status = check_lists(kName, params.weight, params.n, params.k);
  if (status == Status::kOk) status = check_values(kName, params.weight, params.dtype);
  if (status != Status::kOk) return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  if (const Status refused = cuda_linear::check_kernel(kName, kCapabilities, static_cast<int>(plan.kernel),
                                                       params.dtype, current_device().capability);
      refused != Status::kOk)
    return refused;
  MatmulArguments args;
  args.weight = params.weight;
  args.linear.channel_tiles = static_cast<int32_t>(ceil_div(params.n, params.weight.vector));
  status = gathered::prepare(kName, plan, params, &args, stream);
  if (status != Status::kOk) return status;
  return gathered::launch_plan<sm80::Weights>(kName, plan, (params.weight.vector + 15) / 16, args, stream);
}

}  // namespace cuda_shared_lists

int64_t shared_lists_linear_workspace(int64_t m, int64_t n, int64_t k, int64_t records, int32_t vector) {
  using namespace cuda_shared_lists;
  if (m <= 0 || n <= 0 || k < 0 || records < 0 || vector <= 0) return 0;
  // Of whichever kernel the device has.
  return std::max(gathered::workspace_bytes(choose_plan(m, n, records, vector, 80), m, n, k),
                  gathered::workspace_bytes(choose_plan(m, n, records, vector, 90), m, n, k));
}

Status shared_lists_linear_device(const SharedListsLinearParams& p, void* stream) {
  using namespace cuda_shared_lists;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(choose_plan(length(p.m), length(p.n), length(p.weight.records), std::max(p.weight.vector, 1),
                              current_device().capability),
                  p, stream);
}

}  // namespace sparsecore

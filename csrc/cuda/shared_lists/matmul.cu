// Which kernel takes a product over shared lists, and its launch.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/gathered/launch.cuh"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/shared_lists/check.h"
#include "cuda/shared_lists/weights_sm80.cuh"

namespace sparsecore {
namespace cuda_shared_lists {
namespace {

using cuda_linear::number_of;
using Kernel = Plan::Kernel;

constexpr const char* kName = "shared_lists_linear";

// Vectors of 4 and int8 values are the CPU's alone: docs/kernels/cuda_gathered.md says why.
constexpr int32_t kEveryVector = 8 + 16 + 32 + 64;
constexpr cuda_linear::Capability kRows[] = {
    {.kernel = number_of(Kernel::kWgmmaSm90),
     .name = "matmul_sm90",
     .types = cuda_linear::kHalves,
     .from = 90,
     .to = 90,
     .sizes = 64,
     .alignment = 16,
     .worth_from = 65},
    {.kernel = number_of(Kernel::kSmallSm80),
     .name = "matmul_small_sm80",
     .types = cuda_linear::kHalves,
     .sizes = kEveryVector,
     .alignment = 16,
     .most_tokens = 32},
    {.kernel = number_of(Kernel::kTiledSm80),
     .name = "matmul_sm80",
     .types = cuda_linear::kHalves,
     .sizes = kEveryVector,
     .alignment = 16},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "vectors of"};

}  // namespace

const cuda_linear::Capabilities& matmul_capabilities() { return kCapabilities; }

Plan choose_plan(int64_t m, int64_t n, int64_t records, int32_t vector, DType dtype, int capability) {
  const cuda_linear::Capability* const row =
      cuda_linear::choose(kCapabilities, {.dtype = dtype, .capability = capability, .tokens = m, .sizes = {vector, 0}});
  const Kernel kernel = row ? static_cast<Kernel>(row->kernel) : Kernel::kTiledSm80;
  const int64_t groups = ceil_div(n, vector), average = ceil_div(records, std::max<int64_t>(groups, 1));
  return gathered::plan_for(kernel, m, groups, ceil_div(average, kernel == Kernel::kWgmmaSm90 ? 64 : 32));
}

Status run_plan(const Plan& plan, const SharedListsLinearParams& params, void* stream) {
  Status status = cuda_linear::check_operands(kName, params);
  if (status == Status::kOk)
    status = cuda_linear::check_kernel(kName, kCapabilities, number_of(plan.kernel),
                                       {.dtype = params.dtype,
                                        .capability = current_device().capability,
                                        .tokens = params.m,
                                        .sizes = {params.weight.vector, 0},
                                        .alignment = cuda_linear::alignment_of(params.weight.values)});
  if (status == Status::kOk) status = check_lists(kName, params.weight, params.n, params.k);
  if (status != Status::kOk) return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
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
  return std::max(gathered::workspace_bytes(choose_plan(m, n, records, vector, DType::kBFloat16, 80), m, n, k),
                  gathered::workspace_bytes(choose_plan(m, n, records, vector, DType::kBFloat16, 90), m, n, k));
}

Status shared_lists_linear_device(const SharedListsLinearParams& p, void* stream) {
  using namespace cuda_shared_lists;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(choose_plan(length(p.m), length(p.n), length(p.weight.records), std::max(p.weight.vector, 1), p.dtype,
                              current_device().capability),
                  p, stream);
}

}  // namespace sparsecore

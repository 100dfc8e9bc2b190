// Which kernel takes a product, and its launch.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/semi_structured/launch_sm80.cuh"

namespace sparsecore {
namespace semi_structured {
namespace {

using Kernel = Plan::Kernel;

// Hopper has no mma.sp of float8: ptxas puts other instructions and spills in its place. So wgmma takes that from the
// first token on.
constexpr Types kIntegerAndHalves = kHalves | type(DType::kInt8);
constexpr Capability kRows[] = {
    {.kernel = number_of(Kernel::kWgmmaSm90),
     .name = "matmul_sm90",
     .types = kIntegerAndHalves,
     .from = 90,
     .to = 90,
     .alignment = 16,
     .tensor_copies = true,
     .worth_from = 65},
    {.kernel = number_of(Kernel::kWgmmaSm90),
     .name = "matmul_sm90",
     .types = type(kFloat8E4M3),
     .from = 90,
     .to = 90,
     .alignment = 16,
     .tensor_copies = true},
    {.kernel = number_of(Kernel::kSmallSm80),
     .name = "matmul_small_sm80",
     .types = kIntegerAndHalves,
     .alignment = 16,
     .most_tokens = 32},
    {.kernel = number_of(Kernel::kSmallSm80),
     .name = "matmul_small_sm80",
     .types = type(kFloat8E4M3),
     .from = 89,
     .alignment = 16,
     .most_tokens = 32},
    {.kernel = number_of(Kernel::kTiledSm80), .name = "matmul_sm80", .types = kIntegerAndHalves, .alignment = 16},
    {.kernel = number_of(Kernel::kTiledSm80),
     .name = "matmul_sm80",
     .types = type(kFloat8E4M3),
     .from = 89,
     .alignment = 16},
};
constexpr Capability kLiftedRows[] = {
    {.kernel = number_of(Kernel::kWgmmaSm90),
     .name = "matmul_sm90 after lift_tokens",
     .types = kIntegerAndHalves,
     .from = 90,
     .to = 90,
     .alignment = 16,
     .tensor_copies = true,
     .worth_from = 65},
    {.kernel = number_of(Kernel::kSmallSm80),
     .name = "lifting matmul_small_sm80",
     .types = kIntegerAndHalves,
     .alignment = 16,
     .most_tokens = 32},
    {.kernel = number_of(Kernel::kTiledSm80),
     .name = "lifting matmul_sm80",
     .types = kIntegerAndHalves,
     .alignment = 16},
};
constexpr Capabilities kCapabilities = {kRows}, kLiftedCapabilities = {kLiftedRows};

}  // namespace

const Capabilities& matmul_capabilities(bool lifted) { return lifted ? kLiftedCapabilities : kCapabilities; }

// Up to 32 tokens reading W is what costs, and the small kernel reads it once. Above, 128 tokens to a tile where there
// are enough of them to fill the device, since they read W least often; else 64. Tiles of 32 would read W twice for up
// to 64 tokens, which that still bounds (operations catch up near 100), to spare padding in the last one.
Plan choose_plan(int64_t m, int64_t n, int64_t k, DType dtype, int capability, bool tensor_copies, bool lifted) {
  const int64_t k_blocks = ceil_div(k * size_of(dtype), kRowBytes);
  const Capability* const row =
      choose(matmul_capabilities(lifted),
             {.dtype = dtype, .capability = capability, .tokens = m, .tensor_copies = tensor_copies});
  Plan plan;
  if (row) plan.kernel = static_cast<Kernel>(row->kernel);
  if (plan.kernel == Kernel::kSmallSm80) {
    plan.tokens = m <= 8 ? 8 : m <= 16 ? 16 : 32;
    plan.splits = splits_of(ceil_div(n, m <= 8 ? 16 : 32), k_blocks);
    return plan;
  }
  const int64_t channel_tiles = ceil_div(n, plan.kernel == Kernel::kWgmmaSm90 ? 256 : 128);
  const bool tail = m % 128 != 0 && m % 128 <= 64 && m < 256;  // half of the second tile would be padding
  plan.tokens = m <= 64 || tail || channel_tiles * ceil_div(m, 128) < kEnoughBlocks * 3 / 4 ? 64 : 128;
  plan.splits = splits_of(channel_tiles * ceil_div(m, plan.tokens), k_blocks);
  // As many as divide the tiles of channels, or leave at most one of eight without work.
  if (plan.kernel == Kernel::kWgmmaSm90)
    for (const int32_t cluster : {2, 4})
      if (channel_tiles % cluster == 0 || channel_tiles > 8 * cluster) plan.cluster = cluster;
  return plan;
}

int64_t workspace_bytes(const Plan& plan, int64_t m, int64_t n, int64_t lifted_row) {
  return partial_sum_bytes(plan.splits, m, n) + (plan.kernel == Kernel::kWgmmaSm90 ? m * lifted_row : 0);
}

Status check_weight(const char* function, const SemiStructured& weight, DType dtype, int64_t n, int64_t k) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  switch (const Status status = semi_structured_check(weight, dtype, n, k)) {
    case Status::kOk: return status;
    case Status::kUnsupportedDType:
      return refuse(status, "%s: needs bfloat16, float16, int8 or float8_e4m3 weights, got %s", function,
                    name_of(dtype));
    case Status::kBadShape:
      return refuse(
          status,
          "%s: a weight [%lld, %lld] of %s has %lld bytes of values and %lld words of metadata, got %lld and %lld",
          function, number(n), number(k), name_of(dtype), number(semi_structured_value_bytes(n, k, dtype)),
          number(semi_structured_metadata_words(n, k, dtype)), number(weight.value_bytes),
          number(weight.metadata_words));
    default: return refuse(status, "%s: %s", function, describe(status));
  }
}

Status run_plan(const Plan& plan, const SemiStructuredMatmulParams& params, void* stream) {
  constexpr const char* kName = "semi_structured_matmul";
  if (const Status status = check_operands(kName, params); status != Status::kOk) return status;
  if (!is_lift_group(params.group))
    return refuse(Status::kBadPattern, "%s: the group must be an even number from %d to %d, got %d", kName,
                  kSmallestLiftGroup, kLargestLiftGroup, params.group);
  const bool lifted = params.group > kSmallestLiftGroup;
  const Need need = {.dtype = params.dtype,
                     .capability = current_device().capability,
                     .tokens = params.m,
                     .alignment = std::min(alignment_of(params.weight.values), alignment_of(params.weight.metadata)),
                     .tensor_copies = tensor_copies_take_x(params)};
  if (const Status refused = check_kernel(kName, matmul_capabilities(lifted), static_cast<int>(plan.kernel), need);
      refused != Status::kOk)
    return refused;
  const int64_t k = weight_inputs(params.k, params.group);
  if (const Status status = check_weight(kName, params.weight, params.dtype, params.n, k); status != Status::kOk)
    return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  const int64_t lifted_row = lifted_row_bytes(params.k, params.dtype, params.group);
  if (const Status status = check_workspace(kName, params, workspace_bytes(plan, params.m, params.n, lifted_row));
      status != Status::kOk)
    return status;

  MatmulArguments args;
  args.p = params;
  args.weight = params.weight;
  args.n_blocks = ceil_div(params.n, kBlockChannels);
  args.k_blocks = ceil_div(k * size_of(params.dtype), kRowBytes);
  args.splits = plan.splits;
  args.group_windows = static_cast<uint32_t>(lift_windows(params.group));
  args.group_windows_inverse = 0x10000 / args.group_windows + 1;
  note_alignment(&args);

  if (plan.kernel == Kernel::kWgmmaSm90) {
    if (lifted && k > 0) {
      char* x = static_cast<char*>(params.workspace) + partial_sum_bytes(plan.splits, params.m, params.n);
      if (const Status status = lift_tokens(args, x, lifted_row, stream); status != Status::kOk) return status;
      args.p.x = x;
      args.p.k = k;
      args.p.x_row_stride = lifted_row / size_of(params.dtype);
    }
    const Status status = launch_sm90(plan, args, stream);
    return status == Status::kOk && args.splits > 1 ? finish_splits(kName, args, stream) : status;
  }
  const Status status = lifted ? launch_lifted_sm80(plan, args, stream) : with_element(params.dtype, [&](auto element) {
    return launch_sm80<decltype(element), PlainInputs>(plan, args, stream);
  });
  return status == Status::kOk && args.splits > 1 ? finish_splits(kName, args, stream) : status;
}

}  // namespace semi_structured

int64_t semi_structured_matmul_workspace(int64_t m, int64_t n, int64_t k, DType dtype, int32_t group) {
  using namespace semi_structured;
  if (m <= 0 || n <= 0 || k < 0 || !semi_structured_supports(dtype) || !is_lift_group(group)) return 0;
  const bool lifted = group > kSmallestLiftGroup;
  const int64_t inputs = weight_inputs(k, group), lifted_row = lifted_row_bytes(k, dtype, group);
  // Of whichever kernel the device and the rows of x allow.
  return std::max(workspace_bytes(choose_plan(m, n, inputs, dtype, 80, false, lifted), m, n, lifted_row),
                  workspace_bytes(choose_plan(m, n, inputs, dtype, 90, true, lifted), m, n, lifted_row));
}

Status semi_structured_matmul(const SemiStructuredMatmulParams& p, void* stream) {
  using namespace semi_structured;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  const int64_t inputs = is_lift_group(p.group) ? weight_inputs(length(p.k), p.group) : 0;
  return run_plan(choose_plan(length(p.m), length(p.n), inputs, p.dtype, current_device().capability,
                              tensor_copies_take_x(p), p.group > kSmallestLiftGroup),
                  p, stream);
}

}  // namespace sparsecore

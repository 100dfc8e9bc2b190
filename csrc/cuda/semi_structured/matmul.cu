// Which kernel takes a product, and its launch.
#include <algorithm>
#include <string>

#include "cuda/common/launch.h"
#include "cuda/semi_structured/matmul_sm80.cuh"
#include "cuda/semi_structured/matmul_small_sm80.cuh"
#include "cuda/semi_structured/message.h"

namespace sparsecore {
namespace semi_structured {
namespace {

using Kernel = Plan::Kernel;

// What each kernel can do. The chooser takes the first row that fits.
struct Capability {
  Kernel kernel;
  const char* name;
  DType dtype;
  int from, to;  // compute capability, as 80
};
constexpr int kAnyNewer = 999;
constexpr Capability kCapabilities[] = {
    {Kernel::kWgmmaSm90, "matmul_sm90", DType::kBFloat16, 90, 90},
    {Kernel::kWgmmaSm90, "matmul_sm90", DType::kFloat16, 90, 90},
    {Kernel::kWgmmaSm90, "matmul_sm90", DType::kInt8, 90, 90},
    {Kernel::kWgmmaSm90, "matmul_sm90", kFloat8E4M3, 90, 90},
    {Kernel::kSmallSm80, "matmul_small_sm80", DType::kBFloat16, 80, kAnyNewer},
    {Kernel::kSmallSm80, "matmul_small_sm80", DType::kFloat16, 80, kAnyNewer},
    {Kernel::kSmallSm80, "matmul_small_sm80", DType::kInt8, 80, kAnyNewer},
    {Kernel::kSmallSm80, "matmul_small_sm80", kFloat8E4M3, 89, kAnyNewer},
    {Kernel::kTiledSm80, "matmul_sm80", DType::kBFloat16, 80, kAnyNewer},
    {Kernel::kTiledSm80, "matmul_sm80", DType::kFloat16, 80, kAnyNewer},
    {Kernel::kTiledSm80, "matmul_sm80", DType::kInt8, 80, kAnyNewer},
    {Kernel::kTiledSm80, "matmul_sm80", kFloat8E4M3, 89, kAnyNewer},
};

bool offers(const Capability& row, DType dtype, int capability) {
  return row.dtype == dtype && row.from <= capability && capability <= row.to;
}

bool has(Kernel kernel, DType dtype, int capability) {
  return std::any_of(std::begin(kCapabilities), std::end(kCapabilities),
                     [&](const Capability& row) { return row.kernel == kernel && offers(row, dtype, capability); });
}

// "matmul_sm80: bfloat16 sm_80+, float16 sm_80+, ..; .."
std::string list_capabilities() {
  std::string text;
  const Capability* before = nullptr;
  for (const Capability& row : kCapabilities) {
    if (!before || before->kernel != row.kernel) {
      if (before) text.append("; ");
      text.append(row.name).append(":");
    } else {
      text.append(",");
    }
    text.append(" ").append(name_of(row.dtype)).append(" sm_").append(std::to_string(row.from));
    if (row.to == kAnyNewer) text.append("+");
    before = &row;
  }
  return text;
}

// Calls function(std::integral_constant<int, tokens>()) with one of the tiles there are.
template <class Function>
auto with_tokens(Kernel kernel, int tokens, Function function) {
  if (kernel == Kernel::kSmallSm80) {
    switch (tokens) {
      case 8: return function(std::integral_constant<int, 8>());
      case 16: return function(std::integral_constant<int, 16>());
      default: return function(std::integral_constant<int, 32>());
    }
  }
  switch (tokens) {
    case 32: return function(std::integral_constant<int, 32>());
    case 64: return function(std::integral_constant<int, 64>());
    default: return function(std::integral_constant<int, 128>());
  }
}

bool rows_aligned(const void* pointer, int64_t rows, int64_t row_stride, int64_t element_bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && (rows <= 1 || row_stride * element_bytes % 16 == 0);
}

// Blocks of threads that keep the largest devices busy: splitting the inputs makes up what the shape lacks. One
// constant for all devices, so that results do not depend on the device.
constexpr int64_t kEnoughBlocks = 128;
constexpr int64_t kFewestBlocksOfSplit = 8, kMostSplits = 16;

int32_t splits_of(int64_t tiles, int64_t k_blocks) {
  if (tiles >= kEnoughBlocks * 3 / 4) return 1;
  return static_cast<int32_t>(std::clamp<int64_t>(
      std::min(kEnoughBlocks / std::max<int64_t>(tiles, 1), k_blocks / kFewestBlocksOfSplit), 1, kMostSplits));
}

Status check(const SemiStructuredMatmulParams& p) {
  constexpr const char* kName = "semi_structured_matmul";
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.m > INT32_MAX || p.n > INT32_MAX || p.k > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= m, n, k < 2^31, got m=%lld n=%lld k=%lld", kName, number(p.m),
                  number(p.n), number(p.k));
  if (const Status status = check_weight(kName, p.weight, p.dtype, p.n, p.k); status != Status::kOk) return status;
  if (p.m > 1 && (p.x_row_stride < 0 || p.y_row_stride < p.n || (p.residual && p.residual_row_stride < 0)))
    return refuse(
        Status::kBadShape,
        "%s: needs x_row_stride >= 0, y_row_stride >= n = %lld, residual_row_stride >= 0, got %lld, %lld, %lld", kName,
        number(p.n), number(p.x_row_stride), number(p.y_row_stride), number(p.residual_row_stride));
  if (p.out_dtype != DType::kFloat32 && p.out_dtype != DType::kBFloat16 && p.out_dtype != DType::kFloat16)
    return refuse(Status::kUnsupportedDType, "%s: y is float32, bfloat16 or float16, not %s", kName,
                  name_of(p.out_dtype));
  if (p.bias && p.bias_dtype != DType::kFloat32 && p.bias_dtype != DType::kBFloat16 && p.bias_dtype != DType::kFloat16)
    return refuse(Status::kUnsupportedDType, "%s: the bias is float32, bfloat16 or float16, not %s", kName,
                  name_of(p.bias_dtype));
  if (static_cast<int32_t>(p.activation) < 0 || static_cast<int32_t>(p.activation) > kLastActivation)
    return refuse(Status::kBadPattern, "%s: no activation has the number %d", kName, static_cast<int>(p.activation));
  if (p.m > 0 && p.n > 0 && (!p.y || (p.k > 0 && !p.x)))
    return refuse(Status::kNullPointer, "%s: needs x and y", kName);
  return Status::kOk;
}

Status finish(const MatmulArguments& args, void* stream) {
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(args.p.m), static_cast<unsigned>(ceil_div(args.p.n, kChunk * 128)));
  config.block = dim3(128);
  config.stream = static_cast<Stream>(stream);
  return args.p.dtype == DType::kInt8
             ? launched("semi_structured_matmul", launch(config, sm80::finish_splits<int32_t>, args))
             : launched("semi_structured_matmul", launch(config, sm80::finish_splits<float>, args));
}

}  // namespace

bool tensor_copies_take_x(const SemiStructuredMatmulParams& p) {
  constexpr int64_t kFarthest = int64_t{1} << 40;
  return p.k > 0 && rows_aligned(p.x, p.m, p.x_row_stride, size_of(p.dtype)) &&
         (p.m <= 1 || (p.x_row_stride >= p.k && p.x_row_stride < kFarthest / size_of(p.dtype)));
}

// Up to 32 tokens reading W is what costs, and the small kernel reads it once. Above, 128 tokens to a tile where there
// are enough of them to fill the device, since they read W least often.
Plan choose_plan(int64_t m, int64_t n, int64_t k, DType dtype, int capability, bool tensor_copies) {
  const int64_t k_blocks = ceil_div(k * size_of(dtype), kRowBytes);
  // Hopper has no mma.sp of float8: ptxas puts other instructions and spills in its place.
  const bool wgmma = tensor_copies && (m > 64 || dtype == kFloat8E4M3) && has(Kernel::kWgmmaSm90, dtype, capability);
  Plan plan;
  if (m <= 32 && !wgmma) {
    plan.kernel = Kernel::kSmallSm80;
    plan.tokens = m <= 8 ? 8 : m <= 16 ? 16 : 32;
    plan.splits = splits_of(ceil_div(n, m <= 8 ? 16 : 32), k_blocks);
    return plan;
  }
  const int64_t channel_tiles = ceil_div(n, wgmma ? 256 : 128);
  plan.kernel = wgmma ? Kernel::kWgmmaSm90 : Kernel::kTiledSm80;
  const bool tail = m % 128 != 0 && m % 128 <= 64 && m < 256;  // half of the second tile would be padding
  plan.tokens = m <= 64 || tail || channel_tiles * ceil_div(m, 128) < kEnoughBlocks * 3 / 4 ? 64 : 128;
  plan.splits = splits_of(channel_tiles * ceil_div(m, plan.tokens), k_blocks);
  return plan;
}

int64_t workspace_bytes(const Plan& plan, int64_t m, int64_t n) {
  return plan.splits > 1 ? plan.splits * m * padded_channels(n) * 4 : 0;
}

Status run_plan(const Plan& plan, const SemiStructuredMatmulParams& params, void* stream) {
  constexpr const char* kName = "semi_structured_matmul";
  if (const Status status = check(params); status != Status::kOk) return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  const int capability = current_device().capability;
  if (!has(plan.kernel, params.dtype, capability))
    return refuse(Status::kUnsupportedDType, "%s: no kernel for %s on sm_%d. There are %s", kName,
                  name_of(params.dtype), capability, list_capabilities().c_str());
  const int64_t needed = workspace_bytes(plan, params.m, params.n);
  if (needed > 0 &&
      (params.workspace_bytes < needed || !params.workspace || reinterpret_cast<uintptr_t>(params.workspace) % 16 != 0))
    return refuse(
        Status::kOutOfMemory,
        "%s: needs a workspace of %lld bytes aligned to 16 (semi_structured_matmul_workspace), got %lld at %p", kName,
        static_cast<long long>(needed), static_cast<long long>(params.workspace_bytes), params.workspace);

  MatmulArguments args;
  args.p = params;
  args.n_blocks = ceil_div(params.n, kBlockChannels);
  args.k_blocks = ceil_div(params.k * size_of(params.dtype), kRowBytes);
  args.splits = plan.splits;
  args.x_vectors = rows_aligned(params.x, params.m, params.x_row_stride, size_of(params.dtype));
  args.y_vectors = rows_aligned(params.y, params.m, params.y_row_stride, size_of(params.out_dtype)) &&
                   (!params.residual ||
                    rows_aligned(params.residual, params.m, params.residual_row_stride, size_of(params.out_dtype)));

  if (plan.kernel == Kernel::kWgmmaSm90) {
    const Status status = launch_sm90(plan, args, stream);
    return status == Status::kOk && args.splits > 1 ? finish(args, stream) : status;
  }
  const Status status = with_element(params.dtype, [&](auto element) {
    using T = decltype(element);
    return with_tokens(plan.kernel, plan.tokens, [&](auto tokens) {
      constexpr int kTokens = decltype(tokens)::value;
      LaunchConfig config;
      config.stream = static_cast<Stream>(stream);
      if (plan.kernel == Kernel::kSmallSm80) {
        if constexpr (kTokens <= 32) {
          using Tile = sm80::SmallTile<T, kTokens>;
          if (params.m > kTokens)
            return refuse(Status::kBadShape, "%s: a tile of %d tokens cannot take %lld", kName, kTokens,
                          static_cast<long long>(params.m));
          config.grid =
              dim3(static_cast<unsigned>(ceil_div(params.n, Tile::kChannels)), static_cast<unsigned>(args.splits));
          config.block = dim3(Tile::kThreads);
          config.shared_bytes = Tile::kSharedBytes;
          return launched(kName, launch(config, sm80::matmul_small<T, kTokens>, args));
        }
      } else if constexpr (kTokens >= 32) {
        using Tile = sm80::Tile<T, kTokens>;
        args.token_tiles = static_cast<int32_t>(ceil_div(params.m, kTokens));
        args.channel_tiles = static_cast<int32_t>(ceil_div(params.n, Tile::kChannels));
        const int64_t tiles = static_cast<int64_t>(args.token_tiles) * args.channel_tiles;
        if (tiles > INT32_MAX)
          return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts",
                        kName, static_cast<long long>(params.m), static_cast<long long>(params.n));
        config.grid = dim3(static_cast<unsigned>(tiles), 1, static_cast<unsigned>(args.splits));
        config.block = dim3(Tile::kThreads);
        config.shared_bytes = Tile::kSharedBytes;
        return launched(kName, launch(config, sm80::matmul<T, kTokens>, args));
      }
      return refuse(Status::kBadShape, "%s: no tile of %d tokens", kName, kTokens);
    });
  });
  return status == Status::kOk && args.splits > 1 ? finish(args, stream) : status;
}

}  // namespace semi_structured

int64_t semi_structured_matmul_workspace(int64_t m, int64_t n, int64_t k, DType dtype) {
  using namespace semi_structured;
  if (m <= 0 || n <= 0 || k < 0 || !semi_structured_supports(dtype)) return 0;
  // Of whichever kernel the device and the rows of x allow.
  return std::max(workspace_bytes(choose_plan(m, n, k, dtype, 80, false), m, n),
                  workspace_bytes(choose_plan(m, n, k, dtype, 90, true), m, n));
}

Status semi_structured_matmul(const SemiStructuredMatmulParams& p, void* stream) {
  using namespace semi_structured;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(
      choose_plan(length(p.m), length(p.n), length(p.k), p.dtype, current_device().capability, tensor_copies_take_x(p)),
      p, stream);
}

}  // namespace sparsecore

// The launches of group lists: products, gradients of values and the check of lists.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/group_lists/linear_sm80.cuh"
#include "cuda/group_lists/linear_small_sm80.cuh"
#include "cuda/group_lists/validate_sm80.cuh"
#include "cuda/group_lists/weight_grad_sm80.cuh"
#include "cuda/linear/asked.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore {
namespace group_lists_cuda {
namespace {

using cuda_linear::launched;
using cuda_linear::refuse;

// Of the kernel for few tokens: its largest tile, and how many tokens it may take in several of them.
constexpr int64_t kSmallTileTokens = 8, kFewTokens = 32;

// Whether few tokens one by one take less time than tiles that are made dense for all of them. Cycles of a
// multiprocessor for 32 kept weights: one by one for each eight tokens, and to write them into a tile, of which 64 x 64
// take kTile whatever is kept; 32 / 64^2 of that for each of the n k weights (docs/kernels/cuda_group_lists.md). The
// visit asks.
bool one_by_one(int64_t m, int64_t n, int64_t k, const GroupLists& weight) {
  if (m <= kSmallTileTokens) return true;
  constexpr double kTile = 400;
  const bool vectors = weight.rows == 1 && weight.cols >= 8;
  const double product = vectors ? 11 : weight.rows == 1 ? 14 : 9, expansion = vectors ? 4 : weight.rows == 1 ? 24 : 14;
  const double kept = static_cast<double>(weight.records) * weight.rows * weight.cols;
  return kept * (product * static_cast<double>(ceil_div(m, kSmallTileTokens)) - expansion) <=
         kTile * 32 / (64 * 64) * static_cast<double>(n) * static_cast<double>(k);
}

constexpr int32_t kEverySide = 1 + 2 + 4 + 8 + 16 + 32;
constexpr cuda_linear::Capability kRows[] = {
    {.kernel = kSmall,
     .name = "group_lists_small_sm80",
     .types = cuda_linear::kHalves,
     .sizes = kEverySide,
     .worth_to = kFewTokens},
    {.kernel = kExpanding, .name = "group_lists_sm80", .types = cuda_linear::kHalves, .sizes = kEverySide},
    {.kernel = kGrad, .name = "group_lists_grad_sm80", .types = cuda_linear::kHalves, .sizes = kEverySide},
    {.kernel = kValidate, .name = "group_lists_validate_sm80", .types = 0, .sizes = kEverySide},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "groups of sides"};
constexpr cuda_linear::Capabilities kProducts = {std::span(kRows).first(2), "groups of sides"};

Status check_weight(const char* function, const GroupLists& w, Kernel kernel, DType dtype, int64_t n, int64_t k) {
  if (n < 0 || k < 0 || n > INT32_MAX || k > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= n, k < 2^31, got n=%lld k=%lld", function,
                  static_cast<long long>(n), static_cast<long long>(k));
  if (const Status refused = cuda_linear::check_kernel(
          function, kCapabilities, kernel,
          {.dtype = dtype, .capability = current_device().capability, .sizes = {w.rows, w.cols}});
      refused != Status::kOk)
    return refused;
  if (w.depth < 16 || w.depth > 65536 || w.depth % 16 != 0 || w.depth % w.cols != 0 || w.window < 1 || w.window > 256)
    return refuse(Status::kBadPattern,
                  "%s: needs a depth of 16 to 65536 that 16 and %d, the columns, divide and a window of 1 to 256, got "
                  "depth %d, window %d",
                  function, w.cols, w.depth, w.window);
  if (w.records < 0 || w.records > (INT32_MAX >> 1))
    return refuse(Status::kBadShape, "%s: needs 0 to 2^30 records, got %lld", function,
                  static_cast<long long>(w.records));
  if (n > 0 && k > 0 && (!w.index || !w.order || !w.starts))
    return refuse(Status::kNullPointer, "%s: needs index, order and starts", function);
  return Status::kOk;
}

// Calls function(T()) with the element type, bfloat16 or float16.
template <class Function>
auto with_element(DType dtype, Function function) {
  return dtype == DType::kBFloat16 ? function(BFloat16()) : function(Float16());
}

template <class Tile, int kChannels>
Status launch_tiles(void (*kernel)(LinearArguments), LinearArguments args, void* stream) {
  constexpr const char* kName = "group_lists_linear";
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, Tile::kTokens));
  args.channel_tiles = static_cast<int32_t>(ceil_div(args.p.n, kChannels));
  const int64_t tiles = static_cast<int64_t>(args.token_tiles) * args.channel_tiles;
  if (tiles > INT32_MAX)
    return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                  static_cast<long long>(args.p.m), static_cast<long long>(args.p.n));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, kernel, args));
}

template <class T, int kTokens>
Status launch_expanding(const LinearArguments& args, void* stream) {
  return launch_tiles<sm80::Tile<kTokens>, kTileChannels>(sm80::group_lists<T, kTokens>, args, stream);
}
template <class T, int kRows, int kTokens>
Status launch_small(const LinearArguments& args, void* stream) {
  return launch_tiles<sm80::SmallTile<kRows, kTokens>, kSmallTileChannels>(sm80::group_lists_small<T, kRows, kTokens>,
                                                                           args, stream);
}
template <class T, int kTokens>
Status launch_small(LinearArguments args, void* stream) {
  args.span_panels = std::min(span_columns(kTokens) / args.lists.weight.depth, kSpanPanels);
  args.panel_shares = panel_shares(args.lists.panels, args.splits, args.span_panels);
  switch (args.lists.weight.rows) {
    case 1: return launch_small<T, 1, kTokens>(args, stream);
    case 2: return launch_small<T, 2, kTokens>(args, stream);
    case 4: return launch_small<T, 4, kTokens>(args, stream);
    default: return launch_small<T, 8, kTokens>(args, stream);
  }
}

}  // namespace

const cuda_linear::Capabilities& capabilities() { return kCapabilities; }

Plan choose_plan(int64_t m, int64_t n, int64_t k, const GroupLists& weight) {
  Plan plan;
  const cuda_linear::Capability* const row = cuda_linear::choose(kProducts, {.tokens = m});
  const bool asked = cuda_linear::asked_kernel() == row->name;  // run_plan refuses what it cannot do
  const bool small = row->kernel == kSmall && weight.depth <= kLongestPanel && one_by_one(m, n, k, weight);
  plan.kernel = asked ? static_cast<Kernel>(row->kernel) : small ? kSmall : kExpanding;
  plan.tokens = plan.kernel == kSmall ? (m <= 2 ? 2 : m <= 4 ? 4 : 8) : m <= 64 ? 32 : 128;
  const int64_t panels = ceil_div(k, std::max(weight.depth, 1));
  plan.splits = static_cast<int32_t>(std::min<int64_t>(
      cuda_linear::splits_of(
          ceil_div(n, plan.kernel == kSmall ? kSmallTileChannels : kTileChannels) * ceil_div(m, plan.tokens),
          ceil_div(k, cuda_linear::kTurnColumns)),
      std::max<int64_t>(panels, 1)));
  return plan;
}

Status run_plan(const Plan& plan, const GroupListsParams& params, void* stream) {
  constexpr const char* kName = "group_lists_linear";
  if (const Status status = cuda_linear::check_operands(kName, params); status != Status::kOk) return status;
  const bool small = plan.kernel == kSmall;
  if (const Status status = check_weight(kName, params.weight, plan.kernel, params.dtype, params.n, params.k);
      status != Status::kOk)
    return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  if (params.weight.records > 0 && !params.weight.values)
    return refuse(Status::kNullPointer, "%s: needs values", kName);
  if (const Status status =
          cuda_linear::check_workspace(kName, params, cuda_linear::partial_sum_bytes(plan.splits, params.m, params.n));
      status != Status::kOk)
    return status;
  LinearArguments args;
  args.p = params;
  args.lists = lists_of(params.weight, params.n, params.k);
  args.row_vectors = has_row_vectors(params.weight);
  args.splits = plan.splits;
  cuda_linear::note_alignment(&args);
  if (small) {
    if (params.weight.depth > kLongestPanel)
      return refuse(Status::kBadPattern, "%s: group_lists_small_sm80 takes panels of at most %d columns, not %d", kName,
                    kLongestPanel, params.weight.depth);
    args.value_vectors = reinterpret_cast<uintptr_t>(params.weight.values) % 16 == 0;
    args.index_vectors = reinterpret_cast<uintptr_t>(params.weight.index) % 16 == 0;
  }
  const Status status = with_element(params.dtype, [&](auto element) {
    using T = decltype(element);
    if (small)
      return plan.tokens == 2   ? launch_small<T, 2>(args, stream)
             : plan.tokens == 4 ? launch_small<T, 4>(args, stream)
                                : launch_small<T, 8>(args, stream);
    return plan.tokens == 32 ? launch_expanding<T, 32>(args, stream) : launch_expanding<T, 128>(args, stream);
  });
  return status == Status::kOk && args.splits > 1 ? cuda_linear::finish_splits(kName, args, stream) : status;
}

}  // namespace group_lists_cuda

int64_t group_lists_cuda_workspace(int64_t m, int64_t n, int64_t k, const GroupLists& weight) {
  using namespace group_lists_cuda;
  if (m <= 0 || n <= 0 || k < 0) return 0;
  return cuda_linear::partial_sum_bytes(choose_plan(m, n, k, weight).splits, m, n);
}

Status group_lists_cuda_linear(const GroupListsParams& p, void* stream) {
  using namespace group_lists_cuda;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(choose_plan(length(p.m), length(p.n), length(p.k), p.weight), p, stream);
}

Status group_lists_cuda_weight_grad(const GroupListsGradParams& p, void* stream) {
  using namespace group_lists_cuda;
  constexpr const char* kName = "group_lists_weight_grad";
  if (p.m < 0 || p.m > INT32_MAX || (p.m > 1 && (p.x_row_stride < 0 || p.grad_y_row_stride < 0)))
    return refuse(Status::kBadShape, "%s: needs 0 <= m < 2^31 and row strides >= 0, got m=%lld, strides %lld and %lld",
                  kName, static_cast<long long>(p.m), static_cast<long long>(p.grad_y_row_stride),
                  static_cast<long long>(p.x_row_stride));
  if (const Status status = check_weight(kName, p.weight, kGrad, p.dtype, p.n, p.k); status != Status::kOk)
    return status;
  if (!p.out || (p.m > 0 && ((p.n > 0 && !p.grad_y) || (p.k > 0 && !p.x))))
    return refuse(Status::kNullPointer, "%s: needs grad_y, x and out", kName);
  GradArguments args;
  args.p = p;
  args.lists = lists_of(p.weight, p.n, p.k);
  args.grad_y_vectors = cuda_linear::rows_aligned(p.grad_y, p.m, p.grad_y_row_stride, 2);
  args.x_vectors = cuda_linear::rows_aligned(p.x, p.m, p.x_row_stride, 2);
  const int64_t turns = static_cast<int64_t>(args.lists.panels) * args.lists.panel_turns;
  const int64_t tiles = ceil_div(p.n, kTileChannels);
  if (turns > INT32_MAX || tiles > 65535)
    return refuse(Status::kBadShape, "%s: the weight [%lld, %lld] has too many tiles of 64 x 64", kName,
                  static_cast<long long>(p.n), static_cast<long long>(p.k));
  LaunchConfig config;
  // At least one block, which writes the padding record.
  config.grid =
      dim3(static_cast<unsigned>(std::max<int64_t>(turns, 1)), static_cast<unsigned>(std::max<int64_t>(tiles, 1)));
  config.block = dim3(sm80::GradTile::kThreads);
  config.shared_bytes = sm80::kGradSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return with_element(p.dtype, [&](auto element) {
    return launched(kName, launch(config, sm80::group_lists_grad<decltype(element)>, args));
  });
}

Status group_lists_validate_device(const GroupLists& weight, int64_t n, int64_t k, int64_t* where, void* stream) {
  using namespace group_lists_cuda;
  constexpr const char* kName = "group_lists_validate";
  if (const Status status = check_weight(kName, weight, kValidate, DType::kBFloat16, n, k); status != Status::kOk)
    return status;
  if (!where) return refuse(Status::kNullPointer, "%s: needs where, two int64 on the device", kName);
  ValidateArguments args;
  args.lists = lists_of(weight, n, k);
  args.k = k;
  args.where = where;
  LaunchConfig config;
  config.grid = dim3(1);
  config.block = dim3(cuda_linear::kValidateThreads);
  config.shared_bytes = cuda_linear::kValidateSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, sm80::group_lists_validate, args));
}

}  // namespace sparsecore

// Which tile takes a product, its launch and that of the check of a bitmap.
#include <algorithm>

#include "cuda/bitmap_decode/matmul_sm80.cuh"
#include "cuda/bitmap_decode/validate_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore {
namespace cuda_bitmap_decode {
namespace {

constexpr const char* kName = "bitmap_decode_matmul";
constexpr Types kFloats = kHalves | type(DType::kFloat32);
constexpr Capability kRows[] = {
    {.kernel = kOwnValues, .name = "bitmap_matmul_sm80", .types = kHalves},
    {.kernel = kInt8Values, .name = "bitmap_matmul_sm80 with int8 values", .types = kHalves},
    {.kernel = kValidate, .name = "bitmap_validate_sm80", .types = 0},
    {.kernel = kDense, .name = "bitmap_to_dense_sm80", .types = kFloats},
    {.kernel = kDenseOfInt8, .name = "bitmap_to_dense_sm80 with int8 values", .types = kFloats | type(DType::kInt8)},
    {.kernel = kGather, .name = "bitmap_gather_sm80", .types = kFloats},
};
constexpr Capabilities kCapabilities = {kRows};

int64_t rows_of(int tokens) { return tokens == 8 ? 16 : tokens == 16 ? 32 : 64; }

Status check_weight(const BitmapDecodeMatmulParams& p) {
  const Kernel kernel = p.weight_dtype == DType::kInt8 ? kInt8Values : kOwnValues;
  if (const Status refused =
          check_kernel(kName, kCapabilities, kernel, {.dtype = p.dtype, .capability = current_device().capability});
      refused != Status::kOk)
    return refused;
  if (p.weight_dtype != p.dtype && p.weight_dtype != DType::kInt8)
    return refuse(Status::kUnsupportedDType, "%s: values are of the type of x, %s, or int8, not %s", kName,
                  name_of(p.dtype), name_of(p.weight_dtype));
  if (p.weight_dtype == DType::kInt8 && !p.weight_scale)
    return refuse(Status::kBadScale, "%s: int8 values need a scale for each channel", kName);
  if (p.weight.nnz < 0 || p.weight.nnz > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= values < 2^31, got %lld", kName,
                  static_cast<long long>(p.weight.nnz));
  if (!p.weight.row_ptr || (p.n > 0 && p.k > 0 && !p.weight.bitmap) || (p.weight.nnz > 0 && !p.weight.values))
    return refuse(Status::kNullPointer, "%s: needs values, bitmap and row_ptr", kName);
  return Status::kOk;
}

template <class T, class V, int kTokens>
Status launch_tile(MatmulArguments args, void* stream) {
  using Tile = sm80::Tile<V, kTokens>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, kTokens));
  args.turns = ceil_div(args.words, Tile::kTurnWords);
  args.channel_tiles = static_cast<int32_t>(ceil_div(args.p.n, Tile::kRows));
  const int64_t tiles = static_cast<int64_t>(args.token_tiles) * args.channel_tiles;
  if (tiles > INT32_MAX)
    return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                  static_cast<long long>(args.p.m), static_cast<long long>(args.p.n));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, sm80::bitmap_matmul<T, V, kTokens>, args));
}

template <class T, class V>
Status launch_tokens(int tokens, const MatmulArguments& args, void* stream) {
  switch (tokens) {
    case 8: return launch_tile<T, V, 8>(args, stream);
    case 16: return launch_tile<T, V, 16>(args, stream);
    case 32: return launch_tile<T, V, 32>(args, stream);
  }
  return refuse(Status::kBadShape, "%s: no tile of %d tokens", kName, tokens);
}

template <class T>
Status launch_values(const Plan& plan, DType weight_dtype, const MatmulArguments& args, void* stream) {
  return weight_dtype == DType::kInt8 ? launch_tokens<T, int8_t>(plan.tokens, args, stream)
                                      : launch_tokens<T, T>(plan.tokens, args, stream);
}

}  // namespace

const Capabilities& capabilities() { return kCapabilities; }

// 32 tokens to a tile at most: more would take x's room in shared memory from the values that have to be in flight.
// The tiles of one channel's tokens run side by side, so that all but the first read W from L2.
Plan choose_plan(int64_t m, int64_t n, int64_t k) {
  Plan plan;
  plan.tokens = m <= 8 ? 8 : m <= 16 ? 16 : 32;
  plan.splits = splits_of(ceil_div(n, rows_of(plan.tokens)) * ceil_div(m, plan.tokens), ceil_div(k, 4 * kWordColumns));
  return plan;
}

Status run_plan(const Plan& plan, const BitmapDecodeMatmulParams& params, void* stream) {
  if (const Status status = check_operands(kName, params); status != Status::kOk) return status;
  if (const Status status = check_weight(params); status != Status::kOk) return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  if (const Status status = check_workspace(kName, params, partial_sum_bytes(plan.splits, params.m, params.n));
      status != Status::kOk)
    return status;
  MatmulArguments args;
  args.p = params;
  args.weight = params.weight;
  args.words = ceil_div(params.k, kWordColumns);
  args.splits = plan.splits;
  args.value_vectors = reinterpret_cast<uintptr_t>(params.weight.values) % 16 == 0;
  note_alignment(&args);
  const Status status = params.dtype == DType::kBFloat16
                            ? launch_values<BFloat16>(plan, params.weight_dtype, args, stream)
                            : launch_values<Float16>(plan, params.weight_dtype, args, stream);
  return status == Status::kOk && args.splits > 1 ? finish_splits(kName, args, stream) : status;
}

}  // namespace cuda_bitmap_decode

int64_t bitmap_decode_matmul_workspace(int64_t m, int64_t n, int64_t k) {
  if (m <= 0 || n <= 0 || k < 0) return 0;
  return cuda_linear::partial_sum_bytes(cuda_bitmap_decode::choose_plan(m, n, k).splits, m, n);
}

Status bitmap_decode_matmul(const BitmapDecodeMatmulParams& p, void* stream) {
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return cuda_bitmap_decode::run_plan(cuda_bitmap_decode::choose_plan(length(p.m), length(p.n), length(p.k)), p,
                                      stream);
}

Status bitmap_decode_validate_device(const BitmapDecode& weight, int64_t n, int64_t k, int64_t* where, void* stream) {
  using namespace cuda_bitmap_decode;
  constexpr const char* kFunction = "bitmap_decode_validate";
  if (const Status status =
          check_kernel(kFunction, kCapabilities, kValidate, {.capability = current_device().capability});
      status != Status::kOk)
    return status;
  if (n < 0 || k < 0 || n > INT32_MAX || k > INT32_MAX || weight.nnz < 0 || weight.nnz > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= n, k, values < 2^31, got %lld, %lld and %lld", kFunction,
                  static_cast<long long>(n), static_cast<long long>(k), static_cast<long long>(weight.nnz));
  if (!where || !weight.row_ptr || (n > 0 && k > 0 && !weight.bitmap))
    return refuse(Status::kNullPointer, "%s: needs bitmap, row_ptr and where", kFunction);
  ValidateArguments args;
  args.weight = weight;
  args.n = n;
  args.k = k;
  args.where = where;
  LaunchConfig config;
  config.grid = dim3(1);
  config.block = dim3(kValidateThreads);
  config.shared_bytes = kValidateSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kFunction, launch(config, sm80::bitmap_validate, args));
}

}  // namespace sparsecore

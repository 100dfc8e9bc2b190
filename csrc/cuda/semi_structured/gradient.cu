// Checks and launches of the gradients of 2:4 weights.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/semi_structured/gradient_sm80.cuh"

namespace sparsecore {

using namespace semi_structured;

namespace {

// Rows of 16-bit elements. Those that are only read may overlap, as those of an expanded gradient do.
Status check_read_rows(const char* function, const char* name, const void* pointer, int64_t rows, int64_t columns,
                       int64_t row_stride) {
  if (rows > 1 && row_stride < 0)
    return refuse(Status::kBadShape, "%s: needs a row stride of at least 0 for %s, got %lld", function, name,
                  static_cast<long long>(row_stride));
  if (!pointer && rows > 0 && columns > 0) return refuse(Status::kNullPointer, "%s: needs %s", function, name);
  return Status::kOk;
}

Status check_rows(const char* function, const char* name, const void* pointer, int64_t rows, int64_t columns,
                  int64_t row_stride) {
  if (rows > 1 && row_stride < columns)
    return refuse(Status::kBadShape, "%s: rows of %lld columns of %s overlap at a stride of %lld", function,
                  static_cast<long long>(columns), name, static_cast<long long>(row_stride));
  return check_read_rows(function, name, pointer, rows, columns, row_stride);
}

constexpr Capability kRows[] = {
    {.kernel = kGather, .name = "gather", .types = kHalves, .alignment = 16},
    {.kernel = kStraightThrough, .name = "straight_through", .types = kHalves, .alignment = 16},
    {.kernel = kSampled, .name = "sampled", .types = kHalves, .alignment = 16},
};
constexpr Capabilities kCapabilities = {kRows};

// The weight of which only places matter, and the launch that walks its blocks. Metadata is read word by word.
Status check_places(const char* function, GradientKernel kernel, const uint32_t* metadata, int64_t words, DType dtype,
                    int64_t n, int64_t k, const void* values) {
  const Need need = {.dtype = dtype, .capability = current_device().capability, .alignment = alignment_of(values)};
  if (const Status status = check_kernel(function, kCapabilities, kernel, need); status != Status::kOk) return status;
  const SemiStructured weight{values, metadata, semi_structured_value_bytes(n, k, dtype), words};
  if (const Status status = check_weight(function, weight, dtype, n, k); status != Status::kOk) return status;
  if (ceil_div(n, kBlockChannels) * ceil_div(k, 64) <= INT32_MAX) return Status::kOk;
  return refuse(Status::kBadShape, "%s: the weight [%lld, %lld] has more than 2^31 - 1 blocks of 64 x 64", function,
                static_cast<long long>(n), static_cast<long long>(k));
}

LaunchConfig of_blocks(int64_t n, int64_t k, void* stream) {
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(n, kBlockChannels) * ceil_div(k, 64)));
  config.block = dim3(sm80::kGradientThreads);
  config.stream = static_cast<Stream>(stream);
  return config;
}

bool units_aligned(const void* pointer, int64_t rows, int64_t row_stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 8 == 0 && (rows <= 1 || row_stride % 4 == 0);
}

}  // namespace

const Capabilities& semi_structured::gradient_capabilities() { return kCapabilities; }

Status semi_structured_gather(const SemiStructuredGatherParams& p, void* stream) {
  constexpr const char* kName = "semi_structured_gather";
  Status status = check_places(kName, kGather, p.metadata, p.metadata_words, p.dtype, p.n, p.k, p.values);
  if (status == Status::kOk) status = check_read_rows(kName, "dense [n, k]", p.dense, p.n, p.k, p.row_stride);
  if (status != Status::kOk || p.n == 0 || p.k == 0) return status;
  sm80::GatherArguments args;
  args.dense = p.dense;
  args.metadata = p.metadata;
  args.values = p.values;
  args.n = p.n;
  args.k = p.k;
  args.row_stride = p.n > 1 ? p.row_stride : p.k;
  args.k_blocks = static_cast<uint32_t>(ceil_div(p.k, 64));
  args.vectors = units_aligned(p.dense, p.n, p.row_stride);
  return launched(kName, launch(of_blocks(p.n, p.k, stream), sm80::gather, args));
}

Status semi_structured_straight_through(const SemiStructuredStraightThroughParams& p, void* stream) {
  constexpr const char* kName = "semi_structured_straight_through";
  Status status = check_places(kName, kStraightThrough, p.weight.metadata, p.weight.metadata_words, p.dtype, p.n, p.k,
                               p.weight.values);
  if (status == Status::kOk) status = check_weight(kName, p.weight, p.dtype, p.n, p.k);
  if (status == Status::kOk) status = check_read_rows(kName, "grad [n, k]", p.grad, p.n, p.k, p.grad_row_stride);
  if (status == Status::kOk) status = check_read_rows(kName, "dense [n, k]", p.dense, p.n, p.k, p.dense_row_stride);
  if (status == Status::kOk) status = check_rows(kName, "out [n, k]", p.out, p.n, p.k, p.out_row_stride);
  if (status != Status::kOk || p.n == 0 || p.k == 0) return status;
  sm80::StraightThroughArguments args;
  args.grad = p.grad;
  args.dense = p.dense;
  args.values = p.weight.values;
  args.metadata = p.weight.metadata;
  args.out = p.out;
  args.n = p.n;
  args.k = p.k;
  args.grad_row_stride = p.grad_row_stride;
  args.dense_row_stride = p.dense_row_stride;
  args.out_row_stride = p.out_row_stride;
  args.decay = p.decay;
  args.k_blocks = static_cast<uint32_t>(ceil_div(p.k, 64));
  args.vectors = units_aligned(p.grad, p.n, p.grad_row_stride) && units_aligned(p.dense, p.n, p.dense_row_stride) &&
                 units_aligned(p.out, p.n, p.out_row_stride);
  const LaunchConfig config = of_blocks(p.n, p.k, stream);
  return p.dtype == DType::kBFloat16 ? launched(kName, launch(config, sm80::straight_through<BFloat16>, args))
                                     : launched(kName, launch(config, sm80::straight_through<Float16>, args));
}

Status semi_structured_sampled(const SemiStructuredSampledParams& p, void* stream) {
  constexpr const char* kName = "semi_structured_sampled";
  if (p.m < 0) return refuse(Status::kBadShape, "%s: needs m >= 0, got %lld", kName, static_cast<long long>(p.m));
  Status status = check_places(kName, kSampled, p.metadata, p.metadata_words, p.dtype, p.n, p.k, p.values);
  if (status == Status::kOk) status = check_read_rows(kName, "grad [m, n]", p.grad, p.m, p.n, p.grad_row_stride);
  if (status == Status::kOk) status = check_read_rows(kName, "x [m, k]", p.x, p.m, p.k, p.x_row_stride);
  if (status != Status::kOk || p.n == 0 || p.k == 0) return status;
  using Tile = sm80::SampledTile;
  sm80::SampledArguments args;
  const auto side = [&](Arguments* of, const void* tensor, int64_t width, int64_t row_stride) {
    of->p.x = tensor;
    of->p.m = p.m;
    of->p.k = width;
    of->p.x_row_stride = p.m > 1 ? row_stride : width;
    of->p.dtype = p.dtype;
    of->x_vectors = rows_aligned(tensor, p.m, row_stride, 2);
  };
  side(&args.grad, p.grad, p.n, p.grad_row_stride);
  side(&args.x, p.x, p.k, p.x_row_stride);
  args.metadata = p.metadata;
  args.values = p.values;
  args.n_blocks = ceil_div(p.n, kBlockChannels);
  args.k_blocks = ceil_div(p.k, 64);
  args.input_tiles = static_cast<uint32_t>(ceil_div(args.k_blocks, 2));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(args.n_blocks, 2) * args.input_tiles));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return p.dtype == DType::kBFloat16 ? launched(kName, launch(config, sm80::sampled<BFloat16>, args))
                                     : launched(kName, launch(config, sm80::sampled<Float16>, args));
}

}  // namespace sparsecore

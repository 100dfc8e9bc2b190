#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/linear/finish_splits.cuh"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore::cuda_linear {
namespace {

constexpr int64_t kFewestBlocksOfSplit = 8, kMostSplits = 16;

long long number(int64_t value) { return value; }

bool is_float(DType dtype) { return dtype == DType::kFloat32 || dtype == DType::kBFloat16 || dtype == DType::kFloat16; }

}  // namespace

Status check_operands(const char* function, const DeviceLinear& p) {
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.m > INT32_MAX || p.n > INT32_MAX || p.k > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= m, n, k < 2^31, got m=%lld n=%lld k=%lld", function, number(p.m),
                  number(p.n), number(p.k));
  if (p.m > 1 && (p.x_row_stride < 0 || p.y_row_stride < p.n || (p.residual && p.residual_row_stride < 0)))
    return refuse(
        Status::kBadShape,
        "%s: needs x_row_stride >= 0, y_row_stride >= n = %lld, residual_row_stride >= 0, got %lld, %lld, %lld",
        function, number(p.n), number(p.x_row_stride), number(p.y_row_stride), number(p.residual_row_stride));
  if (!is_float(p.out_dtype))
    return refuse(Status::kUnsupportedDType, "%s: y is float32, bfloat16 or float16, not %s", function,
                  name_of(p.out_dtype));
  if (p.bias && !is_float(p.bias_dtype))
    return refuse(Status::kUnsupportedDType, "%s: the bias is float32, bfloat16 or float16, not %s", function,
                  name_of(p.bias_dtype));
  if (static_cast<int32_t>(p.activation) < 0 || static_cast<int32_t>(p.activation) > kLastActivation)
    return refuse(Status::kBadPattern, "%s: no activation has the number %d", function, static_cast<int>(p.activation));
  if (p.m > 0 && p.n > 0 && (!p.y || (p.k > 0 && !p.x)))
    return refuse(Status::kNullPointer, "%s: needs x and y", function);
  return Status::kOk;
}

Status check_workspace(const char* function, const DeviceLinear& p, int64_t needed) {
  if (needed <= 0 || (p.workspace_bytes >= needed && p.workspace && reinterpret_cast<uintptr_t>(p.workspace) % 16 == 0))
    return Status::kOk;
  return refuse(Status::kOutOfMemory,
                "%s: needs a workspace of %lld bytes aligned to 16 (%s_workspace), got %lld at %p", function,
                number(needed), function, number(p.workspace_bytes), p.workspace);
}

bool rows_aligned(const void* pointer, int64_t rows, int64_t row_stride, int64_t element_bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && (rows <= 1 || row_stride * element_bytes % 16 == 0);
}

void note_alignment(Arguments* args) {
  const DeviceLinear& p = args->p;
  args->x_vectors = rows_aligned(p.x, p.m, p.x_row_stride, size_of(p.dtype));
  args->y_vectors = rows_aligned(p.y, p.m, p.y_row_stride, size_of(p.out_dtype)) &&
                    (!p.residual || rows_aligned(p.residual, p.m, p.residual_row_stride, size_of(p.out_dtype)));
}

int32_t splits_of(int64_t tiles, int64_t k_blocks) {
  if (tiles >= kEnoughBlocks * 3 / 4) return 1;
  return static_cast<int32_t>(std::clamp<int64_t>(
      std::min(kEnoughBlocks / std::max<int64_t>(tiles, 1), k_blocks / kFewestBlocksOfSplit), 1, kMostSplits));
}

bool tensor_copies_take(const TokenRows& rows) {
  constexpr int64_t kFarthest = int64_t{1} << 40;
  return rows.tokens > 0 && rows.columns > 0 &&
         rows_aligned(rows.data, rows.tokens, rows.row_stride, size_of(rows.dtype)) &&
         (rows.tokens == 1 || (rows.row_stride >= rows.columns && rows.row_stride < kFarthest / size_of(rows.dtype)));
}

Status map_rows(const char* function, const char* name, const TokenRows& rows, int tokens, TensorMap* map) {
  if (!tensor_copies_take(rows))
    return refuse(Status::kBadShape, "%s: tensor copies need tokens and rows of %s at multiples of 16 bytes", function,
                  name);
  TensorShape shape;
  shape.address = rows.data;
  shape.dtype = rows.dtype;
  shape.sizes[0] = static_cast<uint64_t>(rows.columns);
  shape.sizes[1] = static_cast<uint64_t>(rows.tokens);
  // One row has no stride; the map wants one all the same, past the row.
  const int64_t row_bytes = rows.columns * size_of(rows.dtype);
  shape.strides[1] =
      static_cast<uint64_t>(rows.tokens > 1 ? rows.row_stride * size_of(rows.dtype) : ceil_div(row_bytes, 16) * 16);
  shape.box[0] = static_cast<uint32_t>(kRowBytes / size_of(rows.dtype));
  shape.box[1] = static_cast<uint32_t>(tokens);
  if (make_tensor_map(shape, map)) return Status::kOk;
  return refuse(Status::kLaunchFailed, "%s: the driver made no tensor map for %s [%lld, %lld], row stride %lld",
                function, name, number(rows.tokens), number(rows.columns), number(rows.row_stride));
}

bool tensor_copies_take_x(const DeviceLinear& p) {
  return tensor_copies_take({p.x, p.m, p.k, p.x_row_stride, p.dtype});
}

Status map_x(const char* function, const DeviceLinear& p, int tokens, TensorMap* map) {
  return map_rows(function, "x", {p.x, p.m, p.k, p.x_row_stride, p.dtype}, tokens, map);
}

Status finish_splits(const char* function, const Arguments& args, void* stream) {
  LaunchConfig config;
  config.grid =
      dim3(static_cast<unsigned>(args.p.m), static_cast<unsigned>(ceil_div(args.p.n, kChunk * kFinishThreads)));
  config.block = dim3(kFinishThreads);
  config.stream = static_cast<Stream>(stream);
  return args.p.dtype == DType::kInt8 ? launched(function, launch(config, add_splits<int32_t>, args))
                                      : launched(function, launch(config, add_splits<float>, args));
}

}  // namespace sparsecore::cuda_linear

namespace sparsecore {

Status finish_linear(const DeviceLinear& params, void* stream) {
  using namespace cuda_linear;
  constexpr const char* kName = "finish_linear";
  DeviceLinear stored = params;
  stored.k = 0;  // nothing of x is read
  if (const Status status = check_operands(kName, stored); status != Status::kOk || params.m == 0 || params.n == 0)
    return status;
  Arguments args;
  args.p = stored;
  note_alignment(&args);
  LaunchConfig config;
  config.grid =
      dim3(static_cast<unsigned>(params.m), static_cast<unsigned>(ceil_div(params.n, kChunk * kFinishThreads)));
  config.block = dim3(kFinishThreads);
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, finish_stored, args));
}

}  // namespace sparsecore

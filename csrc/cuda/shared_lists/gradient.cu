// The gradient of the kept weights, the dense weight and the check of shared lists on a GPU.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/linear/capabilities.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/shared_lists/check.h"
#include "cuda/shared_lists/unpack_sm80.cuh"
#include "cuda/shared_lists/validate_sm80.cuh"
#include "cuda/shared_lists/weight_grad_sm80.cuh"

namespace sparsecore {
namespace cuda_shared_lists {
namespace {

using cuda_linear::refuse;

constexpr int32_t kEveryVector = 8 + 16 + 32 + 64;
constexpr cuda_linear::Capability kRows[] = {
    {.kernel = kGrad, .name = "weight_grad_sm80", .types = cuda_linear::kHalves, .sizes = kEveryVector},
    {.kernel = kUnpack, .name = "unpack_sm80", .types = cuda_linear::kStored, .sizes = kEveryVector},
    {.kernel = kValidate, .name = "validate_sm80", .types = 0, .sizes = 4 + kEveryVector},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "vectors of"};

Status check(const char* function, GradientKernel kernel, DType dtype, int32_t vector) {
  return cuda_linear::check_kernel(function, kCapabilities, kernel,
                                   {.dtype = dtype, .capability = current_device().capability, .sizes = {vector, 0}});
}

template <class T, int kSlices>
Status launch_grad(const char* function, const WeightGradArguments& args, void* stream) {
  using Tile = sm80::GradTile<kSlices>;
  const int64_t groups = ceil_div(args.n, args.weight.vector);
  LaunchConfig config;
  config.grid =
      dim3(static_cast<unsigned>(groups),
           static_cast<unsigned>(std::clamp<int64_t>(args.weight.records / (groups * Tile::kRecords), 1, 1024)));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(function, launch(config, sm80::shared_lists_weight_grad<T, kSlices>, args));
}

template <class T>
Status launch_vector(const char* function, const WeightGradArguments& args, void* stream) {
  switch (args.weight.vector) {
    case 64: return launch_grad<T, 4>(function, args, stream);
    case 32: return launch_grad<T, 2>(function, args, stream);
    default: return launch_grad<T, 1>(function, args, stream);
  }
}

}  // namespace

const cuda_linear::Capabilities& gradient_capabilities() { return kCapabilities; }

}  // namespace cuda_shared_lists

int64_t shared_lists_weight_grad_workspace(int64_t m, int64_t n, int64_t k) {
  if (m < 0 || n < 0 || k < 0) return 0;
  return gathered::transposed_bytes(m, n) + gathered::transposed_bytes(m, k);
}

Status shared_lists_weight_grad_device(const SharedListsWeightGradParams& p, void* stream) {
  using namespace cuda_shared_lists;
  constexpr const char* kName = "shared_lists_weight_grad";
  SharedLists lists = p.weight;
  lists.values = p.weight.columns;  // not looked at
  Status status = check(kName, kGrad, p.dtype, lists.vector);
  if (status == Status::kOk) status = check_lists(kName, lists, p.n, p.k);
  if (status != Status::kOk) return status;
  if (p.m < 0 || p.m > INT32_MAX || (p.m > 1 && (p.x_row_stride < 0 || p.grad_y_row_stride < 0)))
    return refuse(Status::kBadShape, "%s: needs 0 <= m < 2^31 and strides of at least 0, got m=%lld, %lld and %lld",
                  kName, static_cast<long long>(p.m), static_cast<long long>(p.x_row_stride),
                  static_cast<long long>(p.grad_y_row_stride));
  if (p.weight.records == 0 || p.n == 0) return Status::kOk;
  if (!p.out || (p.m > 0 && (!p.grad_y || !p.x)))
    return refuse(Status::kNullPointer, "%s: needs grad_y, x and out", kName);
  DeviceLinear workspace;
  workspace.workspace = p.workspace;
  workspace.workspace_bytes = p.workspace_bytes;
  status = cuda_linear::check_workspace(kName, workspace, shared_lists_weight_grad_workspace(p.m, p.n, p.k));
  if (status != Status::kOk) return status;

  WeightGradArguments args;
  uint16_t* grad_yt = static_cast<uint16_t*>(p.workspace);
  uint16_t* xt = grad_yt + gathered::transposed_bytes(p.m, p.n) / 2;
  gathered::TransposeArguments transposed;
  transposed.rows = p.m;
  transposed.x = static_cast<const uint16_t*>(p.grad_y);
  transposed.xt = grad_yt;
  transposed.columns = p.n;
  transposed.row_stride = p.grad_y_row_stride;
  transposed.vectors = cuda_linear::rows_aligned(p.grad_y, p.m, p.grad_y_row_stride, 2);
  status = gathered::transpose(kName, transposed, stream);
  if (status != Status::kOk) return status;
  transposed.x = static_cast<const uint16_t*>(p.x);
  transposed.xt = xt;
  transposed.columns = p.k;
  transposed.row_stride = p.x_row_stride;
  transposed.vectors = cuda_linear::rows_aligned(p.x, p.m, p.x_row_stride, 2);
  status = gathered::transpose(kName, transposed, stream);
  if (status != Status::kOk) return status;
  args.weight = p.weight;
  args.grad_yt = grad_yt;
  args.xt = xt;
  args.out = p.out;
  args.n = p.n;
  args.k = p.k;
  args.pitch = gathered::pitch_of(p.m);
  return p.dtype == DType::kBFloat16 ? launch_vector<BFloat16>(kName, args, stream)
                                     : launch_vector<Float16>(kName, args, stream);
}

Status shared_lists_unpack_device(const SharedLists& weight, DType dtype, int64_t n, int64_t k, void* dense,
                                  void* stream) {
  using namespace cuda_shared_lists;
  constexpr const char* kName = "shared_lists_unpack";
  Status status = check(kName, kUnpack, dtype, weight.vector);
  if (status == Status::kOk) status = check_lists(kName, weight, n, k);
  if (status != Status::kOk) return status;
  if (n == 0 || k == 0) return Status::kOk;
  if (!dense) return refuse(Status::kNullPointer, "%s: needs a place for the dense weight", kName);
  const int64_t blocks = ceil_div(n, weight.vector) * ceil_div(k, sm80::kUnpackWindow);
  if (blocks > INT32_MAX)
    return refuse(Status::kBadShape, "%s: a weight [%lld, %lld] has more than 2^31 - 1 windows", kName,
                  static_cast<long long>(n), static_cast<long long>(k));
  UnpackArguments args{weight, dense, n, k};
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(blocks));
  config.block = dim3(sm80::kUnpackThreads);
  config.shared_bytes = sm80::kUnpackWindow * 4;
  config.stream = static_cast<Stream>(stream);
  switch (size_of(dtype)) {
    case 1: return cuda_linear::launched(kName, launch(config, sm80::shared_lists_unpack<uint8_t>, args));
    case 2: return cuda_linear::launched(kName, launch(config, sm80::shared_lists_unpack<uint16_t>, args));
    default: return cuda_linear::launched(kName, launch(config, sm80::shared_lists_unpack<uint32_t>, args));
  }
}

Status shared_lists_validate_device(const SharedLists& weight, int64_t n, int64_t k, int64_t* where, void* stream) {
  using namespace cuda_shared_lists;
  constexpr const char* kName = "shared_lists_validate";
  SharedLists lists = weight;
  lists.values = weight.columns;  // not looked at
  Status status = check(kName, kValidate, DType::kBFloat16, lists.vector);
  if (status == Status::kOk) status = check_lists(kName, lists, n, k);
  if (status != Status::kOk) return status;
  if (!where || !lists.group_ptr) return refuse(Status::kNullPointer, "%s: needs group_ptr and where", kName);
  ValidateArguments args;
  args.weight = lists;
  args.groups = ceil_div(n, lists.vector);
  args.k = k;
  args.where = where;
  LaunchConfig config;
  config.grid = dim3(1);
  config.block = dim3(cuda_linear::kValidateThreads);
  config.shared_bytes = cuda_linear::kValidateSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(kName, launch(config, sm80::shared_lists_validate, args));
}

}  // namespace sparsecore

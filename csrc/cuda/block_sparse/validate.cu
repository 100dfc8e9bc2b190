// The launch of the check of an index.
#include "cuda/block_sparse/check.h"
#include "cuda/block_sparse/validate_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/message.h"

namespace sparsecore {
namespace block_sparse {
namespace {

constexpr cuda_linear::Capability kRows[] = {
    {.kernel = 0, .name = "validate_sm80", .types = 0, .sizes = 16 + 32 + 64 + 128},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "blocks of"};

}  // namespace
}  // namespace block_sparse

Status block_sparse_validate(const BlockSparse& weight, const BlockSparse* transposed, int64_t n, int64_t k,
                             int64_t* where, void* stream) {
  using namespace block_sparse;
  using cuda_linear::refuse;
  constexpr const char* kName = "block_sparse_validate";
  if (n < 0 || k < 0 || n > INT32_MAX || k > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= n, k < 2^31, got n=%lld k=%lld", kName, static_cast<long long>(n),
                  static_cast<long long>(k));
  if (const Status status = cuda_linear::check_kernel(
          kName, kCapabilities, 0, {.capability = current_device().capability, .sizes = {weight.size, 0}});
      status != Status::kOk)
    return status;
  if (const Status status = check_weight(kName, weight, n); status != Status::kOk) return status;
  if (!where || !weight.starts || (n > 0 && !weight.order))
    return refuse(Status::kNullPointer, "%s: needs starts, order and where", kName);
  sm80::ValidateArguments args{};
  args.weight = weight;
  args.rows = static_cast<int32_t>(ceil_div(n, weight.size));
  args.columns = static_cast<int32_t>(ceil_div(k, weight.size));
  args.where = where;
  args.has_transposed = transposed != nullptr;
  if (transposed) {
    if (transposed->blocks != weight.blocks || transposed->size != weight.size)
      return refuse(Status::kBadShape, "%s: the transposed index has %lld blocks of %d, the other %lld of %d", kName,
                    static_cast<long long>(transposed->blocks), transposed->size, static_cast<long long>(weight.blocks),
                    weight.size);
    if (!transposed->starts || (k > 0 && !transposed->order) ||
        (weight.blocks > 0 && (!transposed->index || !transposed->source)))
      return refuse(Status::kNullPointer, "%s: needs starts, index, order and source of the transposed index", kName);
    args.transposed = *transposed;
  }
  LaunchConfig config;
  config.grid = dim3(1);
  config.block = dim3(sm80::kValidateThreads);
  config.shared_bytes = cuda_linear::kValidateSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(kName, launch(config, sm80::validate, args));
}

}  // namespace sparsecore

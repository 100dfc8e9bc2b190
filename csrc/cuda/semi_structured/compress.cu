// Checks and launches of compression, decompression and validation.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/semi_structured/compress_sm80.cuh"

namespace sparsecore {

using namespace semi_structured;

namespace {

// They move bits, so that no type asks for newer devices.
constexpr Capability kRows[] = {
    {.kernel = kCompress, .name = "compress", .types = kMultiplied, .alignment = 16},
    {.kernel = kCompressBoth, .name = "compress with the transposed packing", .types = kHalves, .alignment = 16},
    {.kernel = kDecompress, .name = "decompress", .types = kMultiplied, .alignment = 16},
    {.kernel = kValidate, .name = "validate", .types = kMultiplied, .alignment = 4},
};
constexpr Capabilities kCapabilities = {kRows};

Status check(const char* function, CompressKernel kernel, DType dtype, std::initializer_list<const void*> values) {
  Need need = {.dtype = dtype, .capability = current_device().capability};
  for (const void* of : values) need.alignment = std::min(need.alignment, alignment_of(of));
  return check_kernel(function, kCapabilities, kernel, need);
}

bool aligned(const void* pointer, int64_t row_bytes, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0 && row_bytes % bytes == 0;
}

int64_t blocks_of(int64_t n, int64_t k, DType dtype) {
  return ceil_div(n, kBlockChannels) * ceil_div(k * size_of(dtype), kRowBytes);
}

Status check_blocks(const char* function, int64_t n, int64_t k, DType dtype) {
  if (blocks_of(n, k, dtype) <= INT32_MAX) return Status::kOk;
  return refuse(Status::kBadShape, "%s: the weight [%lld, %lld] has more than 2^31 - 1 blocks of 64 x 128 bytes",
                function, static_cast<long long>(n), static_cast<long long>(k));
}

}  // namespace

const Capabilities& semi_structured::compress_capabilities() { return kCapabilities; }

Status semi_structured_compress(const SemiStructuredCompressParams& p, void* stream) {
  constexpr const char* kName = "semi_structured_compress";
  if (const Status status = check(kName, p.values_t ? kCompressBoth : kCompress, p.dtype,
                                  {p.values, p.metadata, p.values_t, p.metadata_t});
      status != Status::kOk)
    return status;
  if (p.n < 0 || p.k < 0 || p.n > INT32_MAX || p.k > INT32_MAX || (p.n > 1 && p.row_stride < p.k))
    return refuse(Status::kBadShape,
                  "%s: needs 0 <= n, k < 2^31 and rows that do not overlap, got n=%lld k=%lld row_stride=%lld", kName,
                  static_cast<long long>(p.n), static_cast<long long>(p.k), static_cast<long long>(p.row_stride));
  if (p.n == 0 || p.k == 0) return Status::kOk;
  if (!p.dense || !p.values || !p.metadata || (p.selection == SemiStructuredSelection::kMask && !p.mask) ||
      (p.values_t && !p.metadata_t))
    return refuse(Status::kNullPointer,
                  "%s: dense, values, metadata, with kMask a mask, and metadata_t beside values_t", kName);
  if (p.values_t && p.selection == SemiStructuredSelection::kByRow)
    return refuse(Status::kBadPattern,
                  "%s: the transposed packing is made by kTwoWay or kMask, not by kByRow. Compress the transposed "
                  "matrix instead",
                  kName);
  if (const Status status = check_blocks(kName, p.n, p.k, p.dtype); status != Status::kOk) return status;
  sm80::CompressArguments args;
  args.p = p;
  if (p.n == 1) args.p.row_stride = p.k;
  args.n_blocks = static_cast<uint32_t>(ceil_div(p.n, kBlockChannels));
  args.k_blocks = static_cast<uint32_t>(ceil_div(p.k * size_of(p.dtype), kRowBytes));
  args.vectors = aligned(p.dense, args.p.row_stride * size_of(p.dtype), 16);
  args.mask_words = aligned(p.mask, p.k, 4);
  args.magnitude_int8 = p.dtype == DType::kInt8;
  LaunchConfig config;
  config.grid = dim3(args.n_blocks * args.k_blocks);
  config.block = dim3(sm80::kCompressThreads);
  config.shared_bytes = sm80::kCompressSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return size_of(p.dtype) == 2 ? launched(kName, launch(config, sm80::compress<2>, args))
                               : launched(kName, launch(config, sm80::compress<1>, args));
}

Status semi_structured_decompress(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, void* dense,
                                  int64_t row_stride, void* stream) {
  constexpr const char* kName = "semi_structured_decompress";
  if (const Status status = check(kName, kDecompress, dtype, {weight.values, weight.metadata}); status != Status::kOk)
    return status;
  if (const Status status = check_weight(kName, weight, dtype, n, k); status != Status::kOk) return status;
  if (n > 1 && row_stride < k)
    return refuse(Status::kBadShape, "%s: rows of %lld columns overlap at a stride of %lld", kName,
                  static_cast<long long>(k), static_cast<long long>(row_stride));
  if (n == 0 || k == 0) return Status::kOk;
  if (!dense) return refuse(Status::kNullPointer, "%s: needs dense [n, k]", kName);
  if (const Status status = check_blocks(kName, n, k, dtype); status != Status::kOk) return status;
  sm80::DecompressArguments args;
  args.values = weight.values;
  args.metadata = weight.metadata;
  args.dense = dense;
  args.n = n;
  args.k = k;
  args.row_stride = n > 1 ? row_stride : k;
  args.k_blocks = static_cast<uint32_t>(ceil_div(k * size_of(dtype), kRowBytes));
  args.vectors = aligned(dense, args.row_stride * size_of(dtype), 8);
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(blocks_of(n, k, dtype)));
  config.block = dim3(sm80::kCompressThreads);
  config.stream = static_cast<Stream>(stream);
  return size_of(dtype) == 2 ? launched(kName, launch(config, sm80::decompress<2>, args))
                             : launched(kName, launch(config, sm80::decompress<1>, args));
}

Status semi_structured_validate_device(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, int64_t* where,
                                       void* stream) {
  constexpr const char* kName = "semi_structured_validate_device";
  if (const Status status = check(kName, kValidate, dtype, {weight.values, weight.metadata}); status != Status::kOk)
    return status;
  if (const Status status = check_weight(kName, weight, dtype, n, k); status != Status::kOk) return status;
  if (!where) return refuse(Status::kNullPointer, "%s: needs where, one int64 on the device", kName);
  sm80::ValidateArguments args;
  args.values = weight.values;
  args.metadata = weight.metadata;
  args.where = where;
  args.n = n;
  args.k = k;
  args.n_blocks = ceil_div(n, kBlockChannels);
  args.k_blocks = ceil_div(k * size_of(dtype), kRowBytes);
  LaunchConfig config;
  config.grid = dim3(1);
  config.block = dim3(kValidateThreads);
  config.shared_bytes = kValidateSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return size_of(dtype) == 2 ? launched(kName, launch(config, sm80::validate<2>, args))
                             : launched(kName, launch(config, sm80::validate<1>, args));
}

}  // namespace sparsecore

// Checks and launches of the kernels between the bitmap and the dense matrix.
#include "cuda/bitmap_decode/dense_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/message.h"

namespace sparsecore {

using namespace cuda_bitmap_decode;

namespace {

Status arguments(const char* function, Kernel kernel, DType dtype, const BitmapDecode& weight, int64_t n, int64_t k,
                 DenseArguments* args) {
  if (const Status refused =
          check_kernel(function, capabilities(), kernel, {.dtype = dtype, .capability = current_device().capability});
      refused != Status::kOk)
    return refused;
  if (n < 0 || k < 0 || n > INT32_MAX || k > INT32_MAX || weight.nnz < 0 || weight.nnz > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= n, k, values < 2^31, got n=%lld k=%lld values=%lld", function,
                  static_cast<long long>(n), static_cast<long long>(k), static_cast<long long>(weight.nnz));
  if (!weight.row_ptr || (n > 0 && k > 0 && !weight.bitmap))
    return refuse(Status::kNullPointer, "%s: needs bitmap and row_ptr", function);
  args->weight = weight;
  args->n = n;
  args->k = k;
  args->words = ceil_div(k, kWordColumns);
  args->parts = ceil_div(args->words, kPartWords);
  if (ceil_div(n * args->parts, kDenseThreads / 32) > INT32_MAX)
    return refuse(Status::kBadShape, "%s: the weight [%lld, %lld] has more than 2^33 parts", function,
                  static_cast<long long>(n), static_cast<long long>(k));
  return Status::kOk;
}

template <class Kernel>
Status launch_parts(const char* function, const DenseArguments& args, void* stream, Kernel kernel) {
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(args.n * args.parts, kDenseThreads / 32)));
  config.block = dim3(kDenseThreads);
  config.stream = static_cast<Stream>(stream);
  return launched(function, launch(config, kernel, args));
}

// Values that stay what they are travel as bits.
struct Bits32 {
  uint32_t bits;
};

}  // namespace

Status bitmap_decode_to_dense(const BitmapDecodeDenseParams& p, void* stream) {
  constexpr const char* kName = "bitmap_decode_to_dense";
  DenseArguments args;
  const Kernel kernel = p.weight_dtype == DType::kInt8 ? kDenseOfInt8 : kDense;
  if (const Status status = arguments(kName, kernel, p.dtype, p.weight, p.n, p.k, &args); status != Status::kOk)
    return status;
  if (kernel == kDense && p.weight_dtype != p.dtype)
    return refuse(Status::kUnsupportedDType, "%s: values are of the type of the dense matrix, %s, or int8, not %s",
                  kName, name_of(p.dtype), name_of(p.weight_dtype));
  if (p.n == 0 || p.k == 0) return Status::kOk;
  if (!p.dense || (p.weight.nnz > 0 && !p.weight.values))
    return refuse(Status::kNullPointer, "%s: needs values and the dense matrix", kName);
  args.dense = p.dense;
  if (kernel == kDense)
    return size_of(p.dtype) == 2 ? launch_parts(kName, args, stream, sm80::to_dense<BFloat16, BFloat16>)
                                 : launch_parts(kName, args, stream, sm80::to_dense<Bits32, Bits32>);
  switch (p.dtype) {
    case DType::kInt8: return launch_parts(kName, args, stream, sm80::to_dense<int8_t, int8_t>);
    case DType::kBFloat16: return launch_parts(kName, args, stream, sm80::to_dense<int8_t, BFloat16>);
    case DType::kFloat16: return launch_parts(kName, args, stream, sm80::to_dense<int8_t, Float16>);
    default: return launch_parts(kName, args, stream, sm80::to_dense<int8_t, float>);
  }
}

Status bitmap_decode_gather(const BitmapDecodeGatherParams& p, void* stream) {
  constexpr const char* kName = "bitmap_decode_gather";
  DenseArguments args;
  if (const Status status = arguments(kName, kGather, p.dtype, p.weight, p.n, p.k, &args); status != Status::kOk)
    return status;
  if (p.n == 0 || p.k == 0 || p.weight.nnz == 0) return Status::kOk;
  if (!p.dense || !p.values) return refuse(Status::kNullPointer, "%s: needs values and the dense matrix", kName);
  args.dense = const_cast<void*>(p.dense);
  args.values = p.values;
  return size_of(p.dtype) == 2 ? launch_parts(kName, args, stream, sm80::gather<BFloat16>)
                               : launch_parts(kName, args, stream, sm80::gather<Bits32>);
}

}  // namespace sparsecore

// The launch of the wgmma.sp kernel over V:N:M weights: this file is compiled for sm_90a.
#include "cuda/gathered/launch_sm90.cuh"
#include "cuda/vnm/weights_sm90.cuh"

namespace sparsecore::cuda_vnm {
namespace {

template <class T>
Status launch_tokens(const char* function, const Plan& plan, const MatmulArguments& args, void* stream) {
  if (args.weight.vector == 128)
    return plan.tokens == 256 ? gathered::sm90::launch_tile<sm90::Weights<T, 2>, 256>(function, plan, args, stream)
                              : gathered::sm90::launch_tile<sm90::Weights<T, 2>, 128>(function, plan, args, stream);
  return plan.tokens == 256 ? gathered::sm90::launch_tile<sm90::Weights<T, 1>, 256>(function, plan, args, stream)
                            : gathered::sm90::launch_tile<sm90::Weights<T, 1>, 128>(function, plan, args, stream);
}

}  // namespace

Status launch_sm90(const char* function, const Plan& plan, const MatmulArguments& args, void* stream) {
  if (plan.kernel == Plan::Kernel::kPickedSm90) return launch_picked_sm90(function, plan, args, stream);
  return args.linear.p.dtype == DType::kBFloat16 ? launch_tokens<BFloat16>(function, plan, args, stream)
                                                 : launch_tokens<Float16>(function, plan, args, stream);
}

}  // namespace sparsecore::cuda_vnm

// The launches of products with lifted inputs.
#include "cuda/semi_structured/launch_sm80.cuh"
#include "cuda/semi_structured/lift_tokens.cuh"

namespace sparsecore::semi_structured {
namespace {

// The types that lifted products have.
template <class Function>
Status with_lifted_element(DType dtype, Function function) {
  switch (dtype) {
    case DType::kBFloat16: return function(BFloat16());
    case DType::kFloat16: return function(Float16());
    default: return function(int8_t());
  }
}

}  // namespace

Status launch_lifted_sm80(const Plan& plan, const MatmulArguments& args, void* stream) {
  return with_lifted_element(args.p.dtype, [&](auto element) {
    using T = decltype(element);
    return launch_sm80<T, LiftedInputs<T>>(plan, args, stream);
  });
}

Status lift_tokens(const MatmulArguments& args, void* lifted, int64_t row_bytes, void* stream) {
  constexpr const char* kName = "semi_structured_matmul";
  if (!args.x_vectors)
    return refuse(Status::kBadShape, "%s: lifting into the workspace needs rows of x at multiples of 16 bytes", kName);
  LaunchConfig config;
  config.grid =
      dim3(static_cast<unsigned>(args.p.m), static_cast<unsigned>(ceil_div(row_bytes, 16 * sm80::kLiftThreads)));
  config.block = dim3(sm80::kLiftThreads);
  config.stream = static_cast<Stream>(stream);
  return args.p.dtype == DType::kInt8
             ? launched(kName, launch(config, sm80::lift_tokens<int8_t>, args, lifted, row_bytes))
             : launched(kName, launch(config, sm80::lift_tokens<uint16_t>, args, lifted, row_bytes));
}

}  // namespace sparsecore::semi_structured

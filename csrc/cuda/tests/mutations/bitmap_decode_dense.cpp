// The kernels between the bitmap and the dense matrix under adversaries.h.
#include <string>

#include "cuda/bitmap_decode/dense_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/tests/bitmap_decode_dense_problem.h"
#include "cuda/tests/mutations/adversaries.h"

using namespace sparsecore;
using namespace sparsecore::cuda_bitmap_decode;

namespace {

struct Shape {
  int64_t n, k;
  double density;
  int64_t missing;  // of the last values, which a damaged file may not have
};
constexpr Shape kShapes[] = {{7, 131, 0.5, 0},
                             {3, 2 * 2048 + 70, 0.4, 0},
                             {2, 200, 1.0, 0},
                             // Values that end at a multiple of 256 bytes, and a dense matrix that ends shortly before
                             // one: behind them lies memory that must not be touched.
                             {7, 65, 1.0, 71}};

template <class Kernel>
void launch_parts(const DenseArguments& args, Kernel kernel) {
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(args.n * args.parts, kDenseThreads / 32)));
  config.block = dim3(kDenseThreads);
  launch(config, kernel, args);
}

std::string run(const Shape& shape) {
  BitmapDenseProblem problem(shape.n, shape.k, DType::kBFloat16, DType::kBFloat16, shape.density);
  DenseArguments args;
  // One value less is what the kernels are told, and the memory behind it is not theirs.
  cuda_emulation::GlobalBuffer<char> values((problem.nnz() - shape.missing) * 2), taken(values.size());
  std::memcpy(values.data(), problem.values.data(), values.size());
  args.weight = {values.data(), problem.bitmap.data(), problem.row_ptr.data(), problem.nnz() - shape.missing};
  args.dense = problem.dense.data();
  args.n = shape.n, args.k = shape.k;
  args.words = ceil_div(shape.k, kWordColumns);
  args.parts = ceil_div(args.words, kPartWords);
  launch_parts(args, sm80::to_dense<BFloat16, BFloat16>);
  if (shape.missing == 0 && problem.first_wrong_weight() >= 0)
    return "weight " + std::to_string(problem.first_wrong_weight()) + " is wrong";
  args.dense = problem.from.data();
  args.values = taken.data();
  launch_parts(args, sm80::gather<BFloat16>);
  // Bits past the last column, which a damaged file may have, of a row whose values seem to be there.
  if (shape.missing > 0) {
    problem.bitmap[shape.n * args.words - 1] = ~uint64_t{0};
    problem.row_ptr[shape.n - 1] = 0;
    launch_parts(args, sm80::gather<BFloat16>);
    return "";
  }
  std::memcpy(problem.taken.data(), taken.data(), taken.size());
  return problem.first_wrong_value() < 0 ? "" : "value " + std::to_string(problem.first_wrong_value()) + " is wrong";
}

}  // namespace

int main() { return survive_adversaries(80, kShapes, run); }

// The bitmap kernel under adversaries.h.
#include <string>

#include "cuda/bitmap_decode/matmul_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/finish_splits.cuh"
#include "cuda/tests/bitmap_decode_problem.h"
#include "cuda/tests/mutations/adversaries.h"

using namespace sparsecore;
using namespace sparsecore::cuda_bitmap_decode;

namespace {

struct Shape {
  int64_t m, n, k;
  int splits;
  int64_t value_offset;
  double density;
};
constexpr Shape kShapes[] = {
    {7, 20, 7 * 256 + 69, 1, 0, 0.5},
    {11, 18, 9 * 256 - 1, 2, 0, 0.8},
    {5, 17, 2 * 256 + 3, 1, 3, 0.5},
    // 16-bit values that end at a multiple of 256 bytes, behind which lies memory that must not be touched.
    {1, 17, 521, 1, 2, 1.0}};

template <class V>
std::string run(const Shape& shape, DType weight_dtype) {
  BitmapOptions options;
  options.weight_dtype = weight_dtype;
  options.value_offset = shape.value_offset;
  options.density = shape.density;
  options.x_pad = shape.value_offset;
  BitmapProblem problem(shape.m, shape.n, shape.k, options);
  problem.forget();
  const BitmapDecodeMatmulParams params = problem.params(partial_sum_bytes(shape.splits, shape.m, shape.n));
  MatmulArguments args;
  args.p = params;
  args.weight = params.weight;
  args.words = ceil_div(shape.k, kWordColumns);
  args.splits = shape.splits;
  args.value_vectors = shape.value_offset == 0;
  args.x_vectors = shape.value_offset == 0;
  args.token_tiles = static_cast<int32_t>(ceil_div(shape.m, 8));
  using Tile = sm80::Tile<V, 8>;
  args.turns = ceil_div(args.words, Tile::kTurnWords);
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(args.token_tiles * ceil_div(shape.n, Tile::kRows)),
                     static_cast<unsigned>(shape.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm80::bitmap_matmul<BFloat16, V, 8>, args);
  if (shape.splits > 1) {
    config.grid = dim3(static_cast<unsigned>(shape.m), 1);
    config.block = dim3(kFinishThreads);
    config.shared_bytes = 0;
    launch(config, add_splits<float>, static_cast<Arguments>(args));
  }
  if (problem.strayed()) return "something beside y was written";
  return problem.first_wrong() < 0 ? "" : "output " + std::to_string(problem.first_wrong()) + " is wrong";
}

}  // namespace

int main() {
  return survive_adversaries(80, kShapes, [](const Shape& shape) {
    const std::string problem = run<BFloat16>(shape, DType::kBFloat16);
    return problem.empty() ? run<int8_t>(shape, DType::kInt8) : problem;
  });
}

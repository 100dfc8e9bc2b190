// Kernels of group lists under adversaries.h: compiled with -DKERNEL_LINEAR, _SMALL or _GRAD.
#include <algorithm>
#include <string>

#include "cuda/common/launch.h"
#include "cuda/linear/finish_splits.cuh"
#include "cuda/tests/group_lists_problem.h"
#include "cuda/tests/mutations/adversaries.h"
#if defined(KERNEL_LINEAR)
#include "cuda/group_lists/linear_sm80.cuh"
#elif defined(KERNEL_SMALL)
#include "cuda/group_lists/linear_small_sm80.cuh"
#else
#include "cuda/group_lists/weight_grad_sm80.cuh"
#endif

using namespace sparsecore;
using namespace sparsecore::group_lists_cuda;

namespace {

struct Shape {
  int64_t m, n, k;
  int32_t rows, cols, depth, window;
  int splits;
  bool vectors;
  int damage;  // 0: none
  int64_t list_offset = 0;
};

void spoil(GroupProblem& problem, int damage) {
  if (damage == 1) problem.starts[0] = INT32_MIN, problem.starts[1] = 1 << 20;
  if (damage == 2) problem.starts[0] = INT32_MAX - 1, problem.starts[1] = INT32_MAX;
  if (damage == 3)
    for (size_t i = 0; i < problem.order.size(); ++i) problem.order[i] = static_cast<uint8_t>(255 * (i % 2));
  // Records that lie in front of the turn they are met in, and behind the panel.
  if (damage == 4)
    for (size_t i = 0; i < problem.index.size(); ++i) problem.index[i] = static_cast<char>(i % 2 ? 100 : 3);
  if (damage == 5)  // of 16 bits
    for (size_t i = 0; i < problem.index.size(); ++i)
      problem.index[i] = static_cast<char>(i % 4 < 2 ? 3 * (i % 2 == 0) : 255);
}

#if defined(KERNEL_LINEAR) || defined(KERNEL_SMALL)
#if defined(KERNEL_LINEAR)
constexpr Shape kShapes[] = {{35, 150, 500, 1, 1, 128, 128, 1, true, 0}, {7, 70, 300, 16, 4, 64, 3, 2, true, 0},
                             {9, 70, 300, 1, 16, 64, 8, 1, true, 0},     {9, 70, 300, 1, 8, 96, 8, 1, true, 0, 3},
                             {5, 66, 600, 1, 1, 512, 5, 1, false, 0},    {5, 66, 210, 4, 1, 96, 5, 1, false, 0},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 1},     {5, 64, 200, 4, 1, 128, 8, 1, true, 2},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 3},     {5, 64, 200, 4, 1, 128, 8, 1, true, 4},
                             {5, 64, 600, 4, 1, 512, 8, 1, true, 5}};

void launch_product(LaunchConfig config, LinearArguments args) {
  using Tile = sm80::Tile<32>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, Tile::kTokens));
  config.grid = dim3(static_cast<unsigned>(args.token_tiles * args.channel_tiles), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm80::group_lists<BFloat16, 32>, args);
}
#else
constexpr Shape kShapes[] = {{11, 70, 613, 2, 2, 16, 40, 1, true, 0},  {8, 66, 1501, 1, 1, 128, 100, 2, true, 0, 0},
                             {3, 66, 700, 1, 1, 512, 5, 1, false, 0},  {5, 70, 300, 4, 1, 96, 5, 1, false, 0, 3},
                             {3, 66, 700, 16, 4, 64, 3, 1, true, 0},   {8, 64, 600, 1, 32, 64, 8, 1, true, 0},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 1},   {5, 64, 200, 4, 1, 128, 8, 1, true, 2},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 3},   {5, 64, 200, 4, 1, 128, 8, 1, true, 4},
                             {5, 64, 2000, 1, 1, 1024, 8, 1, true, 5}, {5, 64, 200, 1, 1, 128, 8, 1, true, 6}};

template <int kRows>
void launch_rows(LaunchConfig config, LinearArguments args) {
  using Tile = sm80::SmallTile<kRows, 8>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, Tile::kTokens));
  config.grid = dim3(static_cast<unsigned>(args.token_tiles * args.channel_tiles), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm80::group_lists_small<BFloat16, kRows, 8>, args);
}
void launch_product(LaunchConfig config, LinearArguments args) {
  const auto begins_at_vector = [](const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 == 0; };
  args.value_vectors = begins_at_vector(args.lists.weight.values);
  args.index_vectors = begins_at_vector(args.lists.weight.index);
  args.span_panels = std::min(span_columns(8) / args.lists.weight.depth, kSpanPanels);
  args.panel_shares = panel_shares(args.lists.panels, args.splits, args.span_panels);
  args.channel_tiles = static_cast<int32_t>(ceil_div(args.p.n, kSmallTileChannels));
  switch (args.lists.weight.rows) {
    case 1: return launch_rows<1>(config, args);
    case 2: return launch_rows<2>(config, args);
    case 4: return launch_rows<4>(config, args);
    default: return launch_rows<8>(config, args);
  }
}
#endif

std::string run(const Shape& shape) {
  GroupOptions options;
  options.out_dtype = DType::kBFloat16;
  options.residual = true;
  options.list_offset = shape.list_offset;
  if (!shape.vectors) options.x_pad = 1;
  GroupProblem problem(shape.m, shape.n, shape.k, shape.rows, shape.cols, shape.depth, shape.window, options);
  LinearArguments args;
  args.p = problem.params(shape.splits);
  args.lists = lists_of(problem.weight(), shape.n, shape.k);
  args.row_vectors = has_row_vectors(args.lists.weight);
  args.splits = shape.splits;
  args.x_vectors = shape.vectors;
  args.y_vectors = true;
  args.channel_tiles = static_cast<int32_t>(ceil_div(shape.n, kTileChannels));
  spoil(problem, shape.damage);
  const int64_t infinite = shape.damage == 6 ? problem.make_infinite() : -1;
  LaunchConfig config;
  launch_product(config, args);
  if (shape.splits > 1) {
    config.grid = dim3(static_cast<unsigned>(shape.m),
                       static_cast<unsigned>(ceil_div(shape.n, cuda_linear::kChunk * cuda_linear::kFinishThreads)));
    config.block = dim3(cuda_linear::kFinishThreads);
    config.shared_bytes = 0;
    launch(config, cuda_linear::add_splits<float>, static_cast<cuda_linear::Arguments>(args));
  }
  if (problem.strayed()) return "something beside y was written";
  if (shape.damage && shape.damage < 6) return "";
  const int64_t wrong = infinite < 0 ? problem.first_wrong() : problem.first_wrong_but_for(infinite);
  return wrong < 0 ? ""
                   : "y[" + std::to_string(wrong / shape.n) + ", " + std::to_string(wrong % shape.n) + "] is wrong";
}
#else
constexpr Shape kShapes[] = {{5 * 64 + 3, 150, 300, 1, 1, 128, 128, 1, true, 0},
                             {70, 70, 130, 16, 4, 64, 3, 1, true, 0},
                             {70, 66, 210, 4, 1, 96, 5, 1, false, 0},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 1},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 2},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 3},
                             {5, 64, 200, 4, 1, 128, 8, 1, true, 4},
                             {5, 64, 600, 4, 1, 512, 8, 1, true, 5}};

std::string run(const Shape& shape) {
  GroupOptions options;
  if (!shape.vectors) options.x_pad = 1;
  GroupProblem problem(shape.m, shape.n, shape.k, shape.rows, shape.cols, shape.depth, shape.window, options);
  GradArguments args;
  args.p = problem.grad_params();
  args.lists = lists_of(problem.weight(), shape.n, shape.k);
  args.grad_y_vectors = args.x_vectors = shape.vectors;
  spoil(problem, shape.damage);
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(args.lists.panels * args.lists.panel_turns),
                     static_cast<unsigned>(ceil_div(shape.n, kTileChannels)));
  config.block = dim3(sm80::GradTile::kThreads);
  config.shared_bytes = sm80::kGradSharedBytes;
  launch(config, sm80::group_lists_grad<BFloat16>, args);
  if (problem.strayed_behind_gradient()) return "something behind the gradient was written";
  if (shape.damage) return "";
  const int64_t wrong = problem.first_wrong_gradient();
  return wrong < 0 ? "" : "gradient " + std::to_string(wrong) + " is wrong";
}
#endif

}  // namespace

int main() { return survive_adversaries(80, kShapes, run); }

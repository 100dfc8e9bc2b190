// Kernels of the gathered products under adversaries.h: compiled with -DKERNEL_TILED, _SMALL, _WGMMA, _GRADIENT,
// _UNPACK, _VNM, _VNM_SMALL, _VNM_WGMMA or _PICKED.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "cuda/common/launch.h"
#include "cuda/gathered/matmul_small_sm80.cuh"
#include "cuda/gathered/transpose_sm80.cuh"
#include "cuda/linear/finish_splits.cuh"
#include "cuda/shared_lists/unpack_sm80.cuh"
#include "cuda/shared_lists/weight_grad_sm80.cuh"
#include "cuda/shared_lists/weights_sm90.cuh"
#include "cuda/tests/mutations/adversaries.h"
#include "cuda/tests/vnm_problem.h"
#include "cuda/vnm/picked_sm90.cuh"
#include "cuda/vnm/weights_sm80.cuh"
#include "cuda/vnm/weights_sm90.cuh"

using namespace sparsecore;
using namespace sparsecore::gathered;

namespace {

struct Transposed {
  cuda_emulation::GlobalBuffer<uint16_t> xt;

  Transposed(const void* x, int64_t rows, int64_t columns, int64_t row_stride) : xt(columns * pitch_of(rows)) {
    TransposeArguments args;
    args.x = static_cast<const uint16_t*>(x);
    args.xt = xt.data();
    args.rows = rows;
    args.columns = columns;
    args.row_stride = row_stride;
    args.vectors = row_stride % 8 == 0;
    LaunchConfig config;
    config.grid = dim3(static_cast<unsigned>(ceil_div(rows, 64) * ceil_div(columns, 64)));
    config.block = dim3(256);
    config.shared_bytes = 2 * gathered::sm80::kTransposeTileBytes;
    launch(config, gathered::sm80::gathered_transpose<256>, args);
  }
};

enum class Kernel { kTiled, kSmall, kWgmma };

// kTokens tokens to a tile.
template <class Weights, int kTokens, Kernel kKernel, class Problem>
std::string check(Problem& problem, typename Weights::Arguments args, int64_t tiles, int splits) {
  problem.forget();
  args.linear.p = problem.params(cuda_linear::partial_sum_bytes(splits, problem.m, problem.n));
  args.linear.splits = splits;
  args.linear.channel_tiles = static_cast<int32_t>(tiles);
  Transposed x(args.linear.p.x, problem.m, problem.k, problem.x.stride);
  args.xt = x.xt.data();
  args.pitch = pitch_of(problem.m);
  LaunchConfig config;
  if constexpr (kKernel == Kernel::kSmall) {
    using Tile = gathered::sm80::SmallTile<Weights, kTokens>;
    config.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(splits));
    config.block = dim3(Tile::kThreads);
    config.shared_bytes = Tile::kSharedBytes;
    launch(config, gathered::sm80::gathered_matmul_small<Weights, kTokens>, args);
  } else if constexpr (kKernel == Kernel::kWgmma) {
    using Tile = gathered::sm90::Tile<Weights, kTokens>;
    const int works = static_cast<int>(tiles * ceil_div(problem.m, kTokens)) * splits;
    config.grid = dim3(2);  // blocks that take several works each
    config.block = dim3(Tile::kThreads);
    config.shared_bytes = Tile::kSharedBytes;
    launch(config, gathered::sm90::gathered_matmul<Weights, kTokens>, args, works);
  } else {
    using Tile = gathered::sm80::Tile<Weights, kTokens>;
    config.grid = dim3(static_cast<unsigned>(tiles * ceil_div(problem.m, kTokens)), static_cast<unsigned>(splits));
    config.block = dim3(Tile::kThreads);
    config.shared_bytes = Tile::kSharedBytes;
    launch(config, gathered::sm80::gathered_matmul<Weights, kTokens>, args);
  }
  if (splits > 1) {
    config.grid = dim3(static_cast<unsigned>(problem.m), 1);
    config.block = dim3(cuda_linear::kFinishThreads);
    config.shared_bytes = 0;
    launch(config, cuda_linear::add_splits<float>, args.linear);
  }
  if (problem.strayed()) return "something beside y was written";
  const int64_t wrong = problem.first_wrong();
  return wrong < 0 ? "" : "element " + std::to_string(wrong) + " of y is wrong";
}

#if defined(KERNEL_TILED) || defined(KERNEL_SMALL)
#if defined(KERNEL_TILED)
constexpr int kTokens = 64;
constexpr Kernel kKernel = Kernel::kTiled;
constexpr int64_t kMany = 70, kFew = 9, kInputs = 859;
#else
constexpr int kTokens = 8;
constexpr Kernel kKernel = Kernel::kSmall;
constexpr int64_t kMany = 8, kFew = 3, kInputs = 857;
#endif
template <int kSlices>
std::string run(const SharedListsShape& shape, int splits, int64_t pad) {
  SharedListsProblem<BFloat16> problem(shape, 0, pad);
  cuda_shared_lists::MatmulArguments args;
  args.weight = problem.weight();
  if (shape.n == 40) problem.columns[1] = 72;  // the page behind x; the answer is not looked at
  if (shape.n == 40) problem.group_ptr[1] = 1 << 30;
  std::string wrong = check<cuda_shared_lists::sm80::Weights<BFloat16, kSlices>, kTokens, kKernel>(
      problem, args, problem.groups, splits);
  return shape.n == 40 ? "" : wrong;
}
// 128 records end where the page of columns does, and the last list in the middle of a turn; the answer is not looked
// at.
void run_to_the_end_of_a_page() {
  SharedListsProblem<BFloat16> problem({kFew, 20, 70, 16});
  cuda_emulation::GlobalBuffer<uint16_t> columns(128);
  cuda_emulation::GlobalBuffer<BFloat16> values(128 * 16);
  cuda_emulation::GlobalBuffer<int32_t> group_ptr(3);
  for (uint16_t& column : columns) column = 1;
  group_ptr[0] = 0, group_ptr[1] = 100, group_ptr[2] = 128;
  cuda_shared_lists::MatmulArguments args;
  args.weight = {values.data(), columns.data(), group_ptr.data(), 128, 16};
  check<cuda_shared_lists::sm80::Weights<BFloat16, 1>, kTokens, kKernel>(problem, args, 2, 1);
}
std::string run() {
  run_to_the_end_of_a_page();
  std::string wrong = run<1>({kFew, 37, 1300, 16}, 1, 0);
  // x ends where its page does.
  if (wrong.empty()) wrong = run<1>({kMany, 21, kInputs, 8}, 2, 1);
  if (wrong.empty()) wrong = run<4>({kFew, 90, 500, 64}, 2, 3);
  if (wrong.empty()) wrong = run<1>({kFew, 40, 70, 16}, 1, 0);
  return wrong;
}
#elif defined(KERNEL_VNM) || defined(KERNEL_VNM_SMALL)
#if defined(KERNEL_VNM)
constexpr int kTokens = 64;
constexpr Kernel kKernel = Kernel::kTiled;
#else
constexpr int kTokens = 8;
constexpr Kernel kKernel = Kernel::kSmall;
#endif
template <int kSlices>
std::string run(const VnmShape& shape, int splits) {
  VnmProblem<BFloat16> problem(shape);
  cuda_vnm::MatmulArguments args;
  args.weight = problem.weight();
  args.k_blocks = ceil_div(problem.picked, cuda_vnm::kBlockInputs);
  return check<cuda_vnm::sm80::Weights<BFloat16, kSlices>, kTokens, kKernel>(problem, args,
                                                                             ceil_div(shape.n, 16 * kSlices), splits);
}
std::string run() {
  std::string wrong = run<1>({7, 90, 1300, 16, 8}, 1);
  if (wrong.empty()) wrong = run<4>({5, 150, 600, 128, 5}, 2);
  return wrong;
}
#elif defined(KERNEL_WGMMA)
std::string run(const SharedListsShape& shape, int splits) {
  SharedListsProblem<BFloat16> problem(shape);
  cuda_shared_lists::MatmulArguments args;
  args.weight = problem.weight();
  return check<cuda_shared_lists::sm90::Weights<BFloat16>, 128, Kernel::kWgmma>(problem, args, problem.groups, splits);
}
std::string run() {
  std::string wrong = run({130, 70, 2100, 64}, 1);
  if (wrong.empty()) wrong = run({70, 100, 500, 64}, 2);
  return wrong;
}
#elif defined(KERNEL_VNM_WGMMA)
template <int kGroups>
std::string run(const VnmShape& shape, int splits) {
  VnmProblem<BFloat16> problem(shape);
  cuda_vnm::MatmulArguments args;
  args.weight = problem.weight();
  args.k_blocks = ceil_div(problem.picked, cuda_vnm::kBlockInputs);
  return check<cuda_vnm::sm90::Weights<BFloat16, kGroups>, 128, Kernel::kWgmma>(
      problem, args, ceil_div(shape.n, 64 * kGroups), splits);
}
std::string run() {
  std::string wrong = run<1>({70, 100, 700, 64, 5}, 1);
  if (wrong.empty()) wrong = run<2>({70, 190, 900, 128, 8}, 2);
  return wrong;
}
#elif defined(KERNEL_PICKED)
// `blocks` in clusters of `cluster`, which take several works each. Some tokens are NaN, and so are sums that a warp
// stages last: other tokens have nothing of that.
template <int kSlices>
std::string run(const VnmShape& shape, int splits, int blocks, int cluster) {
  using Tile = cuda_vnm::sm90::PickedTile<kSlices>;
  VnmProblem<BFloat16> problem(shape);
  problem.forget();
  for (int64_t token = 48; token < std::min<int64_t>(problem.m, 128); token += 48)
    for (int64_t i = 0; i < problem.k; ++i) problem.x.set(token, i, std::numeric_limits<float>::quiet_NaN());
  cuda_vnm::MatmulArguments args;
  args.weight = problem.weight();
  args.k_blocks = ceil_div(problem.picked, cuda_vnm::kBlockInputs);
  args.group = static_cast<int32_t>(shape.group);
  args.linear.p = problem.params(cuda_linear::partial_sum_bytes(splits, problem.m, problem.n));
  args.linear.splits = splits;
  args.linear.token_tiles = static_cast<int32_t>(ceil_div(problem.m, Tile::kTokens));
  args.linear.channel_tiles = static_cast<int32_t>(ceil_div(problem.n, Tile::kChannels * cluster));
  Transposed x(args.linear.p.x, problem.m, problem.k, problem.x.stride);
  args.pitch = pitch_of(problem.m);
  TensorShape rows;
  rows.address = x.xt.data();
  rows.sizes[0] = args.pitch;
  rows.sizes[1] = problem.k;
  rows.strides[1] = 2 * args.pitch;
  rows.box[0] = cuda_vnm::sm90::kHalfTokens;
  rows.box[1] = static_cast<uint32_t>(cuda_vnm::sm90::window_inputs(args.group) / cluster);
  TensorMap map;
  make_tensor_map(rows, &map);
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(blocks));
  config.block = dim3(Tile::kThreads);
  config.cluster = dim3(static_cast<unsigned>(cluster));
  config.shared_bytes = Tile::shared_bytes(args.group);
  const int works = args.linear.token_tiles * args.linear.channel_tiles * splits;
  launch(config, cuda_vnm::sm90::picked_matmul<BFloat16, kSlices>, args, map, works);
  if (splits > 1) {
    config.grid = dim3(static_cast<unsigned>(problem.m), 1);
    config.block = dim3(cuda_linear::kFinishThreads);
    config.cluster = dim3(1);
    config.shared_bytes = 0;
    launch(config, cuda_linear::add_splits<float>, args.linear);
  }
  for (int64_t token = 48; token < std::min<int64_t>(problem.m, 128); token += 48)
    for (int64_t o = 0; o < problem.n; ++o) {
      if (!std::isnan(problem.y.get(token, o))) return "a token that is NaN has a sum";
      problem.y.set(token, o, static_cast<float>(problem.expected[token * problem.n + o]));
    }
  if (problem.strayed()) return "something beside y was written";
  const int64_t wrong = problem.first_wrong();
  return wrong < 0 ? "" : "element " + std::to_string(wrong) + " of y is wrong";
}
std::string run() {
  std::string wrong = run<4>({140, 300, 1000, 64, 8}, 1, 2, 2);
  // The lists end where their page does, and the last one in the middle of a block.
  if (wrong.empty()) wrong = run<2>({130, 256, 448, 32, 16}, 2, 2, 1);
  if (wrong.empty()) wrong = run<2>({9, 512, 224, 32, 8}, 1, 1, 1);
  return wrong;
}
#elif defined(KERNEL_GRADIENT)
std::string run(const SharedListsShape& shape) {
  SharedListsProblem<BFloat16> problem(shape);
  std::mt19937 random(5);
  const int64_t stride = ceil_div(shape.n, 8) * 8;
  cuda_emulation::GlobalBuffer<BFloat16> grad((shape.m - 1) * stride + shape.n);
  std::vector<float> grads(shape.m * shape.n);
  for (int64_t t = 0; t < shape.m; ++t)
    for (int64_t o = 0; o < shape.n; ++o)
      narrow(grads[t * shape.n + o] = static_cast<float>(static_cast<int>(random() % 9) - 4), &grad[t * stride + o]);
  Transposed grad_y(grad.data(), shape.m, shape.n, stride);
  Transposed x(problem.x.data(), shape.m, shape.k, problem.x.stride);
  cuda_emulation::GlobalBuffer<float> out(problem.columns.size() * shape.vector);
  cuda_shared_lists::WeightGradArguments args;
  args.weight = problem.weight();
  args.grad_yt = grad_y.xt.data();
  args.xt = x.xt.data();
  args.out = out.data();
  args.n = shape.n;
  args.k = shape.k;
  args.pitch = pitch_of(shape.m);
  using Tile = cuda_shared_lists::sm80::GradTile<1>;
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(problem.groups), 2);
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, cuda_shared_lists::sm80::shared_lists_weight_grad<BFloat16, 1>, args);
  for (int64_t g = 0; g < problem.groups; ++g)
    for (int64_t r = problem.group_ptr[g]; r < problem.group_ptr[g + 1]; ++r)
      for (int v = 0; v < shape.vector; ++v) {
        double sum = 0;
        if (g * shape.vector + v < shape.n)
          for (int64_t t = 0; t < shape.m; ++t)
            sum +=
                static_cast<double>(grads[t * shape.n + g * shape.vector + v]) * problem.x.get(t, problem.columns[r]);
        if (!(out[r * shape.vector + v] == sum)) return "the gradient of record " + std::to_string(r) + " is wrong";
      }
  return "";
}
std::string run() {
  std::string wrong = run({300, 37, 700, 16});
  if (wrong.empty()) wrong = run({9, 21, 400, 8});
  return wrong;
}
#else
std::string run() {
  SharedListsProblem<BFloat16> problem({1, 37, 1300, 16});
  const SharedListsShape& shape = problem.shape;
  cuda_emulation::GlobalBuffer<uint16_t> dense(shape.n * shape.k);
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(problem.groups * ceil_div(shape.k, cuda_shared_lists::sm80::kUnpackWindow)));
  config.block = dim3(cuda_shared_lists::sm80::kUnpackThreads);
  config.shared_bytes = cuda_shared_lists::sm80::kUnpackWindow * 4;
  const cuda_shared_lists::UnpackArguments args{problem.weight(), dense.data(), shape.n, shape.k};
  launch(config, cuda_shared_lists::sm80::shared_lists_unpack<uint16_t>, args);
  for (int64_t i = 0; i < shape.n * shape.k; ++i)
    if (!(widen(BFloat16{dense[i]}) == problem.dense[i])) return "element " + std::to_string(i) + " is wrong";
  // Columns that do not ascend: bisection lands anywhere, and nothing outside of the window's places is written.
  for (size_t i = 0; i < problem.columns.size(); ++i) problem.columns[i] = static_cast<uint16_t>(i * 40503u);
  launch(config, cuda_shared_lists::sm80::shared_lists_unpack<uint16_t>, args);
  return "";
}
#endif

#if defined(KERNEL_WGMMA) || defined(KERNEL_VNM_WGMMA) || defined(KERNEL_PICKED)
constexpr int kCapability = 90;
#else
constexpr int kCapability = 80;
#endif

}  // namespace

int main() {
  constexpr int kOnce[] = {0};
  return survive_adversaries(kCapability, kOnce, [](int) { return run(); });
}

// Kernels of the block-sparse family under adversaries.h: compiled with -DKERNEL_LINEAR, _SMALL, _TRANSPOSED,
// _SMALL_TRANSPOSED, _WGMMA, _GRAD, _WGMMA_GRAD or _VALIDATE.
#include <string>

#include "cuda/common/launch.h"
#include "cuda/linear/finish_splits.cuh"
#include "cuda/tests/block_sparse_problem.h"
#include "cuda/tests/mutations/adversaries.h"
#if defined(KERNEL_LINEAR) || defined(KERNEL_TRANSPOSED)
#include "cuda/block_sparse/linear_sm80.cuh"
#elif defined(KERNEL_SMALL) || defined(KERNEL_SMALL_TRANSPOSED)
#include "cuda/block_sparse/linear_small_sm80.cuh"
#elif defined(KERNEL_WGMMA)
#include "cuda/block_sparse/linear_sm90.cuh"
#include "cuda/common/tensor_map.h"
#elif defined(KERNEL_GRAD) || defined(KERNEL_WGMMA_GRAD)
#include "cuda/block_sparse/weight_grad_sm80.cuh"
#include "cuda/block_sparse/weight_grad_sm90.cuh"
#include "cuda/common/tensor_map.h"
#else
#include "cuda/block_sparse/validate_sm80.cuh"
#endif

using namespace sparsecore;
using namespace sparsecore::block_sparse;

namespace {

struct Shape {
  int64_t m, n, k;
  int32_t size;
  int splits;
  bool vectors;
  int damage;  // 0: none; 6 and 7: infinite x or weights behind a row of blocks
};

#if defined(KERNEL_LINEAR) || defined(KERNEL_SMALL) || defined(KERNEL_TRANSPOSED) || \
    defined(KERNEL_SMALL_TRANSPOSED) || defined(KERNEL_WGMMA)
#if defined(KERNEL_SMALL)
constexpr bool kTransposed = false;
constexpr Shape kShapes[] = {{19, 37, 90 * 16 + 5, 16, 1, true, 0}, {3, 150, 11 * 128 - 2, 128, 2, true, 0},
                             {5, 70, 38 * 32 - 3, 32, 1, false, 0}, {17, 130, 9 * 64 - 5, 64, 1, true, 0},
                             {5, 64, 96, 16, 1, true, 1},           {5, 64, 96, 16, 1, true, 2},
                             {5, 64, 96, 16, 1, true, 3},           {5, 64, 96, 16, 1, true, 4},
                             {5, 320, 112, 16, 1, true, 6}};
#elif defined(KERNEL_LINEAR)
constexpr bool kTransposed = false;
constexpr int kTokens = 32;
constexpr Shape kShapes[] = {{35, 37, 40 * 16 + 5, 16, 1, true, 0}, {3, 150, 7 * 128 - 2, 128, 2, true, 0},
                             {5, 70, 12 * 32 - 3, 32, 1, false, 0}, {5, 16, 48, 16, 1, true, 0},
                             {5, 64, 96, 16, 1, true, 1},           {5, 64, 96, 16, 1, true, 2},
                             {5, 64, 96, 16, 1, true, 3},           {5, 64, 96, 16, 1, true, 4}};
#elif defined(KERNEL_WGMMA)
constexpr int kTokens = 64;
constexpr Shape kShapes[] = {{131, 160, 9 * 64 + 5, 64, 1, true, 0},
                             {130, 280, 5 * 128 - 2, 128, 2, true, 0},
                             {5, 256, 384, 64, 1, true, 2},
                             {5, 256, 384, 64, 1, true, 4}};
#elif defined(KERNEL_SMALL_TRANSPOSED)
constexpr bool kTransposed = true;
constexpr Shape kShapes[] = {{19, 37, 90 * 16 + 5, 16, 1, true, 0}, {3, 150, 11 * 128 - 2, 128, 2, true, 0},
                             {17, 130, 9 * 64 - 5, 64, 1, true, 0}, {5, 70, 38 * 32 - 3, 32, 1, false, 0},
                             {5, 64, 96, 16, 1, true, 5},           {5, 320, 112, 16, 1, true, 6},
                             {5, 320, 112, 16, 1, true, 7}};
#else
constexpr bool kTransposed = true;
constexpr int kTokens = 128;
constexpr Shape kShapes[] = {{130, 37, 20 * 16 + 5, 16, 1, true, 0},
                             {3, 150, 5 * 128 - 2, 128, 2, true, 0},
                             {5, 70, 12 * 32 - 3, 32, 1, false, 0},
                             {5, 64, 96, 16, 1, true, 5}};
#endif

template <int kSize, bool kTransposed>
void launch_linear(LinearArguments args) {
  LaunchConfig config;
#if defined(KERNEL_WGMMA)
  // Two blocks: each for itself, or, of blocks of 128, a cluster that takes all works.
  constexpr int kTokensOfTile = kSize == 64 ? 256 : 128, kCluster = kSize / 64;
  using Tile = sm90::Tile<kSize, kTokensOfTile>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, Tile::kTokens * kCluster));
  TensorShape shape;
  shape.address = args.p.x;
  shape.sizes[0] = static_cast<uint64_t>(args.p.k);
  shape.sizes[1] = static_cast<uint64_t>(args.p.m);
  shape.strides[1] = static_cast<uint64_t>(2 * args.p.x_row_stride);
  shape.box[0] = 64;
  shape.box[1] = Tile::kTokens;
  TensorMap x, values;
  make_tensor_map(shape, &x);
  shape.address = args.weight.values;
  shape.sizes[0] = kSize;
  shape.sizes[1] = static_cast<uint64_t>(args.weight.blocks * kSize);
  shape.strides[1] = 2 * kSize;
  shape.box[1] = 64;
  make_tensor_map(shape, &values);
  config.grid = dim3(2);
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.cluster = dim3(kCluster);
  launch(config, sm90::linear<BFloat16, kSize, kTokensOfTile, kTransposed>, args, x, values,
         args.token_tiles * args.rows * args.splits);
#elif defined(KERNEL_SMALL) || defined(KERNEL_SMALL_TRANSPOSED)
  constexpr int kTokens = kSize == 128 ? 8 : 16, kChannels = small_channels(kSize);
  using Tile = sm80::SmallTile<kChannels, kTokens>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, kTokens));
  config.grid = dim3(static_cast<unsigned>(args.token_tiles * args.rows * (kSize / kChannels)),
                     static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm80::linear_small<BFloat16, kChannels, kTokens, kTransposed>, args);
#else
  using Tile = sm80::Tile<kSize, kTokens>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, kTokens));
  config.grid = dim3(static_cast<unsigned>(args.token_tiles * args.rows), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm80::linear<BFloat16, kSize, kTokens, kTransposed>, args);
#endif
}

template <bool kTransposed>
std::string check(const Shape& shape) {
  BlockOptions options;
  options.out_dtype = DType::kBFloat16;
  options.residual = true;
  options.transposed = kTransposed;
  options.density = shape.damage >= 6 ? 0.4 : 0.8;
  if (!shape.vectors) options.x_pad = 1;
  BlockProblem problem(shape.m, shape.n, shape.k, shape.size, options);
  problem.forget();
  LinearArguments args;
  args.splits = shape.splits;
  args.p = problem.params(cuda_linear::partial_sum_bytes(shape.splits, shape.m, shape.n));
  args.weight = problem.index.weight(problem.values.data(), shape.size);
  args.rows = static_cast<int32_t>(problem.used.rows);
  args.x_vectors = shape.vectors;
  args.y_vectors = true;
  // The entry behind a row with an odd number of them, which lacks its column.
  int32_t behind = -1;
  int64_t row_behind = 0;
  for (; shape.damage >= 6 && behind < 0 && row_behind + 1 < problem.used.rows; ++row_behind) {
    const int32_t first = problem.used.starts[row_behind], end = problem.used.starts[row_behind + 1];
    if (end == static_cast<int32_t>(problem.used.index.size())) break;
    if ((end - first) % 2 && !problem.keeps(row_behind, problem.used.index[end])) behind = end;
  }
  if (shape.damage >= 6 && behind < 0) return "no row with an odd number of blocks lacks the one behind it";
  while (behind >= problem.used.starts[row_behind + 1]) ++row_behind;  // to its own row
  const int64_t column = behind < 0 ? -1 : problem.used.index[behind];
  if (shape.damage == 6) problem.make_infinite(column);
  if (shape.damage == 7) problem.make_entry_infinite(behind);
  switch (shape.damage) {
    case 1: problem.index.starts[1] = INT32_MIN; break;
    case 2: problem.index.starts[3] = INT32_MAX; break;
    case 3: problem.index.index[0] = INT32_MIN, problem.index.index[1] = INT32_MAX; break;
    case 4: problem.index.order[0] = -1, problem.index.order[1] = INT32_MAX; break;
    case 5: problem.index.source[0] = INT32_MIN, problem.index.source[1] = INT32_MAX; break;
  }
#if defined(KERNEL_WGMMA)
  shape.size == 64 ? launch_linear<64, kTransposed>(args) : launch_linear<128, kTransposed>(args);
#else
  shape.size == 16   ? launch_linear<16, kTransposed>(args)
  : shape.size == 32 ? launch_linear<32, kTransposed>(args)
  : shape.size == 64 ? launch_linear<64, kTransposed>(args)
                     : launch_linear<128, kTransposed>(args);
#endif
  if (shape.splits > 1) {
    LaunchConfig config;
    config.grid = dim3(static_cast<unsigned>(shape.m),
                       static_cast<unsigned>(ceil_div(shape.n, cuda_linear::kChunk * cuda_linear::kFinishThreads)));
    config.block = dim3(cuda_linear::kFinishThreads);
    launch(config, cuda_linear::add_splits<float>, static_cast<cuda_linear::Arguments>(args));
  }
  if (problem.strayed()) return "something beside y was written";
  if (shape.damage && shape.damage < 6) return "";
  const int64_t wrong = shape.damage == 6   ? problem.first_wrong_without(column)
                        : shape.damage == 7 ? problem.first_wrong_without_row(row_behind)
                                            : problem.first_wrong(0);
  return wrong < 0 ? ""
                   : "y[" + std::to_string(wrong / shape.n) + ", " + std::to_string(wrong % shape.n) + "] is wrong";
}

std::string run(const Shape& shape) {
#if defined(KERNEL_WGMMA)
  const std::string said = check<false>(shape);
  return said.empty() ? check<true>(shape) : said;
#else
  return check<kTransposed>(shape);
#endif
}
#elif defined(KERNEL_GRAD) || defined(KERNEL_WGMMA_GRAD)
#if defined(KERNEL_WGMMA_GRAD)
constexpr Shape kShapes[] = {{5 * 32 + 7, 6 * 64 + 5, 5 * 64 - 3, 64, 2, true, 0},
                             {4 * 64 + 7, 4 * 128 + 5, 3 * 128 - 3, 128, 1, true, 0},
                             {33, 12 * 64, 64, 64, 1, true, 0},
                             {33, 6 * 128, 128, 128, 1, true, 0},
                             {9, 4 * 64, 6 * 64, 64, 2, true, 0},
                             {33, 9 * 64, 10 * 64, 64, 3, true, 0},
                             {40, 4 * 64, 6 * 64, 64, 1, true, 1},
                             {40, 4 * 64, 6 * 64, 64, 1, true, 2}};
#else
constexpr Shape kShapes[] = {{6 * 64 + 7, 37, 85, 16, 2, true, 0}, {9 * 64 - 3, 150, 253, 128, 2, true, 0},
                             {7 * 64 - 5, 70, 61, 32, 1, true, 0}, {70, 70, 61, 32, 1, false, 0},
                             {70, 64, 96, 16, 1, true, 1},         {70, 64, 96, 16, 1, true, 2}};
#endif

template <int kSize>
void launch_grad(const GradArguments& args) {
  LaunchConfig config;
#if defined(KERNEL_WGMMA_GRAD)
  using Tile = sm90::GradTile<kSize>;
  const auto map = [&](const void* data, int64_t columns, int64_t row_stride) {
    TensorShape shape;
    shape.address = data;
    shape.sizes[0] = static_cast<uint64_t>(columns);
    shape.sizes[1] = static_cast<uint64_t>(args.p.m);
    shape.strides[1] = static_cast<uint64_t>(2 * row_stride);
    shape.box[0] = 64;
    shape.box[1] = Tile::kTokens;
    TensorMap result;
    make_tensor_map(shape, &result);
    return result;
  };
  config.grid = dim3(2);
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm90::weight_grad<BFloat16, kSize>, args, map(args.p.grad_y, args.p.n, args.p.grad_y_row_stride),
         map(args.p.x, args.p.k, args.p.x_row_stride),
         static_cast<int>(ceil_div(args.p.weight.blocks, Tile::kEntries)));
#else
  using Tile = sm80::GradTile<kSize>;
  config.grid = dim3(static_cast<unsigned>(args.p.weight.blocks), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm80::weight_grad<BFloat16, kSize>, args);
#endif
}

std::string run(const Shape& shape) {
  BlockGradProblem problem(shape.m, shape.n, shape.k, shape.size, DType::kBFloat16, DType::kFloat32, 0,
                           shape.vectors ? 0 : 1, 3);
  GradArguments args;
  args.splits = shape.splits;
  args.p = problem.params(shape.splits);
  args.rows = static_cast<int32_t>(problem.host.rows);
  args.grad_y_vectors = args.x_vectors = shape.vectors;
  if (shape.damage == 1) problem.index.starts[1] = INT32_MIN, problem.index.starts[2] = INT32_MAX;
  if (shape.damage == 2) problem.index.index[0] = INT32_MIN, problem.index.index[1] = INT32_MAX;
#if defined(KERNEL_WGMMA_GRAD)
  shape.size == 64 ? launch_grad<64>(args) : launch_grad<128>(args);
#else
  shape.size == 16 ? launch_grad<16>(args) : shape.size == 32 ? launch_grad<32>(args) : launch_grad<128>(args);
#endif
  if (shape.splits > 1) {
    const int64_t chunks = args.p.weight.blocks * shape.size * shape.size / cuda_linear::kChunk;
    LaunchConfig config;
    config.grid = dim3(static_cast<unsigned>(ceil_div(chunks, sm80::kGradFinishThreads)));
    config.block = dim3(sm80::kGradFinishThreads);
    launch(config, sm80::add_grad_splits, args, chunks);
  }
  if (problem.strayed()) return "something behind the gradient was written";
  if (shape.damage) return "";
  const int64_t wrong = problem.first_wrong();
  return wrong < 0 ? "" : "gradient " + std::to_string(wrong) + " is wrong";
}
#else
constexpr Shape kShapes[] = {{}};

std::string run(const Shape&) {
  const BlockIndex host = BlockProblem::draw(600, 7, 0.5, 1), mirrored = host.transposed();
  const int32_t blocks = static_cast<int32_t>(host.index.size());
  int32_t row = 2;
  while (host.starts[row + 1] - host.starts[row] < 2) ++row;
  const int32_t entry = host.starts[row];
  for (int damage = 0; damage < 19; ++damage) {
    DeviceIndex index(host), other(mirrored);
    sm80::ValidateArguments args{};
    args.rows = 600;
    args.columns = 7;
    int64_t want[2] = {0, -1};
    const auto expect = [&](BlockSparseFault fault, int64_t place) {
      want[0] = static_cast<int64_t>(fault);
      want[1] = place;
    };
    switch (damage) {
      case 1: index.starts[0] = 1, expect(BlockSparseFault::kStarts, 0); break;
      case 2: index.starts[600] = blocks + 1, expect(BlockSparseFault::kStarts, 599); break;
      case 3: index.starts[row + 1] = -7, expect(BlockSparseFault::kStarts, row); break;
      case 4: index.index[entry + 1] = 7, expect(BlockSparseFault::kIndex, entry + 1); break;
      case 5: index.index[entry + 1] = index.index[entry], expect(BlockSparseFault::kIndex, entry + 1); break;
      case 6: index.index[blocks - 1] = -1, expect(BlockSparseFault::kIndex, blocks - 1); break;
      case 7: index.order[5] = index.order[4], expect(BlockSparseFault::kOrder, 5); break;
      case 8: index.order[0] = 600, expect(BlockSparseFault::kOrder, 0); break;
      case 9: std::swap(index.order[0], index.order[599]), expect(BlockSparseFault::kOrder, 1); break;
      case 10: other.starts[0] = 1, expect(BlockSparseFault::kTransposed, 0); break;
      case 11: other.index[0] = 600, expect(BlockSparseFault::kTransposed, 0); break;
      case 12: std::swap(other.source[3], other.source[4]), expect(BlockSparseFault::kSource, 3); break;
      case 13: other.source[0] = -1, expect(BlockSparseFault::kSource, 0); break;
      case 14: other.source[blocks - 1] = blocks, expect(BlockSparseFault::kSource, blocks - 1); break;
      case 15:  // of several the first, which lies in another thread's share than the others
        index.index[blocks - 1] = -1, index.index[entry + 1] = 9, index.order[3] = -1;
        expect(BlockSparseFault::kIndex, entry + 1);
        break;
      case 17:  // the same row's next column
        for (int32_t j = 0; j < blocks; ++j)
          if (mirrored.source[j] == entry) other.source[j] = entry + 1, expect(BlockSparseFault::kSource, j);
        break;
      case 18:
        for (int32_t r = row; r < 600; ++r) index.starts[r + 1] = INT32_MAX;
        for (int32_t j = 0; j < blocks; ++j) other.source[j] = INT32_MAX - 1;
        expect(BlockSparseFault::kStarts, 599);
        break;
      case 16: {  // a row that is longer, and comes after one that is shorter
        int32_t place = 1;
        while (host.starts[host.order[place] + 1] - host.starts[host.order[place]] ==
               host.starts[host.order[place - 1] + 1] - host.starts[host.order[place - 1]])
          ++place;
        std::swap(index.order[place], index.order[place - 1]);
        expect(BlockSparseFault::kOrder, place);
        break;
      }
    }
    args.weight = index.weight(nullptr, 16);
    args.transposed = other.weight(nullptr, 16);
    args.has_transposed = true;
    cuda_emulation::GlobalBuffer<int64_t> where(2);
    args.where = where.data();
    LaunchConfig config;
    config.grid = dim3(1);
    config.block = dim3(sm80::kValidateThreads);
    config.shared_bytes = sm80::kValidateThreads * 8;
    launch(config, sm80::validate, args);
    if (where[0] != want[0] || where[1] != want[1]) return "fault " + std::to_string(damage) + " is not named";
  }
  return "";
}
#endif

}  // namespace

int main() {
#if defined(KERNEL_WGMMA) || defined(KERNEL_WGMMA_GRAD)
  constexpr int kCapability = 90;
#else
  constexpr int kCapability = 80;
#endif
  return survive_adversaries(kCapability, kShapes, run);
}

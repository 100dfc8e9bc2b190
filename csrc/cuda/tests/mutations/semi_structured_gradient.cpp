// Kernels of the gradients of 2:4 weights under adversaries.h: compiled with -DKERNEL_SAMPLED, _GATHER or _STRAIGHT.
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cuda/common/launch.h"
#include "cuda/semi_structured/gradient_sm80.cuh"
#include "cuda/tests/mutations/adversaries.h"

using namespace sparsecore;
using namespace sparsecore::semi_structured;
using cuda_emulation::GlobalBuffer;

namespace {

struct Shape {
  int64_t m, n, k;
  bool vectors;
};
constexpr Shape kShapes[] = {{165, 70, 200, true}, {40, 130, 67, false}, {3, 64, 130, true}, {0, 3, 5, false}};

uint16_t encode(int value) { return ptx::from_float<BFloat16>(static_cast<float>(value)).bits; }
int decode(uint16_t bits) { return static_cast<int>(ptx::to_float(BFloat16{bits})); }

// Whole numbers, in rows that begin at multiples of 16 bytes or nowhere in particular.
struct Matrix {
  int64_t columns, stride;
  GlobalBuffer<uint16_t> memory;
  Matrix(int64_t rows, int64_t columns, bool vectors, unsigned seed, int most)
      : columns(columns),
        stride(ceil_div(columns, 8) * 8 + (vectors ? 0 : 1)),
        memory(rows ? (rows - 1) * stride + columns : 1) {
    std::mt19937 random(seed);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column)
        memory[row * stride + column] = encode(static_cast<int>(random() % (2 * most + 1)) - most);
  }
  int at(int64_t row, int64_t column) { return decode(memory[row * stride + column]); }
};

// Packed by the host from a random mask of at most two of four.
struct Packed {
  std::vector<uint16_t> rows;
  std::vector<uint8_t> mask;
  GlobalBuffer<char> values;
  GlobalBuffer<uint32_t> metadata;
  Packed(Matrix& dense, int64_t n, int64_t k)
      : rows(n * k),
        mask(n * k),
        values(semi_structured_value_bytes(n, k, DType::kBFloat16)),
        metadata(semi_structured_metadata_words(n, k, DType::kBFloat16)) {
    std::mt19937 random(5);
    for (int64_t o = 0; o < n; ++o)
      for (int64_t i = 0; i < k; ++i) {
        rows[o * k + i] = encode(dense.at(o, i));
        int before = 0;
        for (int64_t j = i / 4 * 4; j < i; ++j) before += mask[o * k + j];
        mask[o * k + i] = before < 2 && random() % 2;
      }
    semi_structured_pack(rows.data(), DType::kBFloat16, mask.data(), n, k, values.data(), metadata.data());
  }
  // By the places alone: whether `values` holds at each of them what `expected(channel, input)` says, zero outside.
  template <class Expected>
  std::string compare(GlobalBuffer<char>& got, int64_t n, int64_t k, Expected expected) {
    const int64_t k_blocks = ceil_div(k, 64), units = static_cast<int64_t>(values.size()) / 4;
    for (int64_t u = 0; u < units; ++u) {
      const int64_t slice = u / 256, step = u / 128 % 2, lane = u / 4 % 32, reg = u % 4, g = lane / 4, t = lane % 4;
      const int64_t h = reg % 2, b = reg / 2, block = slice / 4;
      const int64_t channel = block / k_blocks * 64 + slice % 4 * 16 + g + 8 * h;
      const int64_t input = block % k_blocks * 64 + (8 * step + 4 * b + t) * 4;
      const uint32_t code = metadata[slice * 32 + 4 * g + 2 * step + b] >> (16 * h + 4 * t) & 15;
      for (int i = 0; i < 2; ++i) {
        const int64_t at = input + (code >> (2 * i) & 3);
        uint16_t bits;
        std::memcpy(&bits, got.data() + (u * 2 + i) * 2, 2);
        const int want = channel < n && at < k ? expected(channel, at) : 0;
        if (bits != encode(want)) return "values are wrong";
      }
    }
    return "";
  }
};

#if defined(KERNEL_SAMPLED)
std::string run(const Shape& shape) {
  Matrix dense(shape.n, shape.k, true, 1, 3), grad(shape.m, shape.n, shape.vectors, 2, 1);
  Matrix x(shape.m, shape.k, shape.vectors, 3, 1);
  Packed packed(dense, shape.n, shape.k);
  GlobalBuffer<char> got(packed.values.size());
  using Tile = sm80::SampledTile;
  sm80::SampledArguments args;
  args.grad.p.x = grad.memory.data();
  args.grad.p.k = shape.n;
  args.grad.p.x_row_stride = grad.stride;
  args.x.p.x = x.memory.data();
  args.x.p.k = shape.k;
  args.x.p.x_row_stride = x.stride;
  args.grad.p.m = args.x.p.m = shape.m;
  args.grad.x_vectors = args.x.x_vectors = shape.vectors;
  args.metadata = packed.metadata.data();
  args.values = got.data();
  args.n_blocks = ceil_div(shape.n, 64);
  args.k_blocks = ceil_div(shape.k, 64);
  args.input_tiles = static_cast<uint32_t>(ceil_div(args.k_blocks, 2));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(args.n_blocks, 2) * args.input_tiles));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  launch(config, sm80::sampled<BFloat16>, args);
  return packed.compare(got, shape.n, shape.k, [&](int64_t channel, int64_t input) {
    int sum = 0;
    for (int64_t t = 0; t < shape.m; ++t) sum += grad.at(t, channel) * x.at(t, input);
    return sum;
  });
}
#elif defined(KERNEL_GATHER)
std::string run(const Shape& shape) {
  Matrix dense(shape.n, shape.k, true, 1, 3), other(shape.n, shape.k, shape.vectors, 2, 100);
  Packed packed(dense, shape.n, shape.k);
  GlobalBuffer<char> got(packed.values.size());
  sm80::GatherArguments args;
  args.dense = other.memory.data();
  args.metadata = packed.metadata.data();
  args.values = got.data();
  args.n = shape.n;
  args.k = shape.k;
  args.row_stride = other.stride;
  args.k_blocks = static_cast<uint32_t>(ceil_div(shape.k, 64));
  args.vectors = shape.vectors;
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(shape.n, 64) * args.k_blocks));
  config.block = dim3(sm80::kGradientThreads);
  launch(config, sm80::gather, args);
  return packed.compare(got, shape.n, shape.k,
                        [&](int64_t channel, int64_t input) { return other.at(channel, input); });
}
#else
std::string run(const Shape& shape) {
  Matrix dense(shape.n, shape.k, shape.vectors, 1, 3), grad(shape.n, shape.k, shape.vectors, 2, 20);
  Matrix out(shape.n, shape.k, shape.vectors, 3, 0);
  const std::vector<uint16_t> before = out.memory.to_vector();
  Packed packed(dense, shape.n, shape.k);
  sm80::StraightThroughArguments args;
  args.grad = grad.memory.data();
  args.dense = dense.memory.data();
  args.values = packed.values.data();
  args.metadata = packed.metadata.data();
  args.out = out.memory.data();
  args.n = shape.n;
  args.k = shape.k;
  args.grad_row_stride = grad.stride;
  args.dense_row_stride = dense.stride;
  args.out_row_stride = out.stride;
  args.decay = 2;
  args.k_blocks = static_cast<uint32_t>(ceil_div(shape.k, 64));
  args.vectors = shape.vectors;
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(shape.n, 64) * args.k_blocks));
  config.block = dim3(sm80::kGradientThreads);
  launch(config, sm80::straight_through<BFloat16>, args);
  for (int64_t o = 0; o < shape.n; ++o)
    for (int64_t i = 0; i < out.stride && o * out.stride + i < static_cast<int64_t>(before.size()); ++i) {
      const int64_t at = o * out.stride + i;
      if (i >= shape.k ? out.memory[at] != before[at]
                       : out.at(o, i) != grad.at(o, i) + (packed.mask[o * shape.k + i] ? 0 : 2 * dense.at(o, i)))
        return i >= shape.k ? "something beside the gradient was written" : "the gradient is wrong";
    }
  return "";
}
#endif

}  // namespace

int main() { return survive_adversaries(80, kShapes, run); }

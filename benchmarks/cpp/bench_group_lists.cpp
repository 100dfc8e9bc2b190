// Sparse 1 x 1 convolutions in planes on every level this machine has: GFLOP/s on kept weights and the share of the FMA
// peak. The layers are those of MobileNetV1, MobileNetV2 and EfficientNet-B0 at 224 x 224.
//
//   bench_group_lists --benchmark_filter='4x1/90%/avx512/' [--benchmark_format=json]
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>

#include "conv_shapes.h"
#include "harness.h"
#include "pool.h"
#include "roof.h"
#include "sparsecore/cpu.h"
#include "sparsecore/group_lists.h"

using namespace bench;

namespace {

struct Grouping {
  int32_t rows, cols;
};

struct ConvCase {
  ConvShape shape;
  Grouping grouping;
  double density;
  Isa isa;
  int threads;
};

// Planes begin at whole lines, as a network's arena has them.
struct Planes {
  int64_t stride;
  std::vector<float> memory;
  float* data;

  Planes(int64_t channels, int64_t pixels)
      : stride((pixels + sparsecore::kPlaneLanes - 1) / sparsecore::kPlaneLanes * sparsecore::kPlaneLanes),
        memory(channels * stride + 16) {
    data = memory.data();
    while (reinterpret_cast<uintptr_t>(data) % 64) ++data;
  }
};

struct Layer {
  int64_t n, k;
  Grouping grouping;
  std::vector<float> dense, values;
  std::vector<uint8_t> mask, index, order;
  std::vector<int32_t> starts;
  sparsecore::GroupLists lists;

  explicit Layer(const ConvCase& c) : n(c.shape.out_channels), k(c.shape.channels), grouping(c.grouping), dense(n * k) {
    const int64_t groups = (n + grouping.rows - 1) / grouping.rows, blocks = (k + grouping.cols - 1) / grouping.cols;
    std::minstd_rand random(1);
    std::uniform_real_distribution<float> any(-1, 1), chance(0, 1);
    for (float& value : dense) value = any(random);
    mask.resize(groups * blocks);
    for (uint8_t& kept : mask) kept = chance(random) < c.density;
    lists.rows = grouping.rows, lists.cols = grouping.cols;
    lists.depth = sparsecore::group_lists_depth(lists.rows, lists.cols, k, c.density);
    lists.window = sparsecore::group_lists_window(lists.rows, n);
    lists.records = sparsecore::group_lists_count(mask.data(), groups, blocks);
    const int64_t panels = (k + lists.depth - 1) / lists.depth;
    values.resize((lists.records + 1) * lists.rows * lists.cols);
    index.resize((lists.records + 1) * sparsecore::group_lists_index_bytes(lists.cols, lists.depth));
    order.resize(panels * groups), starts.resize(panels * (groups + 1));
    sparsecore::group_lists_pack(dense.data(), DType::kFloat32, mask.data(), n, k, lists.rows, lists.cols, lists.depth,
                                 lists.window, values.data(), index.data(), order.data(), starts.data());
    lists.values = values.data(), lists.index = index.data();
    lists.order = order.data(), lists.starts = starts.data();
  }

  double exact(const Planes& x, int64_t o, int64_t p) const {
    const int64_t blocks = (k + grouping.cols - 1) / grouping.cols;
    double sum = 0;
    for (int64_t c = 0; c < k; ++c)
      if (mask[o / grouping.rows * blocks + c / grouping.cols])
        sum += static_cast<double>(dense[o * k + c]) * x.data[c * x.stride + p];
    return sum;
  }
};

void measure(benchmark::State& state, const ConvCase& c) {
  sparsecore::set_isa_cap(c.isa);
  use_threads(c.threads);
  const double peak = peak_gflops("fma_float32");
  const Layer layer(c);
  Planes x(layer.k, c.shape.pixels), y(layer.n, c.shape.pixels);
  std::minstd_rand random(2);
  std::uniform_real_distribution<float> any(-1, 1);
  for (float& value : x.memory) value = any(random);
  sparsecore::ConvIo io;
  io.x = x.data, io.y = y.data;
  io.channels = layer.k, io.out_channels = layer.n;
  io.x_stride = x.stride, io.y_stride = y.stride;
  io.x_image_stride = layer.k * x.stride, io.y_image_stride = layer.n * y.stride;
  io.window.height = io.window.out_height = 1;
  io.window.width = io.window.out_width = c.shape.pixels;
  io.padded = true;
  if (group_lists_conv(io, layer.lists) != Status::kOk) return state.SkipWithError("the kernel refuses this weight");
  for (int64_t i = 0; i < 64; ++i) {
    const int64_t o = i * 7919 % layer.n, p = i * 104729 % c.shape.pixels;
    const double exact = layer.exact(x, o, p);
    if (!(std::abs(y.data[o * y.stride + p] - exact) <= 1e-4 * std::max(1.0, std::abs(exact))))
      return state.SkipWithError("wrong result");
  }
  for (auto _ : state) benchmark::DoNotOptimize(group_lists_conv(io, layer.lists));
  using benchmark::Counter;
  const auto rate = Counter::kIsIterationInvariantRate;
  const double flops = 2e-9 * static_cast<double>(layer.lists.records * layer.lists.rows * layer.lists.cols) *
                       static_cast<double>(c.shape.pixels);
  state.counters["GFLOP/s"] = Counter(flops, rate);
  if (peak > 0) state.counters["of_roof"] = Counter(flops / peak, rate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Grouping& grouping : {Grouping{1, 1}, {2, 1}, {4, 1}, {8, 1}, {16, 1}, {1, 4}, {4, 4}, {16, 4}})
    for (const int zeros : {0, 70, 80, 90, 95}) {
      if (zeros == 0 && (grouping.rows != 8 || grouping.cols != 1)) continue;  // dense layers use one layout
      for (const Isa isa : levels("group_lists_conv", DType::kFloat32))
        for (const ConvShape& shape : kConvShapes)
          for (const int threads : thread_counts()) {
            const ConvCase c = {shape, grouping, 1 - zeros / 100.0, isa, threads};
            const std::string name = "group_lists/" + std::to_string(grouping.rows) + "x" +
                                     std::to_string(grouping.cols) + "/" + std::to_string(zeros) + "%/" +
                                     sparsecore::isa_name(isa) + "/" + shape.name + "/threads" +
                                     std::to_string(threads);
            benchmark::RegisterBenchmark(name.c_str(), [c](benchmark::State& state) { measure(state, c); })
                ->UseRealTime()
                ->Unit(benchmark::kMicrosecond);
          }
    }
  return run(argc, argv);
}

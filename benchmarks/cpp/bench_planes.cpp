// Depthwise layers of MobileNetV1, MobileNetV2 and EfficientNet-B0 at 224 x 224, first convolutions, and operators on
// whole planes, on every level this machine has. Images are one; planes lie as a network's arena has them.
//
// Two limits: products out of registers (of_fma), and moving x in and y out, measured as reading all of x and filling
// all of y at the same sizes (of_move). A layer cannot do better than the smaller share of 1.
//
//   bench_planes --benchmark_filter='mobilenet_v1/.*/avx512/threads1' [--benchmark_format=json]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "harness.h"
#include "pool.h"
#include "roof.h"
#include "sparsecore/cpu.h"
#include "sparsecore/planes.h"

using namespace sparsecore;

namespace {

struct Layer {
  const char* network;
  int64_t channels, size, kernel, stride;
};

constexpr Layer kLayers[] = {
    {"mobilenet_v1", 32, 112, 3, 1},    {"mobilenet_v1", 64, 112, 3, 2},    {"mobilenet_v1", 128, 56, 3, 1},
    {"mobilenet_v1", 128, 56, 3, 2},    {"mobilenet_v1", 256, 28, 3, 1},    {"mobilenet_v1", 256, 28, 3, 2},
    {"mobilenet_v1", 512, 14, 3, 1},    {"mobilenet_v1", 512, 14, 3, 2},    {"mobilenet_v1", 1024, 7, 3, 1},
    {"mobilenet_v2", 96, 112, 3, 2},    {"mobilenet_v2", 144, 56, 3, 1},    {"mobilenet_v2", 144, 56, 3, 2},
    {"mobilenet_v2", 192, 28, 3, 1},    {"mobilenet_v2", 192, 28, 3, 2},    {"mobilenet_v2", 384, 14, 3, 1},
    {"mobilenet_v2", 576, 14, 3, 1},    {"mobilenet_v2", 576, 14, 3, 2},    {"mobilenet_v2", 960, 7, 3, 1},
    {"efficientnet_b0", 144, 56, 5, 2}, {"efficientnet_b0", 240, 28, 5, 1}, {"efficientnet_b0", 240, 28, 3, 2},
    {"efficientnet_b0", 480, 14, 3, 1}, {"efficientnet_b0", 480, 14, 5, 1}, {"efficientnet_b0", 672, 14, 5, 1},
    {"efficientnet_b0", 672, 14, 5, 2}, {"efficientnet_b0", 1152, 7, 5, 1}, {"efficientnet_b0", 1152, 7, 3, 1},
};

int64_t whole(int64_t area) { return (area + kPlaneLanes - 1) / kPlaneLanes * kPlaneLanes; }

std::vector<float> waves(int64_t count) {
  std::vector<float> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = std::sin(0.7f * static_cast<float>(i % 10007));
  return result;
}

// What a benchmark works on: planes in and out, weights, and the call.
struct Work {
  std::vector<float> x, y, weight, bias;
  PlanesIo in, out;  // as whole planes, to move them
  double flops;
  std::function<Status()> call;
};

Window square_window(int64_t size, int64_t kernel, int64_t stride) {
  Window window;
  window.height = window.width = size;
  window.out_height = window.out_width = (size - 1) / stride + 1;
  window.kernel_h = window.kernel_w = kernel;
  window.stride_h = window.stride_w = stride;
  window.pad_top = window.pad_left = kernel / 2;
  return window;
}

void make_planes(Work& work, int64_t channels, int64_t pixels, int64_t out_channels, int64_t out_pixels) {
  work.x = waves(channels * whole(pixels)), work.y.assign(out_channels * whole(out_pixels), 0.0f);
  work.in.channels = channels, work.in.pixels = pixels;
  work.out.channels = out_channels, work.out.pixels = out_pixels;
  work.in.x = work.x.data(), work.in.x_stride = work.in.y_stride = whole(pixels);
  work.out.x = work.out.y = work.y.data(), work.out.x_stride = work.out.y_stride = whole(out_pixels);
}

void depthwise(Work& work, const Layer& layer) {
  const Window window = square_window(layer.size, layer.kernel, layer.stride);
  const int64_t area = window.out_height * window.out_width, taps = layer.kernel * layer.kernel;
  make_planes(work, layer.channels, layer.size * layer.size, layer.channels, area);
  work.weight = waves(layer.channels * taps), work.bias = waves(layer.channels);
  work.flops = 2.0 * static_cast<double>(layer.channels * area * taps);
  DepthwiseIo io;
  io.x = work.x.data(), io.y = work.y.data(), io.weight = work.weight.data(), io.bias = work.bias.data();
  io.channels = layer.channels, io.x_stride = work.in.x_stride, io.y_stride = work.out.x_stride;
  io.window = window, io.activation = Activation::kRelu6, io.padded = true;
  work.call = [io] { return depthwise_conv(io); };
}

void stem(Work& work, int64_t kernel, int64_t out_channels, ImageLayout layout) {
  const Window window = square_window(224, kernel, 2);
  const int64_t area = window.out_height * window.out_width, products = kernel * kernel * 3;
  make_planes(work, 3, 224 * 224, out_channels, area);
  work.weight = waves(out_channels * products), work.bias = waves(out_channels);
  work.flops = 2.0 * static_cast<double>(out_channels * area * products);
  StemIo io;
  io.x = work.x.data(), io.y = work.y.data(), io.weight = work.weight.data(), io.bias = work.bias.data();
  io.channels = 3, io.out_channels = out_channels;
  io.x_layout = layout, io.x_stride = layout == ImageLayout::kHwc ? 3 : work.in.x_stride;
  io.y_stride = work.out.x_stride;
  io.window = window, io.activation = Activation::kRelu6, io.padded = true;
  work.call = [io] { return stem_conv(io); };
}

void max_pool(Work& work) {
  PoolIo io;
  io.window = square_window(112, 3, 2);
  make_planes(work, 64, 112 * 112, 64, 56 * 56);
  io.x = work.x.data(), io.y = work.y.data(), io.channels = 64;
  io.x_stride = work.in.x_stride, io.y_stride = work.out.x_stride, io.pool = Pool::kMaximum;
  work.flops = 9.0 * 64 * 56 * 56;
  work.call = [io] { return pool_planes(io); };
}

void squeeze(Work& work, int64_t channels, int64_t size, int64_t squeezed) {
  make_planes(work, channels, size * size, channels, size * size);
  work.weight = waves(2 * channels * squeezed), work.bias = waves(channels + squeezed);
  work.flops = 2.0 * static_cast<double>(channels * (size * size + 2 * squeezed));
  SqueezeExciteIo io;
  io.planes = work.in, io.planes.y = work.y.data(), io.planes.padded = true;
  io.weight1 = work.weight.data(), io.weight2 = work.weight.data() + channels * squeezed;
  io.bias1 = work.bias.data(), io.bias2 = work.bias.data() + squeezed;
  io.squeezed = squeezed, io.inner = Activation::kSilu;
  work.call = [io] { return squeeze_excite(io); };
}

void add(Work& work) {
  make_planes(work, 2 * 144, 28 * 28, 144, 28 * 28);
  PlanesIo io = work.out;
  io.x = work.x.data(), io.x2 = work.x.data() + 144 * work.in.x_stride, io.x2_stride = work.in.x_stride;
  io.padded = true;
  work.flops = 144.0 * 28 * 28;
  work.call = [io] { return add_planes(io); };
}

// Seconds of reading every element of x and writing every element of y, the best of some.
double move_seconds(Work& work) {
  std::vector<float> sums(work.in.channels);
  PlanesIo in = work.in;
  in.y = sums.data();
  double best = 1e9;
  for (int round = 0; round < 30; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    average_planes(in);
    std::fill(work.y.begin(), work.y.end(), 0.0f);
    benchmark::DoNotOptimize(work.y.data());
    benchmark::ClobberMemory();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

void measure(benchmark::State& state, const std::function<void(Work&)>& make, Isa isa, int threads) {
  Work work;
  make(work);
  bench::use_threads(1);
  set_isa_cap(Isa::kScalar);
  if (work.call() != Status::kOk) return state.SkipWithError("the operator refuses its shape");
  const std::vector<float> want = work.y;
  set_isa_cap(isa);
  bench::use_threads(threads);
  work.call();
  float error = 0;
  for (size_t i = 0; i < want.size(); ++i) error = std::fmax(error, std::fabs(want[i] - work.y[i]));
  if (!(error < 1e-3f)) return state.SkipWithError("wrong result");
  static std::map<std::pair<Isa, int>, double> peaks;
  double& peak = peaks[{isa, threads}];
  if (peak == 0) peak = bench::peak_gflops("fma_float32");
  const double move = threads == 1 ? move_seconds(work) : 0;
  for (auto _ : state) benchmark::DoNotOptimize(work.call());
  using benchmark::Counter;
  const auto rate = Counter::kIsIterationInvariantRate;
  const double bytes =
      4.0 * static_cast<double>(work.in.channels * work.in.pixels + work.out.channels * work.out.pixels);
  state.counters["GFLOP/s"] = Counter(1e-9 * work.flops, rate);
  state.counters["GB/s"] = Counter(1e-9 * bytes, rate);
  if (peak > 0) state.counters["of_fma"] = Counter(1e-9 * work.flops / peak, rate);
  if (move > 0) state.counters["of_move"] = Counter(move, rate);
}

void add_all(const std::string& name, const std::function<void(Work&)>& make) {
  for (const Isa isa : bench::levels("planes", DType::kFloat32))
    for (const int threads : bench::thread_counts())
      benchmark::RegisterBenchmark((name + "/" + isa_name(isa) + "/threads" + std::to_string(threads)).c_str(),
                                   [=](benchmark::State& state) { measure(state, make, isa, threads); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Layer& layer : kLayers)
    add_all(std::string(layer.network) + "/depthwise" + std::to_string(layer.kernel) + "s" +
                std::to_string(layer.stride) + "_" + std::to_string(layer.channels) + "x" + std::to_string(layer.size),
            [&layer](Work& work) { depthwise(work, layer); });
  add_all("stem/3s2_32_hwc", [](Work& work) { stem(work, 3, 32, ImageLayout::kHwc); });
  add_all("stem/3s2_32_chw", [](Work& work) { stem(work, 3, 32, ImageLayout::kChw); });
  add_all("stem/7s2_64_chw", [](Work& work) { stem(work, 7, 64, ImageLayout::kChw); });
  add_all("resnet50/max_pool3s2_64x112", max_pool);
  add_all("efficientnet_b0/squeeze_excite_96x56", [](Work& work) { squeeze(work, 96, 56, 4); });
  add_all("efficientnet_b0/squeeze_excite_672x14", [](Work& work) { squeeze(work, 672, 14, 28); });
  add_all("efficientnet_b0/squeeze_excite_1152x7", [](Work& work) { squeeze(work, 1152, 7, 48); });
  add_all("mobilenet_v2/add_144x28", add);
  return bench::run(argc, argv);
}

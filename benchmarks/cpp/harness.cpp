#include "harness.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <tuple>

#include "cpu/narrow.h"
#include "pool.h"
#include "roof.h"
#include "sparsecore/backends.h"
#include "sparsecore/cpu.h"

namespace bench {
namespace {

constexpr int64_t kRotating = int64_t{1} << 30;  // bytes that cases from memory rotate through
constexpr int64_t kCheckedOutputs = 64;

void put(std::vector<char>& array, DType dtype, int64_t i, float value) {
  switch (dtype) {
    case DType::kFloat32: return sparsecore::narrow(value, reinterpret_cast<float*>(array.data()) + i);
    case DType::kBFloat16: return sparsecore::narrow(value, reinterpret_cast<sparsecore::BFloat16*>(array.data()) + i);
    case DType::kFloat16: return sparsecore::narrow(value, reinterpret_cast<sparsecore::Float16*>(array.data()) + i);
    case DType::kInt8: array[i] = static_cast<char>(std::lround(std::clamp(value * 40, -127.0f, 127.0f)));
  }
}

float get(const std::vector<char>& array, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat32: return reinterpret_cast<const float*>(array.data())[i];
    case DType::kBFloat16: return sparsecore::widen(reinterpret_cast<const sparsecore::BFloat16*>(array.data())[i]);
    case DType::kFloat16: return sparsecore::widen(reinterpret_cast<const sparsecore::Float16*>(array.data())[i]);
    default: return sparsecore::widen(reinterpret_cast<const int8_t*>(array.data())[i]);
  }
}

// Limits are measured when a case first asks for them, under its instruction set and its threads.
double limit(const char* name, Isa isa, int threads) {
  static std::map<std::tuple<std::string, Isa, int>, double> known;
  const auto key = std::make_tuple(std::string(name), isa, threads);
  if (!known.count(key)) known[key] = std::string(name) == "read" ? read_gb_per_s() : peak_gflops(name);
  return known[key];
}

const Weight& weight_of(const Case& c) {
  static std::unique_ptr<Weight> last;
  if (!last || last->n != c.shape.n || last->k != c.shape.k || last->dtype != c.dtype || last->pattern != c.pattern)
    last = std::make_unique<Weight>(c.shape, c.dtype, c.pattern);
  return *last;
}

void measure(benchmark::State& state, const Case& c) {
  sparsecore::set_isa_cap(c.isa);
  use_threads(c.threads);
  const double peak = limit(c.roof, c.isa, c.threads), stream = c.from_memory ? limit("read", c.isa, c.threads) : 0;
  const Weight& weight = weight_of(c);
  const int64_t packed_bytes = c.bytes(weight), copies = c.from_memory ? kRotating / packed_bytes + 1 : 1;
  const Call call = c.pack(weight, copies);
  Layer layer(weight, c.tokens, c.compute);
  if (call(layer.io, 0) != Status::kOk) return state.SkipWithError("the kernel refuses this weight");
  const bool narrow = c.compute != Compute::kFloat32 || layer.io.dtype != DType::kFloat32;
  if (!(layer.error(weight) < (narrow ? 2e-2 : 1e-4))) return state.SkipWithError("wrong result");
  int64_t copy = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(call(layer.io, copy));
    copy = copy + 1 < copies ? copy + 1 : 0;
  }
  using benchmark::Counter;
  const double flops = 2e-9 * static_cast<double>(c.tokens * weight.kept_weights());
  const double bytes = 1e-9 * static_cast<double>(packed_bytes);
  // Counters that are rates are divided by the time of all iterations; the roof's time per call over ours is a share.
  const auto rate = Counter::kIsIterationInvariantRate;
  state.counters["GFLOP/s"] = Counter(flops, rate);
  state.counters["GB/s"] = Counter(bytes, rate);
  if (peak > 0) {
    const double roof_seconds = std::max(flops / peak, stream > 0 ? bytes / stream : 0.0);
    state.counters["of_roof"] = Counter(roof_seconds, rate);
  }
}

}  // namespace

Weight::Weight(const Shape& shape, DType dtype, Pattern pattern)
    : n(shape.n), k(shape.k), pattern(pattern), dtype(dtype), dense(n * k * sparsecore::size_of(dtype)), mask(n * k) {
  const auto [kept, group, shared] = pattern;
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> any(-1, 1);
  for (int64_t i = 0; i < n * k; ++i) put(dense, dtype, i, any(random));
  std::vector<int> places(group);
  for (int64_t row = 0; row < n; row += shared)
    for (int64_t column = 0; column + group <= k; column += group) {
      for (int i = 0; i < group; ++i) places[i] = i;
      for (int i = 0; i < kept; ++i) std::swap(places[i], places[i + random() % (group - i)]);
      for (int64_t o = row; o < std::min(n, row + shared); ++o)
        for (int i = 0; i < kept; ++i) mask[o * k + column + places[i]] = 1;
    }
}

Layer::Layer(const Weight& weight, int64_t tokens, Compute compute) {
  io.m = tokens, io.n = weight.n, io.k = weight.k;
  io.x_row_stride = weight.k, io.y_row_stride = weight.n;
  io.weight_dtype = weight.dtype;
  io.dtype = weight.dtype == DType::kInt8 ? DType::kFloat32 : weight.dtype;
  io.compute = compute;
  x.resize(io.m * io.k * sparsecore::size_of(io.dtype));
  y.resize(io.m * io.n * sparsecore::size_of(io.dtype));
  std::minstd_rand random(2);
  std::uniform_real_distribution<float> any(-1, 1);
  for (int64_t i = 0; i < io.m * io.k; ++i) put(x, io.dtype, i, any(random));
  io.x = x.data(), io.y = y.data();
  if (weight.dtype == DType::kInt8) {
    scale.assign(io.n, 0.01f);
    io.weight_scale = scale.data();
  }
}

double Layer::error(const Weight& weight) const {
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < kCheckedOutputs; ++i) {
    const int64_t t = i % io.m, o = i * 7919 % io.n;
    double exact = 0;
    for (int64_t c = 0; c < io.k; ++c)
      if (weight.mask[o * io.k + c])
        exact += static_cast<double>(get(weight.dense, weight.dtype, o * io.k + c)) * get(x, io.dtype, t * io.k + c);
    if (!scale.empty()) exact *= scale[o];
    largest = std::max(largest, std::abs(exact));
    worst = std::max(worst, std::abs(get(y, io.dtype, t * io.n + o) - exact));
  }
  return worst / largest;
}

void add(Case benchmark_case) {
  const std::string name = benchmark_case.name + "/" + sparsecore::isa_name(benchmark_case.isa) + "/" +
                           benchmark_case.shape.name + "/M" + std::to_string(benchmark_case.tokens) + "/threads" +
                           std::to_string(benchmark_case.threads);
  benchmark::RegisterBenchmark(name.c_str(),
                               [c = std::move(benchmark_case)](benchmark::State& state) { measure(state, c); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

std::vector<Isa> levels(const std::string& op, DType weights) {
  std::vector<sparsecore::Backend> rows(sparsecore::backends(nullptr, 0));
  sparsecore::backends(rows.data(), static_cast<int>(rows.size()));
  std::vector<Isa> found;
  for (const sparsecore::Backend& row : rows)
    if (op == row.op && row.isa != Isa::kScalar && sparsecore::isa_enabled(row.isa) &&
        std::string(row.weights).find(name_of(weights)) != std::string::npos)
      found.push_back(row.isa);
  std::sort(found.rbegin(), found.rend());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  if (found.empty()) found.push_back(Isa::kScalar);
  return found;
}

const std::vector<int>& thread_counts() {
  static const std::vector<int> counts = available_threads() > 1 ? std::vector<int>{1, 2} : std::vector<int>{1};
  return counts;
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "float32";
    case DType::kBFloat16: return "bfloat16";
    case DType::kFloat16: return "float16";
    default: return "int8";
  }
}

int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace bench

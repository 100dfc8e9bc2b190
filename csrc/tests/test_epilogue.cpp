// The end of every linear kernel, seen through a layer whose sums are given: one input of 1, the weights are the sums.
#include <cmath>
#include <cstring>
#include <iterator>

#include "sparsecore/shared_lists.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

double exact(double x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return std::fmax(x, 0.0);
    case Activation::kGelu: return 0.5 * x * std::erfc(-x * 0.70710678118654752440);
    case Activation::kGeluTanh: return x / (1.0 + std::exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case Activation::kSilu: return x / (1.0 + std::exp(-x));
    case Activation::kRelu6: return std::fmin(std::fmax(x, 0.0), 6.0);
    case Activation::kHardSwish: return x * std::fmin(std::fmax(x + 3.0, 0.0), 6.0) / 6.0;
    case Activation::kHardSigmoid: return std::fmin(std::fmax(x + 3.0, 0.0), 6.0) / 6.0;
    case Activation::kSigmoid: return 1.0 / (1.0 + std::exp(-x));
  }
  return x;
}

constexpr Activation kActivations[] = {Activation::kNone,      Activation::kRelu,        Activation::kGelu,
                                       Activation::kGeluTanh,  Activation::kSilu,        Activation::kRelu6,
                                       Activation::kHardSwish, Activation::kHardSigmoid, Activation::kSigmoid};
static_assert(std::size(kActivations) == kLastActivation + 1);

template <typename T>
std::vector<T> finish(const std::vector<float>& sums, const float* scale, const void* bias, DType bias_dtype,
                      Activation activation, DType dtype) {
  const int64_t n = static_cast<int64_t>(sums.size()), groups = (n + 63) / 64;
  std::vector<float> values(groups * 64, 0.0f);
  std::memcpy(values.data(), sums.data(), n * sizeof(float));
  std::vector<uint16_t> columns(groups, 0);
  std::vector<int32_t> starts(groups + 1);
  for (int64_t g = 0; g <= groups; ++g) starts[g] = static_cast<int32_t>(g);
  T one, guard, zero;
  narrow(1.0f, &one);
  narrow(77.0f, &guard);
  narrow(0.0f, &zero);
  std::vector<T> y(n + 1, guard);
  LinearIo io;
  io.x = &one, io.y = y.data(), io.bias = bias, io.weight_scale = scale;
  io.m = 1, io.n = n, io.k = 1, io.x_row_stride = 1, io.y_row_stride = n;
  io.dtype = dtype, io.bias_dtype = bias_dtype, io.activation = activation;
  REQUIRE(shared_lists_linear(io, {values.data(), columns.data(), starts.data(), groups, 64}) == Status::kOk);
  CHECK(std::memcmp(&y[n], &guard, sizeof(T)) == 0);
  y.pop_back();
  return y;
}

}  // namespace

TEST_CASE("epilogue: activations are within 1e-6 of max(|x|, 1) on every level") {
  std::vector<float> x;
  for (int i = -40000; i <= 40000; ++i) x.push_back(static_cast<float>(i) * 5e-4f);
  for (const float large : {25.0f, 88.0f, 89.5f, 105.0f, 1e4f, 1e10f})
    for (const float sign : {-1.0f, 1.0f}) x.push_back(sign * large);
  on_every_level([&](Isa isa) {
    for (const Activation activation : kActivations) {
      const auto y = finish<float>(x, nullptr, nullptr, DType::kFloat32, activation, DType::kFloat32);
      double worst = 0;
      for (size_t i = 0; i < x.size(); ++i)
        worst = std::fmax(worst, std::fabs(y[i] - exact(x[i], activation)) / std::fmax(std::fabs(x[i]), 1.0));
      CHECK_MESSAGE(worst < 1e-6, isa_name(isa), " activation ", static_cast<int>(activation), " error ", worst);
    }
  });
}

TEST_CASE("epilogue: NaN passes, and plus infinity becomes its limit") {
  std::vector<float> x(33, 1.0f);
  x[3] = x[20] = x[32] = NAN;
  x[5] = INFINITY;
  on_every_level([&](Isa isa) {
    for (const Activation activation : kActivations) {
      const auto y = finish<float>(x, nullptr, nullptr, DType::kFloat32, activation, DType::kFloat32);
      for (const int i : {3, 20, 32}) CHECK_MESSAGE(std::isnan(y[i]), isa_name(isa));
      CHECK_MESSAGE(y[5] == static_cast<float>(exact(INFINITY, activation)), isa_name(isa));
    }
  });
}

TEST_CASE("epilogue: scale, bias of every type, narrowing, every tail") {
  on_every_level([&](Isa isa) {
    for (int n = 1; n <= 70; ++n) {
      std::vector<float> x(n), scale(n), bias(n);
      std::vector<BFloat16> bias_bf16(n);
      std::vector<Float16> bias_fp16(n);
      for (int i = 0; i < n; ++i) {
        x[i] = static_cast<float>(i * 37 % 101) - 50.25f;
        scale[i] = 0.125f * static_cast<float>(i % 5 + 1);
        bias[i] = static_cast<float>(i % 9) - 4.0f;
        narrow(bias[i], &bias_bf16[i]);
        narrow(bias[i], &bias_fp16[i]);
      }
      const auto f = finish<float>(x, scale.data(), bias.data(), DType::kFloat32, Activation::kRelu, DType::kFloat32);
      const auto b =
          finish<BFloat16>(x, scale.data(), bias_bf16.data(), DType::kBFloat16, Activation::kRelu, DType::kBFloat16);
      const auto h =
          finish<Float16>(x, scale.data(), bias_fp16.data(), DType::kFloat16, Activation::kRelu, DType::kFloat16);
      for (int i = 0; i < n; ++i) {
        const float want = std::fmax(x[i] * scale[i] + bias[i], 0.0f);
        BFloat16 want_b;
        Float16 want_h;
        narrow(want, &want_b);
        narrow(want, &want_h);
        CHECK_MESSAGE(f[i] == want, isa_name(isa));
        CHECK_MESSAGE(b[i].bits == want_b.bits, isa_name(isa));
        CHECK_MESSAGE(h[i].bits == want_h.bits, isa_name(isa));
      }
    }
  });
}

// int8 products of group lists: every level against plain loops by the same rule, to the last bit.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "cpu/quantise.h"
#include "sparsecore/group_lists.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::vector<Isa> kernel_levels() { return levels_of("group_lists_conv", /*int8_alone=*/true); }

struct Weight {
  int64_t n, k;
  std::vector<int8_t> dense, values;
  std::vector<uint8_t> index, order;
  std::vector<int32_t> starts;
  std::vector<float> scale, bias;
  GroupLists lists;

  Weight(int64_t n, int64_t k, int32_t rows, int32_t cols, int32_t depth, int32_t window, unsigned seed)
      : n(n), k(k), dense(n * k) {
    std::mt19937 random(seed);
    const int64_t groups = ceil_div(n, rows), blocks = ceil_div(k, cols), panels = ceil_div(k, depth);
    std::vector<uint8_t> mask(groups * blocks);
    for (auto& kept : mask) kept = random() % 3 == 0;
    for (int64_t i = 0; i < n * k; ++i)
      if (mask[i / k / rows * blocks + i % k / cols]) dense[i] = static_cast<int8_t>(random());
    const int64_t records = group_lists_count(mask.data(), groups, blocks);
    values.resize((records + 1) * rows * cols);
    index.resize((records + 1) * group_lists_index_bytes(cols, depth));
    order.resize(panels * groups);
    starts.resize(panels * (groups + 1));
    REQUIRE(group_lists_pack(dense.data(), DType::kInt8, mask.data(), n, k, rows, cols, depth, window, values.data(),
                             index.data(), order.data(), starts.data()) == Status::kOk);
    for (int64_t o = 0; o < n; ++o) {
      scale.push_back(0.001f * static_cast<float>(1 + random() % 50));
      bias.push_back(0.01f * static_cast<float>(random() % 100));
    }
    lists = {values.data(), index.data(), order.data(), starts.data(), records, rows, cols, depth, window};
  }
};

struct Pattern {
  int32_t rows, cols, depth, window;
};
const Pattern kPatterns[] = {{1, 1, 32, 4},  {2, 1, 64, 8},  {4, 1, 128, 3},  {8, 1, 16, 8},   {16, 1, 64, 2},
                             {1, 4, 32, 9},  {4, 4, 64, 4},  {8, 8, 32, 1},   {1, 2, 1024, 8}, {32, 1, 64, 1},
                             {1, 16, 64, 7}, {2, 32, 64, 2}, {1, 1, 512, 256}};

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

float quantised(float x, float inverse) {
  const float scaled = x * inverse;
  return std::nearbyint(scaled > -127.0f ? std::min(scaled, 127.0f) : -127.0f);
}

bool same(float a, float b) { return bits_of(a) == bits_of(b) || (std::isnan(a) && std::isnan(b)); }

void check_conv(const Pattern& pattern, const Window& window, int64_t channels, int64_t out_channels, ImageLayout in,
                ImageLayout out, float x_scale, bool with_residual, bool poisoned, int threads = 1) {
  const int64_t taps = window.kernel_h * window.kernel_w, pixels = window.height * window.width,
                out_pixels = window.out_height * window.out_width, images = 2;
  const Weight weight(out_channels, channels * taps, pattern.rows, pattern.cols, pattern.depth, pattern.window, 5);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(images * channels * pixels), residual(images * out_channels * out_pixels), y(residual.size());
  for (float& value : x) value = normal(random);
  for (float& value : residual) value = normal(random);
  if (poisoned) x[x.size() - 1] = std::numeric_limits<float>::infinity();
  ConvIo io;
  io.x = x.data(), io.bias = weight.bias.data(), io.weight_scale = weight.scale.data();
  if (with_residual) io.residual = residual.data();
  io.images = images, io.channels = channels, io.out_channels = out_channels;
  io.x_layout = in, io.y_layout = out;
  io.x_image_stride = channels * pixels, io.y_image_stride = io.residual_image_stride = out_channels * out_pixels;
  io.x_stride = in == ImageLayout::kChw ? pixels : channels;
  io.y_stride = io.residual_stride = out == ImageLayout::kChw ? out_pixels : out_channels;
  io.window = window;
  io.weight_dtype = DType::kInt8, io.compute = Compute::kInt8, io.x_scale = x_scale;
  io.activation = Activation::kRelu6;

  std::vector<float> expected(y.size());
  for (int64_t image = 0; image < images; ++image) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < channels * pixels; ++i)
      largest = std::max(largest, bits_of(x[image * channels * pixels + i]) & 0x7fffffffu);
    const TokenScale scale = x_scale > 0 ? TokenScale{x_scale, 1.0f / x_scale} : token_scale(largest);
    std::vector<float> inputs(x.begin() + image * io.x_image_stride, x.begin() + (image + 1) * io.x_image_stride);
    for (float& value : inputs) value = quantised(value, scale.inverse);
    for (int64_t o = 0; o < out_channels; ++o)
      for (int64_t p = 0; p < out_pixels; ++p) {
        double sum = 0;
        for (int64_t c = 0; c < weight.k; ++c) {
          if (!weight.dense[o * weight.k + c]) continue;
          const int64_t tap = c / channels, channel = c % channels,
                        row = p / window.out_width * window.stride_h - window.pad_top + tap / window.kernel_w,
                        column = p % window.out_width * window.stride_w - window.pad_left + tap % window.kernel_w;
          if (row < 0 || row >= window.height || column < 0 || column >= window.width) continue;
          const int64_t pixel = row * window.width + column;
          sum += double{inputs[in == ImageLayout::kChw ? channel * pixels + pixel : pixel * channels + channel]} *
                 weight.dense[o * weight.k + c];
        }
        const int64_t at =
            image * io.y_image_stride + (out == ImageLayout::kChw ? o * out_pixels + p : p * out_channels + o);
        float value = static_cast<float>(static_cast<int32_t>(sum)) * (scale.scale * weight.scale[o]);
        value += weight.bias[o];
        if (with_residual) value += residual[at];
        expected[at] = std::isnan(value) ? value : std::min(std::max(value, 0.0f), 6.0f);
      }
  }
  const CapRestored restored;
  const Threads installed(threads);
  for (const Isa isa : kernel_levels()) {
    set_isa_cap(isa);
    std::fill(y.begin(), y.end(), -1.0f);
    io.y = y.data();
    const char* level = isa_name(isa);
    CAPTURE(level);
    CAPTURE(pattern.rows);
    CAPTURE(pattern.cols);
    REQUIRE(group_lists_conv(io, weight.lists) == Status::kOk);
    int64_t wrong = 0;
    for (size_t i = 0; i < y.size(); ++i) wrong += !same(y[i], expected[i]);
    CHECK(wrong == 0);
  }
}

Window window_of(int64_t height, int64_t width, int64_t kernel, int64_t stride, int64_t pad) {
  Window w;
  w.height = height, w.width = width;
  w.kernel_h = w.kernel_w = kernel;
  w.stride_h = w.stride_w = stride;
  w.pad_top = w.pad_left = pad;
  w.out_height = (height + 2 * pad - kernel) / stride + 1, w.out_width = (width + 2 * pad - kernel) / stride + 1;
  return w;
}

}  // namespace

TEST_CASE("group lists, int8 products: convolutions") {
  for (const Pattern& pattern : kPatterns)
    for (const ImageLayout in : {ImageLayout::kChw, ImageLayout::kHwc})
      for (const ImageLayout out : {ImageLayout::kChw, ImageLayout::kHwc}) {
        check_conv(pattern, window_of(7, 7, 1, 1, 0), 37, 19, in, out, 0, true, false);
        check_conv(pattern, window_of(9, 15, 1, 1, 0), 64, 33, in, out, 0.02f, false, false);
        check_conv(pattern, window_of(8, 5, 3, 2, 1), 12, 10, in, out, 0, false, false);
      }
  check_conv(kPatterns[0], window_of(5, 5, 1, 1, 0), 16, 8, ImageLayout::kChw, ImageLayout::kChw, 0, false, true);
  check_conv(kPatterns[5], window_of(1, 1, 1, 1, 0), 1, 1, ImageLayout::kChw, ImageLayout::kChw, 0, false, false);
}

TEST_CASE("group lists, int8 products: the same bits for any number of threads" * doctest::test_suite("threads")) {
  for (const Pattern& pattern : kPatterns)
    for (const int threads : {2, 5}) {
      check_conv(pattern, window_of(9, 15, 1, 1, 0), 64, 33, ImageLayout::kChw, ImageLayout::kChw, 0, true, false,
                 threads);
      check_conv(pattern, window_of(8, 5, 3, 2, 1), 12, 10, ImageLayout::kHwc, ImageLayout::kHwc, 0.02f, false, false,
                 threads);
    }
}

TEST_CASE("group lists, int8 products: linear layers quantise every token") {
  for (const Pattern& pattern : kPatterns)
    for (const int64_t m : {1, 5, 64, 67}) {
      const Weight weight(29, 131, pattern.rows, pattern.cols, pattern.depth, pattern.window, 3);
      std::mt19937 random(11);
      std::normal_distribution<float> normal;
      std::vector<float> x(m * weight.k), y(m * weight.n), expected(y.size());
      for (float& value : x) value = normal(random);
      if (m > 1) std::fill(x.begin(), x.begin() + weight.k, 0.0f);
      for (int64_t t = 0; t < m; ++t) {
        uint32_t largest = 0;
        for (int64_t c = 0; c < weight.k; ++c) largest = std::max(largest, bits_of(x[t * weight.k + c]) & 0x7fffffffu);
        const TokenScale scale = token_scale(largest);
        std::vector<int32_t> inputs(weight.k);
        for (int64_t c = 0; c < weight.k; ++c)
          inputs[c] = static_cast<int32_t>(quantised(x[t * weight.k + c], scale.inverse));
        for (int64_t o = 0; o < weight.n; ++o) {
          int32_t sum = 0;
          for (int64_t c = 0; c < weight.k; ++c) sum += inputs[c] * weight.dense[o * weight.k + c];
          expected[t * weight.n + o] = static_cast<float>(sum) * (scale.scale * weight.scale[o]) + weight.bias[o];
        }
      }
      LinearIo io;
      io.x = x.data(), io.y = y.data(), io.bias = weight.bias.data(), io.weight_scale = weight.scale.data();
      io.m = m, io.n = weight.n, io.k = weight.k, io.x_row_stride = weight.k, io.y_row_stride = weight.n;
      io.weight_dtype = DType::kInt8, io.compute = Compute::kInt8;
      CapRestored restored;
      for (const Isa isa : kernel_levels()) {
        set_isa_cap(isa);
        std::fill(y.begin(), y.end(), -1.0f);
        REQUIRE(group_lists_linear(io, weight.lists) == Status::kOk);
        int64_t wrong = 0;
        for (size_t i = 0; i < y.size(); ++i) wrong += !same(y[i], expected[i]);
        CHECK(wrong == 0);
      }
    }
}

TEST_CASE("group lists, int8 products: what they refuse") {
  const Weight weight(8, 16, 1, 1, 16, 8, 1);
  std::vector<float> x(16), y(8);
  ConvIo io;
  io.x = x.data(), io.y = y.data(), io.weight_scale = weight.scale.data();
  io.channels = 16, io.out_channels = 8, io.x_image_stride = 16, io.y_image_stride = 8, io.x_stride = io.y_stride = 1;
  io.window = window_of(1, 1, 1, 1, 0);
  io.weight_dtype = DType::kInt8, io.compute = Compute::kInt8;
  CHECK(group_lists_conv(io, weight.lists) == Status::kOk);
  for (const float bad : {-1.0f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    io.x_scale = bad;
    CHECK(group_lists_conv(io, weight.lists) == Status::kBadScale);
  }
  io.x_scale = 0;
  io.weight_dtype = DType::kFloat32;
  CHECK(group_lists_conv(io, weight.lists) == Status::kUnsupportedDType);
}

// Dense operators on planes against plain loops, on every level of the machine. Values are small integers, so that
// results must be equal. What lies between planes is NaN where it is read and a canary where it is written.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/activate.h"
#include "sparsecore/planes.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

constexpr float kCanary = -12345.0f;

class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed * 2 + 1) {}
  int64_t below(int64_t limit) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int64_t>((state_ >> 33) % static_cast<uint64_t>(limit));
  }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  float value() { return static_cast<float>(between(-4, 4)); }
  std::vector<float> values(int64_t count) {
    std::vector<float> result(count);
    for (float& v : result) v = value();
    return result;
  }

 private:
  uint64_t state_;
};

int64_t whole_lanes(int64_t area) { return (area + kPlaneLanes - 1) / kPlaneLanes * kPlaneLanes; }

// [images, planes, area] with room between planes and images; memory ends with the last element that may be touched.
struct Planes {
  int64_t images, channels, area, stride, image_stride;
  bool padded;
  std::vector<float> memory;

  Planes(int64_t images_, int64_t channels_, int64_t area_, int64_t gap, bool padded_, float fill)
      : images(images_), channels(channels_), area(area_), padded(padded_) {
    const int64_t extent = padded ? whole_lanes(area) : area;
    stride = extent + gap;
    image_stride = channels * stride + 3 * gap;
    memory.assign((images - 1) * image_stride + (channels - 1) * stride + extent, fill);
  }
  float* plane(int64_t image, int64_t c) { return memory.data() + image * image_stride + c * stride; }
  const float* plane(int64_t image, int64_t c) const { return memory.data() + image * image_stride + c * stride; }
  void fill(Numbers& numbers) {
    for (int64_t i = 0; i < images; ++i)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < area; ++p) plane(i, c)[p] = numbers.value();
  }
  // Values as [images, planes, area]; NaN equals NaN.
  bool holds(const std::vector<float>& values) const {
    for (int64_t i = 0, next = 0; i < images; ++i)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < area; ++p, ++next) {
          const float got = plane(i, c)[p], want = values[next];
          if (!(got == want || (std::isnan(got) && std::isnan(want)))) return false;
        }
    return true;
  }
  void clear() { std::fill(memory.begin(), memory.end(), kCanary); }
  // Whether everything that no kernel may write still is the canary.
  bool gaps_untouched() const {
    std::vector<bool> mine(memory.size(), false);
    for (int64_t i = 0; i < images; ++i)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t begin = plane(i, c) - memory.data();
        std::fill_n(mine.begin() + begin, padded ? whole_lanes(area) : area, true);
      }
    for (size_t i = 0; i < memory.size(); ++i)
      if (!mine[i] && memory[i] != kCanary) return false;
    return true;
  }
};

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t before, int64_t after, int64_t dilation) {
  const int64_t reach = (kernel - 1) * dilation + 1, room = size + before + after - reach;
  return room < 0 ? 0 : room / stride + 1;
}

// Fills out_height and out_width; false where the window does not fit.
bool fit(Window& w, int64_t bottom, int64_t right) {
  w.out_height = out_size(w.height, w.kernel_h, w.stride_h, w.pad_top, bottom, w.dilation_h);
  w.out_width = out_size(w.width, w.kernel_w, w.stride_w, w.pad_left, right, w.dilation_w);
  return w.out_height > 0 && w.out_width > 0 && check_window(w) == Status::kOk;
}

template <typename Body>
void for_taps(const Window& w, int64_t p, Body&& body) {
  const int64_t top = p / w.out_width * w.stride_h - w.pad_top, left = p % w.out_width * w.stride_w - w.pad_left;
  for (int64_t i = 0; i < w.kernel_h; ++i)
    for (int64_t j = 0; j < w.kernel_w; ++j) {
      const int64_t row = top + i * w.dilation_h, column = left + j * w.dilation_w;
      if (row >= 0 && row < w.height && column >= 0 && column < w.width)
        body(i * w.kernel_w + j, row * w.width + column);
    }
}

struct DepthwiseCase {
  Window window;
  int64_t images = 1, channels = 2;
  int64_t gap = 0;
  bool padded = false, bias = true;
  Activation activation = Activation::kNone;
};

std::string text(const Window& w) {
  const auto pair = [](int64_t a, int64_t b) { return std::to_string(a) + "x" + std::to_string(b) + " "; };
  return pair(w.height, w.width) + "to " + pair(w.out_height, w.out_width) + "kernel " + pair(w.kernel_h, w.kernel_w) +
         "stride " + pair(w.stride_h, w.stride_w) + "pad " + pair(w.pad_top, w.pad_left) + "dilation " +
         pair(w.dilation_h, w.dilation_w);
}

void check_depthwise(const DepthwiseCase& c) {
  const Window& w = c.window;
  Numbers numbers(static_cast<uint64_t>(w.height * 41 + w.width));
  Planes x(c.images, c.channels, w.height * w.width, c.gap, c.padded, NAN);
  x.fill(numbers);
  Planes y(c.images, c.channels, w.out_height * w.out_width, c.gap, c.padded, kCanary);
  const int64_t taps = w.kernel_h * w.kernel_w;
  const auto weight = numbers.values(c.channels * taps), bias = numbers.values(c.channels);
  DepthwiseIo io;
  io.x = x.memory.data(), io.y = y.memory.data(), io.weight = weight.data();
  io.bias = c.bias ? bias.data() : nullptr;
  io.images = c.images, io.channels = c.channels;
  io.x_image_stride = x.image_stride, io.x_stride = x.stride;
  io.y_image_stride = y.image_stride, io.y_stride = y.stride;
  io.window = w, io.activation = c.activation, io.padded = c.padded;
  std::vector<float> expected;
  for (int64_t i = 0; i < c.images; ++i)
    for (int64_t k = 0; k < c.channels; ++k)
      for (int64_t p = 0; p < y.area; ++p) {
        float sum = c.bias ? bias[k] : 0.0f;
        for_taps(w, p, [&](int64_t tap, int64_t at) { sum += weight[k * taps + tap] * x.plane(i, k)[at]; });
        expected.push_back(activate(sum, c.activation));
      }
  on_every_level([&](Isa isa) {
    y.clear();
    REQUIRE(depthwise_conv(io) == Status::kOk);
    CHECK_MESSAGE(y.holds(expected), isa_name(isa), " ", text(w), "padded ", c.padded);
    CHECK_MESSAGE(y.gaps_untouched(), isa_name(isa), " ", text(w), "padded ", c.padded);
  });
}

}  // namespace

TEST_CASE("depthwise: 3x3 and 5x5, stride 1 and 2, every width to 40") {
  for (const int64_t kernel : {3, 5})
    for (const int64_t stride : {1, 2})
      for (int64_t width = 1; width <= 40; ++width)
        for (const int64_t height : {1, 2, 3, 4, 7, 8, 9, 14}) {
          DepthwiseCase c;
          Window& w = c.window;
          w.height = height, w.width = width;
          w.kernel_h = w.kernel_w = kernel;
          w.stride_h = w.stride_w = stride;
          // Torch's symmetric padding, the other framework's padding of strided layers, and none.
          for (const int64_t pad : {kernel / 2, (kernel - stride) / 2, int64_t{0}}) {
            w.pad_top = w.pad_left = pad;
            c.padded = (width + height) % 2;
            c.gap = width % 3 * 5;
            c.activation = width % 2 ? Activation::kRelu6 : Activation::kNone;
            if (fit(w, kernel / 2, kernel / 2)) check_depthwise(c);
          }
        }
}

TEST_CASE("depthwise: any window") {
  Numbers numbers(7);
  for (int round = 0; round < 4000; ++round) {
    DepthwiseCase c;
    Window& w = c.window;
    constexpr int64_t kKernels[] = {1, 2, 3, 3, 4, 5, 5, 7};
    w.height = numbers.between(1, 24), w.width = numbers.between(1, 40);
    w.kernel_h = kKernels[numbers.below(8)];
    w.kernel_w = numbers.below(2) ? w.kernel_h : kKernels[numbers.below(8)];
    w.stride_h = numbers.between(1, 3);
    w.stride_w = numbers.below(2) ? w.stride_h : numbers.between(1, 3);
    w.dilation_h = numbers.below(4) ? 1 : numbers.between(2, 3);
    w.dilation_w = numbers.below(4) ? 1 : numbers.between(2, 3);
    w.pad_top = numbers.below((w.kernel_h - 1) * w.dilation_h + 1);
    w.pad_left = numbers.below((w.kernel_w - 1) * w.dilation_w + 1);
    c.images = numbers.between(1, 2), c.channels = numbers.between(1, 3);
    c.gap = numbers.below(20);
    c.padded = numbers.below(2), c.bias = numbers.below(2);
    c.activation = numbers.below(2) ? Activation::kRelu : Activation::kNone;
    if (fit(w, numbers.below((w.kernel_h - 1) * w.dilation_h + 1), numbers.below((w.kernel_w - 1) * w.dilation_w + 1)))
      check_depthwise(c);
  }
}

TEST_CASE("depthwise: smooth activations agree with their definition") {
  on_every_level([](Isa isa) {
    for (int32_t a = 0; a <= kLastActivation; ++a)
      for (const int64_t width : {5, 7, 14, 19}) {
        Numbers numbers(3);
        const int64_t area = width * width;
        const auto x = numbers.values(area), weight = numbers.values(9);
        std::vector<float> plain(area), activated(area);
        DepthwiseIo io;
        io.x = x.data(), io.y = plain.data(), io.weight = weight.data(), io.channels = 1;
        io.window.height = io.window.width = io.window.out_height = io.window.out_width = width;
        io.window.kernel_h = io.window.kernel_w = 3;
        io.window.pad_top = io.window.pad_left = 1;
        REQUIRE(depthwise_conv(io) == Status::kOk);
        io.y = activated.data();
        io.activation = static_cast<Activation>(a);
        REQUIRE(depthwise_conv(io) == Status::kOk);
        float worst = 0;
        for (int64_t i = 0; i < area; ++i)
          worst = std::fmax(worst, std::fabs(activated[i] - activate(plain[i], io.activation)) /
                                       std::fmax(1.0f, std::fabs(plain[i])));
        CHECK_MESSAGE(worst < 1e-6f, isa_name(isa), " activation ", a, " error ", worst);
      }
  });
}

TEST_CASE("depthwise: a NaN outside a window stays outside, infinities pass") {
  on_every_level([](Isa isa) {
    std::vector<float> x(15 * 15, 1.0f), y(15 * 15), weight(9, 1.0f);
    x[0] = NAN;
    x[7 * 15 + 14] = INFINITY;
    DepthwiseIo io;
    io.x = x.data(), io.y = y.data(), io.weight = weight.data(), io.channels = 1;
    io.window.height = io.window.width = io.window.out_height = io.window.out_width = 15;
    io.window.kernel_h = io.window.kernel_w = 3;
    io.window.pad_top = io.window.pad_left = 1;
    REQUIRE(depthwise_conv(io) == Status::kOk);
    for (int64_t p = 0; p < 15 * 15; ++p) {
      const int64_t r = p / 15, c = p % 15;
      const bool near_nan = r <= 1 && c <= 1, near_infinity = r >= 6 && r <= 8 && c >= 13;
      CHECK_MESSAGE(std::isnan(y[p]) == near_nan, isa_name(isa), " ", r, " ", c);
      CHECK_MESSAGE((y[p] == INFINITY) == near_infinity, isa_name(isa), " ", r, " ", c);
    }
  });
}

TEST_CASE("depthwise and stem: the same bits for any number of threads" * doctest::test_suite("threads")) {
  on_every_level([](Isa isa) {
    for (const int64_t channels : {1, 3, 37}) {
      const int64_t size = 33, area = size * size;
      std::vector<float> x(channels * area), weight(64 * channels * 9), one(channels * area), many(64 * area);
      for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
      for (size_t i = 0; i < weight.size(); ++i) weight[i] = std::cos(static_cast<float>(i));
      DepthwiseIo io;
      io.x = x.data(), io.weight = weight.data(), io.channels = channels;
      io.x_stride = io.y_stride = area;
      io.window.height = io.window.width = io.window.out_height = io.window.out_width = size;
      io.window.kernel_h = io.window.kernel_w = 5;
      io.window.pad_top = io.window.pad_left = 2;
      StemIo stem;
      stem.x = x.data(), stem.weight = weight.data(), stem.channels = channels, stem.out_channels = 21;
      stem.x_stride = area, stem.y_stride = 17 * 17;
      stem.window = io.window;
      stem.window.out_height = stem.window.out_width = 17;
      stem.window.kernel_h = stem.window.kernel_w = 3;
      stem.window.stride_h = stem.window.stride_w = 2;
      stem.window.pad_top = stem.window.pad_left = 1;
      std::vector<float> stem_one(21 * 17 * 17), stem_many(21 * 17 * 17);
      io.y = one.data(), stem.y = stem_one.data();
      REQUIRE(depthwise_conv(io) == Status::kOk);
      REQUIRE(stem_conv(stem) == Status::kOk);
      for (const int threads : {2, 3, 7}) {
        const Threads host(threads);
        io.y = many.data(), stem.y = stem_many.data();
        REQUIRE(depthwise_conv(io) == Status::kOk);
        REQUIRE(stem_conv(stem) == Status::kOk);
        CHECK_MESSAGE(!std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), isa_name(isa), threads);
        CHECK_MESSAGE(stem_one == stem_many, isa_name(isa), threads);
      }
    }
  });
}

TEST_CASE("stem: both layouts, any window") {
  Numbers numbers(11);
  for (int round = 0; round < 700; ++round) {
    StemIo io;
    Window& w = io.window;
    const bool usual = numbers.below(2);
    w.height = numbers.between(1, 12), w.width = numbers.between(1, 75);
    w.kernel_h = usual ? 3 : numbers.between(1, 7), w.kernel_w = usual ? 3 : numbers.between(1, 7);
    w.stride_h = usual ? 2 : numbers.between(1, 4), w.stride_w = usual ? 2 : numbers.between(1, 4);
    w.dilation_h = numbers.below(5) ? 1 : 2, w.dilation_w = numbers.below(5) ? 1 : 2;
    w.pad_top = numbers.below((w.kernel_h - 1) * w.dilation_h + 1);
    w.pad_left = numbers.below((w.kernel_w - 1) * w.dilation_w + 1);
    if (!fit(w, numbers.below((w.kernel_h - 1) * w.dilation_h + 1), numbers.below((w.kernel_w - 1) * w.dilation_w + 1)))
      continue;
    const int64_t channels = usual ? 3 : numbers.between(1, 5), outs = numbers.between(1, 19);
    const int64_t images = numbers.between(1, 2), gap = numbers.below(9), taps = w.kernel_h * w.kernel_w;
    const bool hwc = numbers.below(2), padded = numbers.below(2);
    const int64_t area = w.height * w.width;
    Planes x = hwc ? Planes(images, area, channels, gap, false, NAN) : Planes(images, channels, area, gap, padded, NAN);
    x.fill(numbers);
    Planes y(images, outs, w.out_height * w.out_width, gap, padded, kCanary);
    const auto weight = numbers.values(outs * taps * channels), bias = numbers.values(outs);
    io.x = x.memory.data(), io.y = y.memory.data(), io.weight = weight.data();
    io.bias = round % 3 ? bias.data() : nullptr;
    io.images = images, io.channels = channels, io.out_channels = outs;
    io.x_image_stride = x.image_stride, io.x_stride = x.stride;
    io.y_image_stride = y.image_stride, io.y_stride = y.stride;
    io.x_layout = hwc ? ImageLayout::kHwc : ImageLayout::kChw;
    io.activation = round % 2 ? Activation::kRelu : Activation::kNone;
    io.padded = padded;
    std::vector<float> expected;
    for (int64_t i = 0; i < images; ++i)
      for (int64_t o = 0; o < outs; ++o)
        for (int64_t p = 0; p < y.area; ++p) {
          float sum = io.bias ? bias[o] : 0.0f;
          for_taps(w, p, [&](int64_t tap, int64_t at) {
            for (int64_t c = 0; c < channels; ++c)
              sum += weight[(o * taps + tap) * channels + c] * (hwc ? x.plane(i, at)[c] : x.plane(i, c)[at]);
          });
          expected.push_back(activate(sum, io.activation));
        }
    on_every_level([&](Isa isa) {
      y.clear();
      REQUIRE(stem_conv(io) == Status::kOk);
      CHECK_MESSAGE(y.holds(expected), isa_name(isa), " ", text(w), "channels ", channels, " hwc ", hwc);
      CHECK_MESSAGE(y.gaps_untouched(), isa_name(isa), " ", text(w), "channels ", channels, " padded ", padded);
    });
  }
}

TEST_CASE("pool: averages of both kinds and maxima, any window") {
  Numbers numbers(13);
  for (int round = 0; round < 900; ++round) {
    PoolIo io;
    Window& w = io.window;
    w.height = numbers.between(1, 20), w.width = numbers.between(1, 45);
    w.kernel_h = numbers.between(1, 4), w.kernel_w = numbers.between(1, 4);
    w.stride_h = numbers.between(1, 3), w.stride_w = numbers.between(1, 3);
    w.dilation_h = numbers.below(4) ? 1 : 2, w.dilation_w = numbers.below(4) ? 1 : 2;
    w.pad_top = numbers.below(w.kernel_h), w.pad_left = numbers.below(w.kernel_w);
    if (!fit(w, numbers.below(w.kernel_h), numbers.below(w.kernel_w))) continue;
    const int64_t images = numbers.between(1, 2), channels = numbers.between(1, 3), gap = numbers.below(9);
    Planes x(images, channels, w.height * w.width, gap, false, NAN);
    x.fill(numbers);
    if (round % 10 == 0) x.plane(0, 0)[numbers.below(x.area)] = NAN;
    Planes y(images, channels, w.out_height * w.out_width, gap, false, kCanary);
    io.x = x.memory.data(), io.y = y.memory.data();
    io.images = images, io.channels = channels;
    io.x_image_stride = x.image_stride, io.x_stride = x.stride;
    io.y_image_stride = y.image_stride, io.y_stride = y.stride;
    io.pool = static_cast<Pool>(round % 3);
    std::vector<float> expected;
    for (int64_t i = 0; i < images; ++i)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < y.area; ++p) {
          float largest = -INFINITY, sum = 0;
          int64_t inside = 0;
          for_taps(w, p, [&](int64_t, int64_t at) {
            const float value = x.plane(i, c)[at];
            largest = std::isnan(largest) || value <= largest ? largest : value;
            sum += value;
            ++inside;
          });
          const int64_t count = io.pool == Pool::kAverage ? std::max<int64_t>(inside, 1) : w.kernel_h * w.kernel_w;
          expected.push_back(io.pool == Pool::kMaximum ? largest : sum / static_cast<float>(count));
        }
    on_every_level([&](Isa isa) {
      y.clear();
      REQUIRE(pool_planes(io) == Status::kOk);
      CHECK_MESSAGE(y.holds(expected), isa_name(isa), " ", text(w), "pool ", static_cast<int>(io.pool));
      CHECK_MESSAGE(y.gaps_untouched(), isa_name(isa), " ", text(w));
    });
  }
}

TEST_CASE("whole planes: mean, sum, scale, activation; in place; squeeze-and-excite") {
  on_every_level([](Isa isa) {
    Numbers numbers(17);
    for (int64_t pixels = 1; pixels <= 150; ++pixels)
      for (const bool padded : {false, true}) {
        const int64_t channels = pixels % 5 + 1, gap = pixels % 7;
        Planes a(1, channels, pixels, gap, padded, kCanary), b(1, channels, pixels, gap + 1, padded, NAN),
            y(1, channels, pixels, gap + 2, padded, kCanary);
        a.fill(numbers), b.fill(numbers);
        const auto factors = numbers.values(channels);
        PlanesIo io;
        io.x = a.memory.data(), io.x2 = b.memory.data(), io.y = y.memory.data();
        io.channels = channels, io.pixels = pixels, io.padded = padded;
        io.x_stride = a.stride, io.x2_stride = b.stride, io.y_stride = y.stride;
        io.activation = Activation::kRelu;
        const auto check = [&](const char* what, const Planes& result, const Planes& x, auto&& want) {
          int64_t wrong = 0;
          for (int64_t c = 0; c < channels; ++c)
            for (int64_t p = 0; p < pixels; ++p) wrong += !(result.plane(0, c)[p] == want(c, p, x.plane(0, c)[p]));
          CHECK_MESSAGE(wrong == 0, isa_name(isa), " ", what, " pixels ", pixels);
          CHECK_MESSAGE(result.gaps_untouched(), isa_name(isa), " ", what, " pixels ", pixels);
        };
        REQUIRE(add_planes(io) == Status::kOk);
        check("add", y, a, [&](int64_t c, int64_t p, float x) { return std::fmax(0.0f, x + b.plane(0, c)[p]); });
        io.x2 = factors.data();
        REQUIRE(scale_planes(io) == Status::kOk);
        check("scale", y, a, [&](int64_t c, int64_t, float x) { return std::fmax(0.0f, x * factors[c]); });
        REQUIRE(activate_planes(io) == Status::kOk);
        check("activate", y, a, [&](int64_t, int64_t, float x) { return std::fmax(0.0f, x); });

        std::vector<float> means(channels + 1, kCanary);
        io.y = means.data();
        REQUIRE(average_planes(io) == Status::kOk);
        for (int64_t c = 0; c < channels; ++c) {
          float sum = 0;
          for (int64_t p = 0; p < pixels; ++p) sum += a.plane(0, c)[p];
          CHECK_MESSAGE(means[c] == sum / static_cast<float>(pixels), isa_name(isa), " pixels ", pixels);
        }
        CHECK(means[channels] == kCanary);

        Planes in_place = a;
        io.x = io.y = in_place.memory.data(), io.y_stride = a.stride;
        REQUIRE(scale_planes(io) == Status::kOk);
        check("scale in place", in_place, a,
              [&](int64_t c, int64_t, float x) { return std::fmax(0.0f, x * factors[c]); });
        in_place = a;
        REQUIRE(activate_planes(io) == Status::kOk);
        check("activate in place", in_place, a, [&](int64_t, int64_t, float x) { return std::fmax(0.0f, x); });
      }
  });
}

TEST_CASE("squeeze-and-excite against its steps, in place and not") {
  on_every_level([](Isa isa) {
    Numbers numbers(19);
    for (const int64_t channels : {1, 3, 8, 17, 64, 100})
      for (const int64_t squeezed : {0, 1, 4, 7, 16, 33})
        for (const int64_t pixels : {1, 4, 49, 64}) {
          Planes x(1, channels, pixels, 3, false, kCanary), y(1, channels, pixels, 5, false, kCanary);
          // Means of whole numbers, whatever the number of pixels.
          for (int64_t c = 0; c < channels; ++c) std::fill_n(x.plane(0, c), pixels, numbers.value());
          const auto w1 = numbers.values(squeezed * channels), w2 = numbers.values(squeezed * channels),
                     b1 = numbers.values(squeezed), b2 = numbers.values(channels);
          SqueezeExciteIo io;
          io.planes.x = x.memory.data(), io.planes.y = y.memory.data();
          io.planes.channels = channels, io.planes.pixels = pixels;
          io.planes.x_stride = x.stride, io.planes.y_stride = y.stride;
          io.weight1 = w1.data(), io.bias1 = b1.data(), io.weight2 = w2.data(), io.bias2 = b2.data();
          io.squeezed = squeezed;
          io.gate = Activation::kRelu6;
          REQUIRE(squeeze_excite(io) == Status::kOk);
          int64_t wrong = 0;
          for (int64_t c = 0; c < channels; ++c) {
            float gate = b2[c];
            for (int64_t s = 0; s < squeezed; ++s) {
              float hidden = b1[s];
              for (int64_t k = 0; k < channels; ++k) hidden += w1[s * channels + k] * x.plane(0, k)[0];
              gate += w2[c * squeezed + s] * std::fmax(0.0f, hidden);
            }
            for (int64_t p = 0; p < pixels; ++p)
              wrong += !(y.plane(0, c)[p] == x.plane(0, c)[p] * activate(gate, Activation::kRelu6));
          }
          CHECK_MESSAGE(wrong == 0, isa_name(isa), " channels ", channels, " squeezed ", squeezed);
          CHECK(y.gaps_untouched());
          io.planes.y = x.memory.data(), io.planes.y_stride = x.stride;
          REQUIRE(squeeze_excite(io) == Status::kOk);
          for (int64_t c = 0; c < channels; ++c)
            CHECK(!std::memcmp(x.plane(0, c), y.plane(0, c), pixels * sizeof(float)));
          io.gate = Activation::kSigmoid;
          REQUIRE(squeeze_excite(io) == Status::kOk);
        }
  });
}

TEST_CASE("planes: windows and shapes that cannot be are refused") {
  Window good;
  good.height = good.width = good.out_height = good.out_width = 8;
  good.kernel_h = good.kernel_w = 3;
  good.pad_top = good.pad_left = 1;
  REQUIRE(check_window(good) == Status::kOk);
  const auto refused = [&](int64_t Window::* field, int64_t value) {
    Window window = good;
    window.*field = value;
    return check_window(window) == Status::kBadShape;
  };
  constexpr int64_t kHuge = INT64_MAX;
  for (const auto field :
       {&Window::height, &Window::width, &Window::out_height, &Window::out_width, &Window::kernel_h, &Window::kernel_w,
        &Window::stride_h, &Window::stride_w, &Window::dilation_h, &Window::dilation_w})
    for (const int64_t value : {int64_t{0}, int64_t{-1}, INT64_MIN, kHuge}) CHECK(refused(field, value));
  for (const auto field : {&Window::pad_top, &Window::pad_left})
    for (const int64_t value : {int64_t{-1}, int64_t{3}, INT64_MIN, kHuge}) CHECK(refused(field, value));
  CHECK(refused(&Window::out_height, 10));  // its last window starts below x
  CHECK(!refused(&Window::out_height, 9));
  Window large = good;
  large.height = large.width = large.out_height = large.out_width = int64_t{1} << 21;
  CHECK(check_window(large) == Status::kBadShape);

  std::vector<float> memory(3 * 64, 1.0f), weight(64, 1.0f), out(3 * 64, 0.0f);
  DepthwiseIo io;
  io.x = memory.data(), io.y = out.data(), io.weight = weight.data();
  io.channels = 3, io.x_stride = io.y_stride = 64, io.window = good;
  CHECK(depthwise_conv(io) == Status::kOk);
  io.x = nullptr;
  CHECK(depthwise_conv(io) == Status::kNullPointer);
  io.x = memory.data(), io.y_stride = 63;
  CHECK(depthwise_conv(io) == Status::kBadShape);
  io.y_stride = 64, io.x_stride = -64;
  CHECK(depthwise_conv(io) == Status::kBadShape);
  io.x_stride = 64, io.channels = -1;
  CHECK(depthwise_conv(io) == Status::kBadShape);
  io.channels = 0, io.x = nullptr;
  CHECK(depthwise_conv(io) == Status::kOk);
  io.channels = 1, io.x = memory.data(), io.images = 2, io.x_image_stride = 64, io.y_image_stride = 63;
  CHECK(depthwise_conv(io) == Status::kBadShape);

  StemIo stem;
  stem.x = memory.data(), stem.y = out.data(), stem.weight = weight.data();
  stem.channels = 3, stem.out_channels = 1, stem.window = good;
  stem.x_layout = ImageLayout::kHwc, stem.x_stride = 2;
  CHECK(stem_conv(stem) == Status::kBadShape);
  stem.x_stride = 3;
  CHECK(stem_conv(stem) == Status::kOk);

  PlanesIo planes;
  planes.channels = 2, planes.pixels = 9, planes.x_stride = planes.y_stride = planes.x2_stride = 9;
  planes.x = memory.data(), planes.y = out.data();
  CHECK(add_planes(planes) == Status::kNullPointer);
  CHECK(activate_planes(planes) == Status::kOk);
  planes.pixels = 0;
  CHECK(average_planes(planes) == Status::kBadShape);
  CHECK(activate_planes(planes) == Status::kOk);
  planes.pixels = 9, planes.padded = true;
  CHECK(activate_planes(planes) == Status::kBadShape);
}

// Every kernel of the family on every level this machine has, against loops in double precision. Integer-valued inputs
// make sums exact, so that equality is asked for, not closeness.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "sparsecore/group_lists.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Pattern {
  int32_t rows, cols, depth, window;
  double density;
};

// A random matrix [n, k] under a random mask of blocks, packed. The first group keeps nothing, the last one everything.
struct Packed {
  Pattern pattern;
  DType dtype;
  int64_t n, k, groups, blocks, panels;
  Bytes dense, values, index;
  std::vector<uint8_t> mask, order;
  std::vector<int32_t> starts;
  GroupLists lists;

  Packed(int64_t n, int64_t k, Pattern p, DType dtype, bool integers, unsigned seed)
      : pattern(p),
        dtype(dtype),
        n(n),
        k(k),
        groups(ceil_div(n, p.rows)),
        blocks(ceil_div(k, p.cols)),
        panels(ceil_div(k, p.depth)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    mask.resize(groups * blocks);
    for (auto& kept : mask) kept = random() % 1000 < p.density * 1000;
    if (groups > 1) std::fill(mask.begin(), mask.begin() + blocks, uint8_t{0});
    if (groups > 2) std::fill(mask.end() - blocks, mask.end(), uint8_t{1});
    dense.resize(n * k * size_of(dtype));
    for (int64_t i = 0; i < n * k; ++i) {
      float value = integers ? static_cast<float>(static_cast<int>(random() % 7) - 3) : normal(random);
      if (!integers && dtype == DType::kInt8) value = std::round(20 * value);
      if (kept(i / k, i % k)) put(dense, dtype, i, value);
    }
    const int64_t records = group_lists_count(mask.data(), groups, blocks);
    values.assign((records + 1) * p.rows * p.cols * size_of(dtype), 0xee);
    index.assign((records + 1) * group_lists_index_bytes(p.cols, p.depth), 0xee);
    order.assign(panels * groups, 0xee);
    starts.assign(panels * (groups + 1), -1);
    REQUIRE(group_lists_pack(dense.data(), dtype, mask.data(), n, k, p.rows, p.cols, p.depth, p.window, values.data(),
                             index.data(), order.data(), starts.data()) == Status::kOk);
    lists = {values.data(), index.data(), order.data(), starts.data(), records, p.rows, p.cols, p.depth, p.window};
  }

  bool kept(int64_t o, int64_t c) const { return mask[o / pattern.rows * blocks + c / pattern.cols]; }
  double at(int64_t o, int64_t c) const { return get(dense, dtype, o * k + c); }
};

double activated(double x, Activation activation) {
  const auto relu6 = [](double v) { return std::min(std::max(v, 0.0), 6.0); };
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return std::max(x, 0.0);
    case Activation::kGelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kRelu6: return relu6(x);
    case Activation::kHardSwish: return x * relu6(x + 3) / 6;
    case Activation::kHardSigmoid: return relu6(x + 3) / 6;
    case Activation::kSigmoid: return 1 / (1 + std::exp(-x));
  }
  return x;
}

const std::vector<Isa>& kernel_levels() {
  static const std::vector<Isa> found = levels_of("group_lists_conv");
  return found;
}

// One side of a convolution: values with gaps between planes (pixels) and images. Gaps hold NaN in what is read and a
// canary in what is written. Padded planes are followed by what may be touched.
struct Side {
  static constexpr uint8_t kCanary = 0x5a;
  DType dtype;
  ImageLayout layout;
  int64_t images, channels, pixels, stride, image_stride;
  Bytes data;

  Side(int64_t images, int64_t channels, int64_t pixels, ImageLayout layout, DType dtype, bool padded)
      : dtype(dtype), layout(layout), images(images), channels(channels), pixels(pixels) {
    stride = layout == ImageLayout::kHwc ? channels + 3 : padded ? ceil_div(pixels, 16) * 16 : pixels + 2;
    image_stride = stride * (layout == ImageLayout::kHwc ? pixels : channels) + 5;
    // Exactly as long as the values reach, so that a sanitizer sees the first element too many.
    const int64_t last = layout == ImageLayout::kHwc ? (pixels - 1) * stride + channels
                                                     : (channels - 1) * stride + (padded ? stride : pixels);
    data.assign(images && channels ? ((images - 1) * image_stride + last) * size_of(dtype) : 0, kCanary);
  }
  int64_t place(int64_t image, int64_t c, int64_t p) const {
    return image * image_stride + (layout == ImageLayout::kHwc ? p * stride + c : c * stride + p);
  }
  float at(int64_t image, int64_t c, int64_t p) const { return get(data, dtype, place(image, c, p)); }

  template <typename Draw>
  void fill(Draw&& draw) {
    for (int64_t i = 0; i < static_cast<int64_t>(data.size()) / size_of(dtype); ++i) put(data, dtype, i, NAN);
    for (int64_t i = 0; i < images; ++i)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < pixels; ++p) put(data, dtype, place(i, c, p), draw());
  }
  // Everything but the values, and but what padding allows, is as it was.
  bool gaps_kept(bool padded) const {
    std::vector<bool> mine(data.size());
    const int64_t size = size_of(dtype),
                  touched = padded && layout == ImageLayout::kChw ? ceil_div(pixels, 16) * 16 : pixels;
    for (int64_t i = 0; i < images; ++i)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < touched; ++p)
          for (int64_t b = 0; b < size; ++b) mine[place(i, c, p) * size + b] = true;
    for (size_t b = 0; b < data.size(); ++b)
      if (!mine[b] && data[b] != kCanary) return false;
    return true;
  }
};

struct Shape {
  int64_t images, channels, out_channels;
  Window window;
};

Window pointwise(int64_t height, int64_t width) {
  Window w;
  w.height = w.out_height = height, w.width = w.out_width = width;
  return w;
}

Window window_of(int64_t height, int64_t width, int64_t kernel_h, int64_t kernel_w, int64_t stride, int64_t pad_top,
                 int64_t pad_left, int64_t dilation, int64_t out_height, int64_t out_width) {
  return {height, width,  out_height, out_width, kernel_h, kernel_w,
          stride, stride, pad_top,    pad_left,  dilation, dilation};
}

// A convolution with everything a call needs.
struct Problem {
  Shape shape;
  Packed weight;
  DType dtype;
  Side x, y, residual;
  Bytes bias;
  std::vector<float> scale;
  ConvIo io;

  Problem(Shape s, Pattern pattern, DType dtype, DType weights, ImageLayout in, ImageLayout out, bool padded,
          bool with_residual, Activation activation, unsigned seed)
      : shape(s),
        weight(s.out_channels, s.channels * s.window.kernel_h * s.window.kernel_w, pattern, weights, true, seed),
        dtype(dtype),
        x(s.images, s.channels, s.window.height * s.window.width, in, dtype, padded),
        y(s.images, s.out_channels, s.window.out_height * s.window.out_width, out, dtype, padded),
        residual(s.images, s.out_channels, y.pixels, out, dtype, padded) {
    std::mt19937 random(seed + 1);
    const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 7) - 3); };
    x.fill(draw);
    residual.fill(draw);
    bias.resize(s.out_channels * 2);
    for (int64_t o = 0; o < s.out_channels; ++o) put(bias, DType::kBFloat16, o, draw());
    for (int64_t o = 0; o < s.out_channels; ++o) scale.push_back(random() % 2 ? 0.5f : 1.0f);
    io.x = x.data.data(), io.y = y.data.data(), io.bias = bias.data(), io.weight_scale = scale.data();
    io.bias_dtype = DType::kBFloat16;
    if (with_residual) io.residual = residual.data.data();
    io.images = s.images, io.channels = s.channels, io.out_channels = s.out_channels;
    io.x_image_stride = x.image_stride, io.x_stride = x.stride;
    io.y_image_stride = y.image_stride, io.y_stride = y.stride;
    io.residual_image_stride = residual.image_stride, io.residual_stride = residual.stride;
    io.x_layout = in, io.y_layout = out;
    io.window = s.window;
    io.dtype = dtype, io.weight_dtype = weights;
    io.activation = activation;
    io.padded = padded;
  }

  // Before the activation: [images, out_channels, pixels].
  std::vector<double> exact() const {
    const Window& w = shape.window;
    const std::vector<float> inputs = widened(x.data, dtype);
    std::vector<double> sums(shape.images * shape.out_channels * y.pixels);
    double* out = sums.data();
    for (int64_t image = 0; image < shape.images; ++image)
      for (int64_t o = 0; o < shape.out_channels; ++o, out += y.pixels) {
        for (int64_t c = 0; c < weight.k; ++c) {
          if (!weight.kept(o, c)) continue;
          const double value = weight.at(o, c);
          const int64_t tap = c / shape.channels, channel = c % shape.channels;
          for (int64_t i = 0; i < w.out_height; ++i) {
            const int64_t row = i * w.stride_h - w.pad_top + tap / w.kernel_w * w.dilation_h;
            if (row < 0 || row >= w.height) continue;
            for (int64_t j = 0; j < w.out_width; ++j) {
              const int64_t column = j * w.stride_w - w.pad_left + tap % w.kernel_w * w.dilation_w;
              if (column < 0 || column >= w.width) continue;
              out[i * w.out_width + j] += value * inputs[x.place(image, channel, row * w.width + column)];
            }
          }
        }
        for (int64_t p = 0; p < y.pixels; ++p) {
          out[p] = out[p] * scale[o] + get(bias, DType::kBFloat16, o);
          if (io.residual) out[p] += residual.at(image, o, p);
        }
      }
    return sums;
  }

  void check(const std::vector<double>& sums, const std::string& what) {
    const bool whole =
        io.activation == Activation::kNone || io.activation == Activation::kRelu || io.activation == Activation::kRelu6;
    for (int64_t image = 0; image < shape.images; ++image)
      for (int64_t o = 0; o < shape.out_channels; ++o)
        for (int64_t p = 0; p < y.pixels; ++p) {
          const double sum = sums[(image * shape.out_channels + o) * y.pixels + p],
                       expected = activated(sum, io.activation);
          const float got = y.at(image, o, p);
          const double tolerance = whole                      ? 0.0
                                   : dtype == DType::kFloat32 ? 1e-6 * std::max(1.0, std::fabs(sum))
                                                              : 0.01 * std::max(1.0, std::fabs(sum));
          const float wanted = whole ? rounded(dtype, static_cast<float>(expected)) : static_cast<float>(expected);
          if (!(std::fabs(got - wanted) <= tolerance)) {
            CAPTURE(what);
            CAPTURE(image);
            CAPTURE(o);
            CAPTURE(p);
            CHECK(got == wanted);
            return;
          }
        }
    CHECK(y.gaps_kept(io.padded));
  }

  // The residual lies where y is written.
  void overwrite_residual() {
    io.residual = io.y, io.residual_image_stride = y.image_stride, io.residual_stride = y.stride;
  }

  void clear() {
    std::fill(y.data.begin(), y.data.end(), Side::kCanary);
    if (io.residual != io.y) return;
    for (int64_t i = 0; i < y.images; ++i)
      for (int64_t c = 0; c < y.channels; ++c)
        for (int64_t p = 0; p < y.pixels; ++p) put(y.data, dtype, y.place(i, c, p), residual.at(i, c, p));
  }
};

std::string name(const Problem& p, Isa isa) {
  const Pattern& g = p.weight.pattern;
  return std::string(isa_name(isa)) + " " + std::to_string(g.rows) + "x" + std::to_string(g.cols) + " depth " +
         std::to_string(g.depth) + " window " + std::to_string(g.window) + " n " + std::to_string(p.weight.n) + " k " +
         std::to_string(p.weight.k) + " pixels " + std::to_string(p.y.pixels) + " x " + name_of(p.dtype) +
         (p.x.layout == ImageLayout::kHwc ? " hwc" : " chw") + " y " +
         (p.y.layout == ImageLayout::kHwc ? "hwc" : "chw") + " w " + name_of(p.weight.dtype) +
         (p.io.padded ? " padded" : "") + (p.io.residual ? " residual" : "") + " activation " +
         std::to_string(static_cast<int>(p.io.activation));
}

void check_everywhere(Problem& p) {
  CapRestored restored;
  const std::vector<double> sums = p.exact();
  for (const Isa isa : kernel_levels()) {
    set_isa_cap(isa);
    const std::string what = name(p, isa);
    p.clear();
    const Status status = group_lists_conv(p.io, p.weight.lists);
    CAPTURE(what);
    REQUIRE(status == Status::kOk);
    p.check(sums, what);
  }
}

const std::vector<Pattern> kPatterns = {
    {1, 1, 16, 1, 0.5},    {1, 1, 128, 128, 0.1},  {1, 1, 48, 5, 0.3},    {1, 1, 512, 16, 0.2}, {2, 1, 32, 4, 0.5},
    {2, 1, 128, 64, 0.15}, {4, 1, 128, 32, 0.3},   {4, 1, 16, 3, 0.5},    {8, 1, 256, 8, 0.3},  {8, 1, 64, 2, 1.0},
    {16, 1, 32, 2, 0.4},   {32, 1, 128, 4, 0.3},   {1, 4, 64, 32, 0.4},   {1, 8, 128, 7, 0.3},  {1, 16, 128, 16, 0.4},
    {1, 32, 64, 9, 0.5},   {4, 4, 32, 8, 0.4},     {16, 4, 64, 2, 0.4},   {16, 16, 32, 1, 0.5}, {2, 2, 1024, 3, 0.4},
    {8, 1, 512, 16, 0.5},  {1, 1, 65536, 256, .1}, {32, 32, 64, 256, .5}, {4, 1, 304, 2, 0.2},
};

// Normal deviates, so that another order of sums would show.
Side random_side(int64_t images, int64_t channels, int64_t pixels, ImageLayout layout, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Side side(images, channels, pixels, layout, DType::kFloat32, false);
  side.fill([&] { return normal(random); });
  return side;
}

const std::vector<DType> kFloats = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
const std::vector<DType> kStored = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8};

}  // namespace

TEST_CASE("group lists: pack, unpack, validate") {
  for (const Pattern& pattern : kPatterns)
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{37, 300}, {64, 128}, {1, 1}, {5, 0}, {0, 20}, {33, 31}})
      for (const DType dtype : kStored) {
        const Packed p(n, k, pattern, dtype, true, 1);
        int64_t where = -1;
        CHECK(group_lists_check(p.lists, n, k) == Status::kOk);
        CHECK(group_lists_validate(p.lists, n, k, &where) == Status::kOk);
        Bytes back(p.dense.size(), 0xff);
        REQUIRE(group_lists_unpack(p.lists, dtype, n, k, back.data()) == Status::kOk);
        CHECK(back == p.dense);
        CHECK(std::count_if(p.mask.begin(), p.mask.end(), [](uint8_t m) { return m; }) == p.lists.records);
        const int64_t record = pattern.rows * pattern.cols * size_of(dtype);
        CHECK(std::all_of(p.values.end() - record, p.values.end(), [](uint8_t b) { return b == 0; }));
        // In every window the lists are no longer than the ones before.
        for (int64_t panel = 0; panel < p.panels; ++panel) {
          const int32_t* starts = p.starts.data() + panel * (p.groups + 1);
          for (int64_t i = 1; i < p.groups; ++i)
            if (i % pattern.window) CHECK(starts[i + 1] - starts[i] <= starts[i] - starts[i - 1]);
        }
      }
}

TEST_CASE("group lists: defaults are what the format allows") {
  for (const int32_t rows : {1, 2, 4, 8, 16, 32})
    for (const int32_t cols : {1, 2, 4, 8, 16, 32})
      for (const int64_t size : {1, 5, 16, 33, 100, 128, 129, 512, 4096})
        for (const double density : {0.0, 0.05, 0.1, 0.3, 1.0}) {
          const int32_t depth = group_lists_depth(rows, cols, size, density), window = group_lists_window(rows, size);
          CAPTURE(rows);
          CAPTURE(cols);
          CAPTURE(size);
          const bool good = depth >= 16 && depth <= 65536 && depth % 16 == 0 && depth % cols == 0 && window >= 1 &&
                            window <= 256 && (depth / cols <= 256 || rows >= 4);
          CHECK(good);
        }
}

TEST_CASE("group lists: the transpose holds the same values") {
  for (const Pattern& pattern : kPatterns)
    for (const auto& [depth_t, window_t] : {std::pair<int32_t, int32_t>{32, 4}, {128, 64}, {1024, 256}}) {
      const int64_t n = 75, k = 130;
      const Packed p(n, k, pattern, DType::kFloat32, true, 3);
      GroupLists t;
      t.rows = pattern.cols, t.cols = pattern.rows, t.depth = depth_t, t.window = window_t;
      t.records = p.lists.records;
      const int64_t groups = ceil_div(k, t.rows), panels = ceil_div(n, depth_t), size = t.rows * t.cols;
      Bytes index((t.records + 1) * group_lists_index_bytes(t.cols, depth_t), 0xee);
      std::vector<uint8_t> order(panels * groups, 0xee);
      std::vector<int32_t> starts(panels * (groups + 1), -1), source(t.records, -1);
      REQUIRE(group_lists_transpose(p.lists, n, k, depth_t, window_t, index.data(), order.data(), starts.data(),
                                    source.data()) == Status::kOk);
      std::vector<float> values((t.records + 1) * size);
      for (int64_t i = 0; i < t.records; ++i)
        for (int r = 0; r < pattern.rows; ++r)
          for (int c = 0; c < pattern.cols; ++c)
            values[i * size + r * t.rows + c] = get(p.values, DType::kFloat32, source[i] * size + c * pattern.rows + r);
      t.values = values.data(), t.index = index.data(), t.order = order.data(), t.starts = starts.data();
      REQUIRE(group_lists_validate(t, k, n, nullptr) == Status::kOk);
      std::vector<float> dense(k * n, -1.0f);
      REQUIRE(group_lists_unpack(t, DType::kFloat32, k, n, dense.data()) == Status::kOk);
      bool same = true;
      for (int64_t o = 0; o < n; ++o)
        for (int64_t c = 0; c < k; ++c) same = same && dense[c * n + o] == static_cast<float>(p.at(o, c));
      CHECK(same);
    }
}

TEST_CASE("group lists: offences are found and never reach a kernel") {
  Problem p({1, 100, 70, pointwise(3, 3)}, {2, 1, 64, 8, 0.5}, DType::kFloat32, DType::kFloat32, ImageLayout::kChw,
            ImageLayout::kChw, false, false, Activation::kNone, 2);
  Packed& w = p.weight;
  int64_t where = -1;
  const auto validated = [&] { return group_lists_validate(w.lists, 70, 100, &where); };
  const auto ran = [&] { return group_lists_conv(p.io, w.lists); };
  REQUIRE(validated() == Status::kOk);
  SUBCASE("index outside the last, shorter panel") {
    w.index[w.lists.records - 1] = 36;
    CHECK(group_lists_check(w.lists, 70, 100) == Status::kOk);
    CHECK(validated() == Status::kBadIndex);
    CHECK(where == w.lists.records - 1);
    CHECK(ran() == Status::kBadIndex);
  }
  SUBCASE("index repeated") {
    const int64_t first = w.starts[3];
    w.index[first + 1] = w.index[first];
    CHECK(validated() == Status::kUnsorted);
    CHECK(where == first + 1);
    CHECK(ran() == Status::kOk);
  }
  SUBCASE("padding that is not zero") {
    w.index[w.lists.records] = 1;
    CHECK(validated() == Status::kBadIndex);
    CHECK(where == w.lists.records);
  }
  SUBCASE("a group twice") {
    w.order[9] = w.order[8];
    CHECK(validated() == Status::kBadIndex);
    CHECK(where == 9);
    CHECK(ran() == Status::kOk);
  }
  SUBCASE("a group outside the last, shorter window") {
    w.order[34] = 3;
    CHECK(group_lists_check(w.lists, 70, 100) == Status::kBadIndex);
    CHECK(ran() == Status::kBadIndex);
  }
  SUBCASE("starts descending") {
    w.starts[5] = w.starts[6] + 1;
    CHECK(ran() == Status::kBadPointers);
  }
  SUBCASE("negative starts") {
    for (const int32_t start : {-4, INT32_MIN}) {
      w.starts[1] = start;
      CHECK(ran() == Status::kBadPointers);
    }
  }
  SUBCASE("first start") {
    w.starts[0] = 1;
    CHECK(ran() == Status::kBadPointers);
  }
  SUBCASE("a panel that does not start where the one before ends") {
    ++w.starts[36];
    CHECK(ran() == Status::kBadPointers);
  }
  SUBCASE("last start is not the number of records") {
    --w.lists.records;
    CHECK(ran() == Status::kBadPointers);
  }
  SUBCASE("patterns") {
    for (const Pattern& bad : {Pattern{3, 1, 64, 8, 0},
                               {0, 1, 64, 8, 0},
                               {64, 1, 64, 8, 0},
                               {2, 3, 96, 8, 0},
                               {2, 1, 8, 8, 0},
                               {2, 1, 65552, 8, 0},
                               {2, 1, 40, 8, 0},
                               {2, 32, 48, 8, 0},
                               {2, 1, 64, 0, 0},
                               {2, 1, 64, 257, 0},
                               {2, 1, -64, 8, 0}}) {
      GroupLists lists = w.lists;
      lists.rows = bad.rows, lists.cols = bad.cols, lists.depth = bad.depth, lists.window = bad.window;
      CHECK(group_lists_conv(p.io, lists) == Status::kBadPattern);
    }
  }
  SUBCASE("missing arrays") {
    w.lists.index = nullptr;
    CHECK(ran() == Status::kNullPointer);
  }
  SUBCASE("shapes of the call") {
    ConvIo io = p.io;
    io.x_stride = 8;
    CHECK(group_lists_conv(io, w.lists) == Status::kBadShape);
    io = p.io, io.padded = true;
    CHECK(group_lists_conv(io, w.lists) == Status::kBadShape);
    io = p.io, io.window.stride_h = 0;
    CHECK(group_lists_conv(io, w.lists) == Status::kBadShape);
    io = p.io, io.window.height = int64_t{1} << 40;
    CHECK(group_lists_conv(io, w.lists) == Status::kBadShape);
    io = p.io, io.images = -1;
    CHECK(group_lists_conv(io, w.lists) == Status::kBadShape);
  }
}

TEST_CASE("group lists: 1 x 1 convolutions of every pattern at widths around the tiles") {
  unsigned seed = 10;
  for (const Pattern& pattern : kPatterns)
    for (const int64_t pixels : {1, 7, 15, 16, 17, 31, 33, 48, 49, 63, 64, 65, 81, 97, 112, 130, 196})
      for (const bool padded : {false, true}) {
        ++seed;
        Problem p({1, pixels % 2 ? 130 : 77, pixels % 3 ? 37 : 64, pointwise(1, pixels)}, pattern, DType::kFloat32,
                  DType::kFloat32, ImageLayout::kChw, ImageLayout::kChw, padded, seed % 2,
                  seed % 3 ? Activation::kNone : Activation::kRelu6, seed);
        check_everywhere(p);
      }
}

TEST_CASE("group lists: large planes, packed though they could be read where they lie") {
  Problem p({1, 80, 44, pointwise(3, 683)}, {1, 1, 80, 16, 0.6}, DType::kFloat32, DType::kFloat32, ImageLayout::kChw,
            ImageLayout::kChw, true, true, Activation::kRelu, 99);
  check_everywhere(p);
}

// Planes beyond the level 2 cache under short lists: each list passes several tiles.
Problem long_rows(const Pattern& pattern, int64_t channels, bool padded, Activation activation, unsigned seed) {
  return Problem({1, channels, 41, pointwise(61, 97)}, pattern, DType::kFloat32, DType::kFloat32, ImageLayout::kChw,
                 ImageLayout::kChw, padded, seed % 2, activation, seed);
}
const std::vector<Pattern> kTall = {
    {4, 1, 64, 4, 0.05}, {8, 1, 64, 3, 0.1}, {16, 1, 64, 2, 0.1}, {32, 1, 64, 1, 0.1}, {4, 1, 320, 8, 0.02}};

TEST_CASE("group lists: short lists pass long rows of pixels") {
  unsigned seed = 200;
  for (const Pattern& pattern : kTall)
    for (const Activation activation : {Activation::kNone, Activation::kRelu6, Activation::kHardSwish})
      for (const bool padded : {false, true}) {
        Problem p = long_rows(pattern, pattern.depth - 20, padded, activation, ++seed);
        check_everywhere(p);
      }
}

TEST_CASE("group lists: y overwrites the residual") {
  for (const Pattern& pattern : kTall) {
    Problem p = long_rows(pattern, pattern.depth - 20, false, Activation::kRelu, 281);
    p.overwrite_residual();
    check_everywhere(p);
  }
  for (const ImageLayout layout : {ImageLayout::kChw, ImageLayout::kHwc}) {
    Problem p({2, 300, 41, pointwise(13, 7)}, {4, 1, 64, 4, 0.3}, DType::kFloat32, DType::kFloat32, layout, layout,
              false, true, Activation::kHardSwish, 283);
    p.overwrite_residual();
    check_everywhere(p);
  }
}

TEST_CASE("group lists: long rows of pixels, cut for threads" * doctest::test_suite("threads")) {
  for (const int count : {2, 3, 7}) {
    Problem p = long_rows(kTall[0], 44, false, Activation::kRelu, 290);
    const Threads threads(count);
    check_everywhere(p);
  }
}

TEST_CASE("group lists: every activation, with and without a residual, in every layout") {
  unsigned seed = 100;
  for (const Pattern& pattern : {Pattern{1, 1, 32, 8, 0.3}, {4, 1, 64, 8, 0.3}, {8, 2, 64, 4, 0.4}})
    for (int32_t activation = 0; activation <= kLastActivation; ++activation)
      for (const ImageLayout in : {ImageLayout::kChw, ImageLayout::kHwc})
        for (const ImageLayout out : {ImageLayout::kChw, ImageLayout::kHwc})
          for (const bool residual : {false, true}) {
            Problem p({2, 50, 21, pointwise(5, 7)}, pattern, DType::kFloat32, DType::kFloat32, in, out, false, residual,
                      static_cast<Activation>(activation), ++seed);
            check_everywhere(p);
          }
}

TEST_CASE("group lists: every type of activations and weights") {
  unsigned seed = 300;
  for (const Pattern& pattern : {Pattern{1, 1, 64, 16, 0.3}, {4, 1, 64, 4, 0.4}, {16, 16, 32, 2, 0.5}})
    for (const DType dtype : kFloats)
      for (const DType weights : kStored)
        for (const ImageLayout layout : {ImageLayout::kChw, ImageLayout::kHwc}) {
          // Sums stay within what bfloat16 holds exactly.
          Problem p({1, 14, 40, pointwise(3, 9)}, pattern, dtype, weights, layout, layout, false, true,
                    Activation::kRelu, ++seed);
          check_everywhere(p);
        }
}

TEST_CASE("group lists: windows") {
  const std::vector<Window> windows = {
      window_of(7, 9, 3, 3, 1, 1, 1, 1, 7, 9),   window_of(7, 9, 3, 3, 2, 1, 1, 1, 4, 5),
      window_of(8, 8, 1, 1, 2, 0, 0, 1, 4, 4),   window_of(9, 6, 5, 3, 1, 2, 0, 1, 9, 6),
      window_of(11, 5, 3, 3, 1, 2, 2, 2, 11, 5), window_of(5, 5, 2, 4, 3, 0, 1, 1, 2, 2),
      window_of(1, 1, 3, 3, 1, 1, 1, 1, 1, 1),   window_of(6, 20, 1, 7, 1, 0, 3, 1, 6, 20),
      window_of(4, 4, 2, 2, 1, 1, 1, 1, 5, 5),   window_of(3, 3, 1, 1, 1, 0, 0, 1, 2, 3),
      window_of(10, 10, 3, 3, 2, 0, 0, 3, 2, 3)};
  unsigned seed = 500;
  for (const Window& window : windows)
    for (const Pattern& pattern : {Pattern{1, 1, 32, 16, 0.3}, {4, 1, 128, 4, 0.4}, {2, 8, 64, 8, 0.4}})
      for (const DType dtype : {DType::kFloat32, DType::kFloat16})
        for (const ImageLayout layout : {ImageLayout::kChw, ImageLayout::kHwc})
          for (const bool padded : {false, true}) {
            if (padded && layout == ImageLayout::kHwc) continue;
            ++seed;
            Problem p({2, 13, 19, window}, pattern, dtype, DType::kFloat32, layout, layout, padded, seed % 2,
                      Activation::kNone, seed);
            check_everywhere(p);
          }
}

TEST_CASE("group lists: empty shapes") {
  for (const Shape& shape : {Shape{0, 8, 8, pointwise(2, 2)}, {1, 0, 8, pointwise(3, 3)}, {2, 8, 0, pointwise(2, 2)}})
    for (const Pattern& pattern : kPatterns) {
      Problem p(shape, pattern, DType::kFloat32, DType::kFloat32, ImageLayout::kChw, ImageLayout::kChw, false,
                shape.channels == 0, Activation::kRelu, 7);
      check_everywhere(p);
    }
}

TEST_CASE("group lists: linear layers") {
  CapRestored restored;
  unsigned seed = 700;
  for (const Pattern& pattern : kPatterns)
    for (const int64_t m : {0, 1, 2, 3, 4, 5, 8, 16, 17, 33, 64, 65, 130})
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{40, 77}, {129, 300}}) {
        const DType dtype = kFloats[m % 3], weights = kStored[seed++ % 4];
        const Packed w(n, k, pattern, weights, true, seed);
        const Side none(1, 0, 1, ImageLayout::kHwc, dtype, false);
        Side x = m ? Side(1, k, m, ImageLayout::kHwc, dtype, false) : none,
             y = m ? Side(1, n, m, ImageLayout::kHwc, dtype, false) : none;
        std::mt19937 random(seed);
        x.fill([&] { return static_cast<float>(static_cast<int>(random() % 3) - 1); });
        std::vector<float> bias(n), scale(n, 0.125f);
        for (float& b : bias) b = static_cast<float>(random() % 5);
        LinearIo io;
        io.x = x.data.data(), io.y = y.data.data(), io.bias = bias.data(), io.weight_scale = scale.data();
        io.m = m, io.n = n, io.k = k;
        io.x_row_stride = x.stride, io.y_row_stride = y.stride;
        io.dtype = dtype, io.weight_dtype = weights;
        std::vector<float> expected(m * n);
        for (int64_t o = 0; o < n; ++o) {
          std::vector<double> sums(m);
          for (int64_t c = 0; c < k; ++c)
            for (int64_t t = 0; w.kept(o, c) && t < m; ++t) sums[t] += w.at(o, c) * x.at(0, c, t);
          for (int64_t t = 0; t < m; ++t)
            expected[t * n + o] = rounded(dtype, static_cast<float>(0.125 * sums[t] + bias[o]));
        }
        for (const Isa isa : kernel_levels()) {
          set_isa_cap(isa);
          std::fill(y.data.begin(), y.data.end(), Side::kCanary);
          REQUIRE(group_lists_linear(io, w.lists) == Status::kOk);
          bool same = true;
          for (int64_t t = 0; t < m; ++t)
            for (int64_t o = 0; o < n; ++o) same = same && y.at(0, o, t) == expected[t * n + o];
          CAPTURE(isa_name(isa));
          CAPTURE(m);
          CAPTURE(pattern.rows);
          CAPTURE(pattern.cols);
          CHECK(same);
          CHECK(y.gaps_kept(false));
        }
      }
}

TEST_CASE("group lists: the same bits wherever a pixel falls") {
  CapRestored restored;
  for (const Pattern& pattern : kPatterns) {
    const int64_t n = 150, k = 333, pixels = 210;
    const Packed w(n, k, pattern, DType::kFloat32, false, 900);
    const Side x = random_side(1, k, pixels, ImageLayout::kChw, 901);
    const auto run = [&](int64_t first, int64_t count, ImageLayout out) {
      Side y(1, n, count, out, DType::kFloat32, false);
      ConvIo io;
      io.x = x.data.data() + first * 4, io.y = y.data.data();
      io.channels = k, io.out_channels = n;
      io.x_image_stride = x.image_stride, io.x_stride = x.stride;
      io.y_image_stride = y.image_stride, io.y_stride = y.stride;
      io.y_layout = out;
      io.window = pointwise(1, count);
      REQUIRE(group_lists_conv(io, w.lists) == Status::kOk);
      return y;
    };
    for (const Isa isa : kernel_levels()) {
      set_isa_cap(isa);
      CAPTURE(isa_name(isa));
      CAPTURE(pattern.rows);
      CAPTURE(pattern.cols);
      const Side once = run(0, pixels, ImageLayout::kChw);
      for (const int64_t first : {1, 5, 16, 50, 193, 209}) {
        const Side part = run(first, pixels - first, first % 2 ? ImageLayout::kHwc : ImageLayout::kChw);
        bool same = true;
        for (int64_t o = 0; o < n; ++o)
          for (int64_t p = first; p < pixels; ++p) same = same && part.at(0, o, p - first) == once.at(0, o, p);
        CHECK(same);
      }
    }
  }
}

TEST_CASE("group lists: the same bits for any number of threads" * doctest::test_suite("threads")) {
  CapRestored restored;
  const std::vector<std::pair<Window, ImageLayout>> problems = {
      {pointwise(10, 21), ImageLayout::kChw}, {window_of(9, 12, 3, 3, 1, 1, 1, 1, 9, 12), ImageLayout::kHwc}};
  for (const Pattern& pattern : kPatterns)
    for (const auto& [window, layout] : problems) {
      const int64_t taps = window.kernel_h * window.kernel_w, images = 2, n = 75, channels = taps == 1 ? 333 : 37;
      const Packed w(n, channels * taps, pattern, DType::kFloat32, false, 900);
      const Side x = random_side(images, channels, window.height * window.width, layout, 901);
      Side y(images, n, window.out_height * window.out_width, layout, DType::kFloat32, false);
      const Side grad_y = random_side(images, n, y.pixels, layout, 902);
      ConvIo io;
      io.x = x.data.data(), io.y = y.data.data();
      io.images = images, io.channels = channels, io.out_channels = n;
      io.x_image_stride = x.image_stride, io.x_stride = x.stride;
      io.y_image_stride = y.image_stride, io.y_stride = y.stride;
      io.x_layout = io.y_layout = layout;
      io.window = window;
      std::vector<float> values((w.lists.records + 1) * pattern.rows * pattern.cols);
      ConvGradIo grad;
      grad.grad_y = grad_y.data.data(), grad.x = x.data.data(), grad.out = values.data();
      grad.images = images, grad.channels = channels, grad.out_channels = n;
      grad.x_image_stride = x.image_stride, grad.x_stride = x.stride;
      grad.grad_y_image_stride = grad_y.image_stride, grad.grad_y_stride = grad_y.stride;
      grad.layout = layout, grad.window = window;
      for (const Isa isa : kernel_levels()) {
        set_isa_cap(isa);
        CAPTURE(isa_name(isa));
        CAPTURE(pattern.rows);
        CAPTURE(pattern.cols);
        REQUIRE(group_lists_conv(io, w.lists) == Status::kOk);
        REQUIRE(group_lists_conv_weight_grad(grad, w.lists) == Status::kOk);
        const Bytes y_alone = y.data;
        const std::vector<float> values_alone = values;
        for (const int count : {2, 3, 7}) {
          const Threads threads(count);
          std::fill(y.data.begin(), y.data.end(), Side::kCanary);
          std::fill(values.begin(), values.end(), NAN);
          REQUIRE(group_lists_conv(io, w.lists) == Status::kOk);
          REQUIRE(group_lists_conv_weight_grad(grad, w.lists) == Status::kOk);
          CHECK(y.data == y_alone);
          CHECK(values == values_alone);
        }
      }
    }
}

TEST_CASE("group lists: gradients of the values") {
  CapRestored restored;
  const std::vector<Window> windows = {pointwise(3, 5), pointwise(8, 8), pointwise(1, 65), pointwise(10, 20),
                                       window_of(7, 9, 3, 3, 2, 1, 1, 1, 4, 5)};
  unsigned seed = 1000;
  for (const Pattern& pattern : kPatterns)
    for (const Window& window : windows)
      for (const ImageLayout layout : {ImageLayout::kChw, ImageLayout::kHwc}) {
        const DType dtype = kFloats[++seed % 3];
        const int64_t images = 1 + seed % 2, channels = 21, n = 43, taps = window.kernel_h * window.kernel_w;
        const Packed w(n, channels * taps, pattern, DType::kFloat32, true, seed);
        Side x(images, channels, window.height * window.width, layout, dtype, false),
            grad(images, n, window.out_height * window.out_width, layout, dtype, false);
        std::mt19937 random(seed);
        const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 5) - 2); };
        x.fill(draw), grad.fill(draw);
        std::vector<float> expected(n * channels * taps);
        for (int64_t o = 0; o < n; ++o)
          for (int64_t c = 0; c < channels * taps; ++c) {
            if (!w.kept(o, c)) continue;
            const int64_t tap = c / channels;
            double sum = 0;
            for (int64_t image = 0; image < images; ++image)
              for (int64_t p = 0; p < grad.pixels; ++p) {
                const int64_t row = p / window.out_width * window.stride_h - window.pad_top + tap / window.kernel_w,
                              column = p % window.out_width * window.stride_w - window.pad_left + tap % window.kernel_w;
                if (row < 0 || row >= window.height || column < 0 || column >= window.width) continue;
                sum +=
                    static_cast<double>(grad.at(image, o, p)) * x.at(image, c % channels, row * window.width + column);
              }
            expected[o * channels * taps + c] = static_cast<float>(sum);
          }
        std::vector<float> out((w.lists.records + 1) * pattern.rows * pattern.cols);
        ConvGradIo io;
        io.grad_y = grad.data.data(), io.x = x.data.data(), io.out = out.data();
        io.images = images, io.channels = channels, io.out_channels = n;
        io.x_image_stride = x.image_stride, io.x_stride = x.stride;
        io.grad_y_image_stride = grad.image_stride, io.grad_y_stride = grad.stride;
        io.layout = layout, io.window = window, io.dtype = dtype;
        GroupLists gradient = w.lists;
        gradient.values = out.data();
        for (const Isa isa : kernel_levels())
          for (const int count : {1, 3}) {
            set_isa_cap(isa);
            const Threads threads(count);
            std::fill(out.begin(), out.end(), NAN);
            REQUIRE(group_lists_conv_weight_grad(io, w.lists) == Status::kOk);
            std::vector<float> dense(expected.size(), NAN);
            REQUIRE(group_lists_unpack(gradient, DType::kFloat32, n, channels * taps, dense.data()) == Status::kOk);
            CAPTURE(isa_name(isa));
            CAPTURE(pattern.rows);
            CAPTURE(pattern.cols);
            CAPTURE(grad.pixels);
            CHECK(dense == expected);
            // What belongs to no weight is zero: padding, and the parts of blocks outside the matrix.
            CHECK(std::none_of(out.begin(), out.end(), [](float g) { return std::isnan(g); }));
            for (int i = 0; i < pattern.rows * pattern.cols; ++i) CHECK(out[out.size() - 1 - i] == 0.0f);
            if (layout == ImageLayout::kHwc && images == 1 && taps == 1 && count == 1) {
              std::vector<float> linear(out.size(), NAN);
              const WeightGradIo linear_io = {grad.data.data(), x.data.data(), linear.data(), grad.pixels, n,
                                              channels,         grad.stride,   x.stride,      dtype};
              CHECK(group_lists_weight_grad(linear_io, w.lists) == Status::kOk);
              CHECK(linear == out);
            }
          }
      }
}

// Whole networks: every step against plain loops, the plan of the arena, and files that are not sound.
#include <memory>

#include "cpu/network/json.h"
#include "cpu/network/plan.h"
#include "network_model.h"
#include "support.h"

using namespace network_model;
using namespace sparsecore::testing;

namespace {

struct FreeNetwork {
  void operator()(Network* network) const { network_free(network); }
};
using NetworkPointer = std::unique_ptr<Network, FreeNetwork>;

// Why a file is refused; empty where it is not.
std::string refusal(const std::vector<uint8_t>& file) {
  // A heap block of exactly this size, so that the sanitizer sees every step outside.
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[file.size()]);
  std::copy(file.begin(), file.end(), exact.get());
  NetworkError error;
  const NetworkPointer network(network_load(exact.get(), file.size(), &error));
  CHECK((network == nullptr) == (error.text[0] != '\0'));
  return error.text;
}

// Runs three images, the second with other numbers, and compares the first and last.
void check_model(const Model& model, float tolerance = 0) {
  constexpr size_t kImages = 3;
  const std::vector<uint8_t> file = model.file();
  std::vector<std::vector<float>> inputs, expected;
  for (size_t i = 0; i < model.inputs.size(); ++i) {
    const std::vector<float> one = model.input_array(i);
    std::vector<float> all = one, other = one;
    for (float& value : other) value = -value + 1;
    all.insert(all.end(), other.begin(), other.end());
    all.insert(all.end(), one.begin(), one.end());
    inputs.push_back(all);
  }
  for (size_t i = 0; i < model.outputs.size(); ++i) expected.push_back(model.expected(i));
  on_every_level([&](Isa) {
    NetworkError error;
    NetworkPointer network(network_load(file.data(), file.size(), &error));
    INFO(std::string(error.text));
    REQUIRE(network != nullptr);
    std::vector<std::vector<float>> outputs;
    std::vector<const float*> input_pointers;
    std::vector<float*> output_pointers;
    for (const auto& input : inputs) input_pointers.push_back(input.data());
    for (const auto& one : expected) outputs.emplace_back(kImages * one.size(), NAN);
    for (auto& output : outputs) output_pointers.push_back(output.data());
    REQUIRE(network_run(network.get(), kImages, input_pointers.data(), output_pointers.data()) == Status::kOk);
    for (size_t i = 0; i < outputs.size(); ++i)
      for (const size_t image : {size_t{0}, size_t{2}})
        for (size_t e = 0; e < expected[i].size(); ++e) {
          const float got = outputs[i][image * expected[i].size() + e], want = expected[i][e];
          if (tolerance == 0 ? got == want : std::abs(got - want) <= tolerance * std::max(1.0f, std::abs(want)))
            continue;
          CAPTURE(i);
          CAPTURE(image);
          CAPTURE(e);
          REQUIRE(got == want);
        }
  });
}

constexpr ListsShape kPatterns[] = {{1, 1, 16, 4, 3},
                                    {4, 1, 32, 3, 4},
                                    {1, 4, 64, 256, 5},
                                    {4, 4, 16, 7, 2},
                                    {16, 1, 128, 2, 6},
                                    {1, 1, 512, 128, 1},
                                    {8, 1, 48, 1, 10},
                                    {2, 2, 16, 5, 0},
                                    {1, 1, 16, 4, 3, DType::kBFloat16},
                                    {4, 1, 32, 4, 3, DType::kFloat16},
                                    {1, 1, 64, 4, 3, DType::kInt8}};

}  // namespace

TEST_CASE("convolutions of every pattern, window and layout") {
  uint64_t seed = 1;
  for (const ListsShape& pattern : kPatterns)
    for (const char* layout : {"chw", "hwc"})
      for (const int64_t height : {int64_t{1}, int64_t{7}, int64_t{8}}) {
        CAPTURE(pattern.rows);
        CAPTURE(pattern.cols);
        CAPTURE(std::string(layout));
        CAPTURE(height);
        Model model(++seed);
        const int x = model.input({19, height, height == 8 ? 6 : height}, layout);
        model.activation = "relu";
        const int a = model.conv(x, 33, WindowSize::square(1), pattern);
        model.activation = "relu6";
        const int b = model.conv(a, 17, WindowSize::square(3, 2, 1), pattern);
        model.activation = "none";
        const int c = model.conv(b, 17, {3, 2, 1, 1, 0, 1, 1, 1}, pattern, b, false);
        model.output(c, layout);
        check_model(model);
      }
}

TEST_CASE("a mobile network in miniature, from pixels to logits") {
  for (const char* layout : {"chw", "hwc"})
    for (const int64_t size : {int64_t{9}, int64_t{16}, int64_t{31}}) {
      Model model(static_cast<uint64_t>(size));
      const int image = model.input({3, size, size}, layout);
      model.activation = "relu6";
      int x = model.stem(image, 10, WindowSize::square(3, 2, 1));
      x = model.depthwise(x, WindowSize::square(3, 1, 1));
      x = model.conv(x, 21, WindowSize::square(1), {1, 1, 16, 8, 4});
      x = model.depthwise(x, WindowSize::square(5, 2, 2));
      x = model.conv(x, 21, WindowSize::square(1), {4, 1, 16, 8, 4});
      const int before = x;
      x = model.depthwise(x, {3, 3, 1, 1, 1, 1, 1, 1});
      model.activation = "none";
      x = model.conv(x, 21, WindowSize::square(1), {1, 1, 32, 8, 4}, before);
      x = model.squeeze_excite(x, 5, "relu", "hard_sigmoid");
      x = model.global_average_pool(x);
      const int logits = model.dense(x, 10);
      model.output(logits);
      model.output(model.softmax(logits));
      check_model(model, 1e-4f);
    }
}

TEST_CASE("element-wise steps in place and not, vectors and planes") {
  Model model(5);
  const int a = model.input({13, 5, 7}), b = model.input({13, 5, 7}, "hwc"), v = model.input({13});
  const int sum = model.add(a, b);         // both are read again
  const int scaled = model.scale(sum, v);  // may overwrite nothing: sum is read below
  model.activation = "relu";
  const int again = model.add(sum, scaled);  // overwrites one of them
  const int self = model.add(again, again);
  model.activation = "none";
  const int vector = model.activate_step(v, "relu6");
  const int products = model.scale(vector, v);
  const int total = model.add(vector, products);
  model.output(model.scale(self, total), "hwc");
  model.output(total);
  model.output(model.flatten(model.activate_step(self, "relu")));
  check_model(model);
}

TEST_CASE("pools, concatenations, an output that is read on, an input that is an output, an unread input") {
  for (const char* layout : {"chw", "hwc"}) {
    Model model(6);
    const int x = model.input({6, 9, 8}, layout), unread = model.input({2, 3, 3});
    (void)unread;
    model.output(x, "hwc");
    model.output(x, "chw");
    const int largest = model.pool(x, WindowSize::square(3, 1, 1), true);
    model.output(largest);
    const int average = model.pool(x, {1, 1, 1}, false);
    const int joined = model.concat({largest, x, average, largest});
    model.output(model.conv(joined, 5, WindowSize::square(1), {1, 1, 16, 2, 5}));
    model.output(model.pool(joined, WindowSize::square(2, 2), false), layout);
    model.output(model.pool(joined, WindowSize::square(2, 2), false, false));
    model.output(model.global_average_pool(model.pool(joined, {4, 4, 4}, true)));
    check_model(model, 1e-6f);
  }
}

TEST_CASE("matrices of vectors: sparse, dense, in every storage type") {
  for (const int64_t k : {int64_t{1}, int64_t{15}, int64_t{16}, int64_t{130}})
    for (const int64_t n : {int64_t{1}, int64_t{8}, int64_t{9}, int64_t{37}}) {
      Model model(static_cast<uint64_t>(k * 100 + n));
      const int x = model.input({k});
      model.activation = "relu";
      int y = model.linear(x, n, {1, 1, 64, 8, 5});
      y = model.linear(y, n, {4, 1, 16, 2, 5, DType::kInt8});
      model.activation = "none";
      y = model.dense(x, n, "BF16");
      y = model.dense(y, n + 1, "F16");
      y = model.dense(y, n, "F32");
      model.output(y);
      check_model(model);
    }
}

TEST_CASE("a residual that nobody needs afterwards is overwritten") {
  for (int64_t side = 1; side <= 12; ++side)
    for (const char* activation : {"none", "relu6"}) {
      Model model(static_cast<uint64_t>(side));
      model.activation = activation;
      const int x = model.input({7, side, side + 1});
      const int a = model.conv(x, 21, WindowSize::square(1), {1, 1, 16, 5, 6});
      const int b = model.conv(x, 21, WindowSize::square(1), {4, 1, 16, 5, 6}, a);  // over a
      const int c = model.conv(b, 21, WindowSize::square(1), {1, 1, 32, 5, 6}, b);  // b is read as well
      const int d = model.conv(b, 21, WindowSize::square(1), {1, 1, 16, 5, 6}, c);  // over c
      model.output(d);
      model.output(c);
      check_model(model);
      // Two values of 21 channels are alive at most, not three.
      const std::vector<uint8_t> file = model.file();
      NetworkError error;
      const NetworkPointer network(network_load(file.data(), file.size(), &error));
      REQUIRE(network != nullptr);
      const int64_t floats = network::arena_elements({3, 7, side, side + 1}) +
                             2 * network::arena_elements({3, 21, side, side + 1}) + network::kArenaSlack;
      CHECK(network_arena_bytes(network.get()) <= static_cast<size_t>(floats) * sizeof(float));
    }
}

TEST_CASE("large early layers, run in bands: the same bits for any number of threads" *
          doctest::test_suite("threads")) {
  Model model(9);
  model.activation = "relu";
  int x = model.input({3, 192, 192});
  x = model.stem(x, 16, WindowSize::square(3, 2, 1));
  x = model.depthwise(x, WindowSize::square(3, 1, 1));
  x = model.conv(x, 12, WindowSize::square(1), {1, 1, 16, 4, 4});
  model.output(model.global_average_pool(model.depthwise(x, WindowSize::square(3, 2, 1))));
  model.output(x);
  for (const int count : {1, 2, 5}) {
    const Threads threads(count);
    check_model(model, 1e-4f);
  }
}

TEST_CASE("the same bits for any number of threads, and from a profile" * doctest::test_suite("threads")) {
  Model model(7);
  model.activation = "relu";
  int x = model.input({16, 14, 14});
  x = model.conv(x, 40, WindowSize::square(1), {1, 1, 16, 4, 4});
  x = model.depthwise(x, WindowSize::square(3, 1, 1));
  x = model.squeeze_excite(x, 4, "silu", "sigmoid");
  x = model.conv(x, 24, WindowSize::square(3, 2, 1), {4, 1, 32, 2, 4});
  model.output(x);
  const std::vector<uint8_t> file = model.file();
  NetworkError error;
  const NetworkPointer network(network_load(file.data(), file.size(), &error));
  REQUIRE(network != nullptr);
  const std::vector<float> image = model.input_array(0);
  const float* input = image.data();
  std::vector<float> first;
  for (int count = 1; count <= 5; ++count) {
    const Threads threads(count);
    std::vector<float> y(model.expected(0).size());
    float* output = y.data();
    REQUIRE((count == 3 ? network_profile(network.get(), 1, &input, &output)
                        : network_run(network.get(), 1, &input, &output)) == Status::kOk);
    if (count == 1) first = y;
    CHECK(std::memcmp(first.data(), y.data(), y.size() * sizeof(float)) == 0);
  }
  REQUIRE(network_steps(network.get()) == 4);
  for (int i = 0; i < 4; ++i) {
    const NetworkStep step = network_step(network.get(), i);
    CHECK(step.seconds >= 0);
    CHECK(step.products > 0);
    CHECK(step.products <= step.dense_products);
    CHECK(std::string(step.kernel) != "");
  }
  CHECK(std::string(network_step(network.get(), 0).op) == "conv");
  CHECK(std::string(network_step(network.get(), 0).weight) == "w0");
  CHECK(network_step(network.get(), 1).products == 40 * 9 * 14 * 14);
}

TEST_CASE("nothing to do and nothing to do it with") {
  Model model(8);
  model.output(model.activate_step(model.input({4}), "relu"));
  const std::vector<uint8_t> file = model.file();
  NetworkError error;
  const NetworkPointer network(network_load(file.data(), file.size(), &error));
  REQUIRE(network != nullptr);
  std::vector<float> x = model.input_array(0), y(4);
  const float *input = x.data(), *nothing = nullptr;
  float* output = y.data();
  CHECK(network_run(network.get(), 0, nullptr, nullptr) == Status::kOk);
  CHECK(network_run(network.get(), -1, &input, &output) == Status::kBadShape);
  CHECK(network_run(network.get(), 1, &nothing, &output) == Status::kNullPointer);
  CHECK(network_run(network.get(), 1, &input, nullptr) == Status::kNullPointer);
  const NetworkValue value = network_input(network.get(), 0);
  CHECK(std::string(value.name) == "in0");
  CHECK(value.rank == 1);
  CHECK(value.shape[0] == 4);
}

TEST_CASE("the arena of a MobileNet holds its two largest live values and a panel") {
  constexpr int64_t kPanel = 128 * 64 * 4;
  struct Layer {
    int64_t channels, stride;
  };
  constexpr Layer kLayers[] = {{64, 1},  {128, 2}, {128, 1}, {256, 2}, {256, 1},  {512, 2}, {512, 1},
                               {512, 1}, {512, 1}, {512, 1}, {512, 1}, {1024, 2}, {1024, 1}};
  for (const int64_t size : {int64_t{224}, int64_t{192}, int64_t{161}}) {
    network::Graph graph;
    const auto value = [&](int64_t channels, int64_t side) {
      graph.values.push_back({3, channels, side, side});
      return static_cast<int>(graph.values.size()) - 1;
    };
    const auto step = [&](network::Op op, int x, int y) {
      network::Step made;
      made.op = op, made.x = x, made.y = y;
      const network::Shape &from = graph.values[static_cast<size_t>(x)], &to = graph.values[static_cast<size_t>(y)];
      made.window.height = from.height, made.window.width = from.width;
      made.window.out_height = to.height, made.window.out_width = to.width;
      if (op != network::Op::kConv) made.window.kernel_h = made.window.kernel_w = 3;
      if (op != network::Op::kConv) made.window.pad_top = made.window.pad_left = 1;
      made.window.stride_h = made.window.stride_w = (from.height + to.height - 1) / to.height;
      graph.steps.push_back(made);
      return y;
    };
    int64_t side = (size + 1) / 2;
    graph.inputs.push_back({"image", value(3, size), true});
    int x = step(network::Op::kStem, 0, value(32, side));
    int64_t largest = 0;
    for (const Layer& layer : kLayers) {
      const int64_t channels = graph.values[static_cast<size_t>(x)].channels, before = side;
      side = (side + layer.stride - 1) / layer.stride;
      x = step(network::Op::kDepthwise, x, value(channels, side));
      largest = std::max(largest, channels * (before * before + side * side));
      x = step(network::Op::kConv, x, value(layer.channels, side));
      largest = std::max(largest, (channels + layer.channels) * side * side);
    }
    graph.values.push_back({1, 1024, 1, 1});
    graph.outputs.push_back(
        {"features", step(network::Op::kGlobalAveragePool, x, static_cast<int>(graph.values.size()) - 1), false});
    const network::Plan plan = network::plan_arena(graph, {});
    // Chains keep less than whole values between their steps.
    const std::vector<network::Chain> chains = network::find_chains(graph);
    REQUIRE(!chains.empty());
    CHECK(network::plan_arena(graph, chains).elements < plan.elements);
    for (const network::Chain& chain : chains) {
      const int64_t height = graph.steps[static_cast<size_t>(chain.last)].window.out_height;
      const network::Bands bands = network::cut_bands(graph, chain, 0, height);
      CHECK(bands.size() > 1);
      std::vector<int64_t> done(static_cast<size_t>(chain.last - chain.first + 1), 0);
      for (const auto& band : bands)
        for (size_t i = 0; i < done.size(); ++i) {
          // Rows follow each other, and what they read is there.
          CHECK(band[i].begin == done[i]);
          CHECK(band[i].kept <= band[i].begin);
          done[i] = band[i].end;
          if (i == 0 || band[i].begin == band[i].end) continue;
          const network::Rows read =
              network::rows_read(graph.steps[static_cast<size_t>(chain.first) + i].window, band[i].begin, band[i].end);
          CHECK(read.begin >= band[i - 1].kept);
          CHECK(read.end <= band[i - 1].end);
          CHECK(band[i - 1].end - band[i - 1].kept <= chain.roofs[i - 1]);
        }
      CHECK(done.back() == graph.steps[static_cast<size_t>(chain.last)].window.out_height);
    }
    CAPTURE(size);
    CAPTURE(plan.elements);
    CHECK(plan.elements * 4 <= largest * 4 + kPanel);
    CHECK(plan.values[0].input == 0);
    // What lives at the same time does not overlap.
    for (size_t a = 0; a < graph.values.size(); ++a)
      for (size_t b = 0; b < a; ++b) {
        const network::Placement &one = plan.values[a], &two = plan.values[b];
        if (one.offset < 0 || two.offset < 0 || one.last < two.first || two.last < one.first) continue;
        const bool apart = one.offset + network::arena_elements(graph.values[a]) <= two.offset ||
                           two.offset + network::arena_elements(graph.values[b]) <= one.offset;
        CHECK(apart);
      }
  }
}

TEST_CASE("the arena of a bottleneck holds its input, which the sum overwrites, and what lies between") {
  network::Graph graph;
  const auto value = [&](int64_t channels) {
    graph.values.push_back({3, channels, 56, 56});
    return static_cast<int>(graph.values.size()) - 1;
  };
  const auto conv = [&](int x, int y, int residual, int64_t kernel) {
    network::Step made;
    made.op = network::Op::kConv, made.x = x, made.y = y, made.x2 = residual;
    Window& window = made.window;
    window.height = window.width = window.out_height = window.out_width = 56;
    window.kernel_h = window.kernel_w = kernel;
    window.pad_top = window.pad_left = kernel / 2;
    window.stride_h = window.stride_w = 1;
    graph.steps.push_back(made);
    return y;
  };
  graph.inputs.push_back({"image", value(3), true});
  int x = conv(0, value(256), -1, 1);
  for (int block = 0; block < 2; ++block) {
    const int inner = conv(conv(x, value(64), -1, 1), value(64), -1, 3);
    x = conv(inner, value(256), x, 1);
  }
  graph.outputs.push_back({"features", x, false});
  const network::Plan plan = network::plan_arena(graph, network::find_chains(graph));
  const int64_t wide = network::arena_elements({3, 256, 56, 56}), narrow = network::arena_elements({3, 64, 56, 56});
  CHECK(plan.elements <= wide + 2 * narrow + network::kArenaSlack);
}

TEST_CASE("planes lie so that a tile of many of them spreads over the level 1 cache") {
  for (int64_t side = 1; side <= 130; ++side) {
    const int64_t stride = network::plane_stride({3, 256, side, side}), lines = stride / 16;
    CHECK(stride % kPlaneLanes == 0);
    CHECK(stride >= side * side);
    // Tiles of 2 and 4 lines in 128 planes, 64 sets: nowhere more than twice the even share.
    for (const int64_t tile : {int64_t{2}, int64_t{4}}) {
      int in_set[64] = {};
      for (int64_t plane = 0; plane < 128; ++plane)
        for (int64_t line = 0; line < std::min(tile, lines); ++line) ++in_set[(plane * lines + line) % 64];
      CHECK(*std::max_element(in_set, in_set + 64) <= 2 * 128 * std::min(tile, lines) / 64);
    }
  }
}

TEST_CASE("JSON is read strictly") {
  using network::JsonDocument;
  using network::JsonKind;
  JsonDocument document;
  size_t where = 0;
  const std::string text =
      " {\"a\": [1, -2, 9223372036854775807, -9223372036854775807, 1.5e-3, 9223372036854775808],"
      "\"b\\u00e9\\ud83d\\ude00\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\", \"c\": [true, false, null, {}, []]} ";
  REQUIRE(document.parse(text, &where) == nullptr);
  const network::Json root = document.root(), numbers = root.find("a");
  CHECK(root.size() == 3);
  CHECK(numbers.size() == 6);
  std::vector<int64_t> read;
  int others = 0;
  for (const network::Json number : numbers)
    if (number.is(JsonKind::kInteger))
      read.push_back(number.integer());
    else
      others += number.is(JsonKind::kNumber);
  CHECK(read == std::vector<int64_t>{1, -2, INT64_MAX, -INT64_MAX});
  CHECK(others == 2);
  CHECK(root.find("b\xc3\xa9\xf0\x9f\x98\x80").string() == "\"\\/\b\f\n\r\t");
  CHECK(root.find("c").size() == 5);
  CHECK(!root.find("d"));
  CHECK(!numbers.find("a"));

  for (const char* bad : {"",
                          " ",
                          "{",
                          "[",
                          "[1",
                          "[1,",
                          "[1,]",
                          "{\"a\"}",
                          "{\"a\":}",
                          "{\"a\":1,}",
                          "{a:1}",
                          "01",
                          "-",
                          "+1",
                          "1.",
                          ".5",
                          "1e",
                          "1e+",
                          "tru",
                          "nul",
                          "\"",
                          "\"\\",
                          "\"\\x\"",
                          "\"\\u12\"",
                          "\"\\u0000\"",
                          "\"\\ud800\"",
                          "\"\\ud800\\u0041\"",
                          "\"\\udc00\"",
                          "\"\n\"",
                          "1 2",
                          "{\"a\":1,\"a\":2}",
                          "NaN",
                          "[1 2]",
                          "{\"a\" 1}",
                          "'a'"}) {
    CAPTURE(std::string(bad));
    CHECK(document.parse(bad, &where) != nullptr);
  }
  CHECK(document.parse(std::string(32, '[') + std::string(32, ']'), &where) == nullptr);
  CHECK(document.parse(std::string(100000, '['), &where) != nullptr);
  CHECK(document.parse(std::string(34, '[') + std::string(34, ']'), &where) != nullptr);
}

namespace {

// One of each kind of step.
Model everything() {
  Model model(10);
  const int image = model.input({3, 8, 8}), gate = model.input({8});
  model.activation = "relu";
  int x = model.stem(image, 8, WindowSize::square(3, 2, 1));
  x = model.depthwise(x, WindowSize::square(3, 1, 1));
  x = model.conv(x, 8, WindowSize::square(1), {2, 1, 16, 2, 5}, x);
  x = model.conv(x, 8, WindowSize::square(3, 1, 1), {1, 1, 16, 4, 5, DType::kInt8});
  x = model.squeeze_excite(x, 3, "relu", "sigmoid");
  x = model.scale(x, gate);
  x = model.add(x, x);
  x = model.activate_step(x, "hard_swish");
  x = model.concat({x, x});
  x = model.pool(x, WindowSize::square(2, 2), true);
  x = model.pool(x, WindowSize::square(2, 1, 1), false, false);
  const int flat = model.flatten(x);
  int v = model.linear(flat, 12, {1, 1, 512, 4, 5});
  v = model.dense(v, 5);
  model.output(model.softmax(v));
  model.output(model.global_average_pool(x));
  return model;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE_MESSAGE(at != std::string::npos, from << " is not in " << text);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a file cut anywhere, or with anything behind it, is refused") {
  const std::vector<uint8_t> file = everything().file();
  CHECK(refusal(file) == "");
  CHECK(refusal({}) != "");
  for (size_t bytes = 0; bytes < file.size(); ++bytes)
    CHECK(refusal(std::vector<uint8_t>(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(bytes))) != "");
  std::vector<uint8_t> longer = file;
  longer.push_back(0);
  CHECK(refusal(longer).find("follow the last tensor") != std::string::npos);
}

TEST_CASE("descriptions that contradict themselves are refused in words") {
  const Model model = everything();
  const std::string json = model.json();
  struct Damage {
    const char *from, *to, *reason;
  };
  const Damage damages[] = {
      {"\"inputs\"", "\"input\"", "lists inputs, outputs, values"},
      {"\"inputs\": [{\"name\": \"in0\", \"value\": 0, \"layout\": \"chw\"}, ", "\"inputs\": [",
       "before any step writes"},
      {"\"name\": \"in0\"", "\"name\": 7", "lacks a name"},
      {"\"layout\": \"chw\"", "\"layout\": \"nchw\"", "layout"},
      {"\"layout\": \"vector\"", "\"layout\": \"chw\"", "layout"},
      {"\"value\": 0", "\"value\": 99", "must name one of"},
      {"\"value\": 1, \"layout\": \"vector\"", "\"value\": 0, \"layout\": \"chw\"", "written twice"},
      {"[3, 8, 8]", "[3, 8]", "must have the shape"},
      {"[3, 8, 8]", "[3, 8, 8, 1]", "must have the shape"},
      {"[3, 8, 8]", "[0, 8, 8]", "whole number from 1"},
      {"[3, 8, 8]", "[3, 8.5, 8]", "whole number from 1"},
      {"[3, 8, 8]", "[1048576, 1048576, 8]", "below 2^31"},
      {"[3, 8, 8]", "[9223372036854775807, 9223372036854775807, 9223372036854775807]", "below 2^31"},
      {"\"op\": \"stem\"", "\"op\": \"trunk\"", "does not know"},
      {"\"op\": \"stem\"", "\"op\": 1", "has no op"},
      {"\"op\": \"stem\"", "\"op\": \"depthwise\"", "keeps its channels"},
      {"\"x\": 0", "\"x\": 1", "needs the shape [channels"},
      {"\"x\": 0", "\"x\": 2", "before any step writes"},
      {"\"x\": 0", "\"x\": -1", "number of a value"},
      {"\"x\": 0", "\"x\": \"image\"", "number of a value"},
      {"\"x\": 0, ", "", "lacks \"x\""},
      {"\"x\": 2, \"y\": 3", "\"x\": 2, \"y\": 2", "written twice"},
      {"\"x\": 2, \"y\": 3", "\"x\": 3, \"y\": 2", "before any step writes"},
      {"\"kernel\": [3, 3]", "\"kernel\": [0, 3]", "two whole numbers"},
      {"\"kernel\": [3, 3]", "\"kernel\": [3]", "two whole numbers"},
      {"\"kernel\": [3, 3]", "\"kernel\": [3, 257]",
       "step 0 (stem): \"kernel\" must be two whole numbers from 1 to 256"},
      {"\"kernel\": [3, 3]", "\"kernel\": [5, 3]", "needs 8 x 45 elements"},
      {"\"stride\": [2, 2]", "\"stride\": [3, 3]", "does not lead"},
      {"\"stride\": [2, 2]", "\"stride\": [0, 2]", "two whole numbers"},
      {"\"padding\": [1, 1]", "\"padding\": [30000, 1]", "does not lead"},
      {"\"padding\": [1, 1]", "\"padding\": [-1, 1]", "two whole numbers"},
      {"\"padding\"", "\"paddings\"", "does not take"},
      {"\"activation\": \"relu\"", "\"activation\": \"tanh\"", "name of an activation"},
      {"\"rows\": 2", "\"rows\": 3", "no group lists"},
      {"\"rows\": 2", "\"rows\": 4", "needs"},
      {"\"cols\": 1", "\"cols\": 2", "needs"},
      {"\"cols\": 1", "\"cols\": 64", "no group lists"},
      {"\"depth\": 16", "\"depth\": 8", "no group lists"},
      {"\"depth\": 16", "\"depth\": 99999999999", "whole number"},
      {"\"window\": 2", "\"window\": 257", "no group lists"},
      {"\"window\": 2", "\"window\": 0", "whole number"},
      {"\"weight\": \"w2\"", "\"weight\": \"w9\"", "which the file lacks"},
      {"\"weight\": \"w2\"", "\"weight\": \"w3\"", "needs"},
      {"\"weight\": \"w2\"", "\"weight\": 2", "name of a weight"},
      {"\"residual\": 3", "\"residual\": 0", "step 2 (conv) needs equal shapes"},
      {"\"x2\": 1", "\"x2\": 0", "a factor per channel"},
      {"\"inner\": \"relu\", ", "", "lacks \"inner\""},
      {"\"count_include_pad\": false", "\"count_include_pad\": 0", "true or false"},
      {"\"xs\": [", "\"xs\": [0, ", "cannot become channels"},
      {"\"xs\": [9, 9]", "\"xs\": [9]", "channels come together"},
      {"\"xs\": [9, 9]", "\"xs\": []", "a list of values"},
      {"\"op\": \"softmax\", \"x\": 15", "\"op\": \"softmax\", \"x\": 14", "equal shapes"},
      {"\"op\": \"flatten\", \"x\": 12", "\"op\": \"flatten\", \"x\": 11", "different numbers"},
      {"\"steps\": [", "\"steps\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "nested too deeply"},
      {"\"steps\": [", "\"steps\": [5, ", "has no op"},
      {"{\"inputs\"", "[{\"inputs\"", "not JSON"},
      {"\"op\": \"stem\"", "\"op\": \"stem\", \"op\": \"stem\"", "appears twice"},
  };
  for (const Damage& damage : damages) {
    const std::string reason =
        refusal(join(header_of(replaced(json, damage.from, damage.to), model.tensors), model.tensors));
    CAPTURE(std::string(damage.from));
    CAPTURE(std::string(damage.to));
    CAPTURE(reason);
    CHECK(reason != "");
    CHECK(reason.find(damage.reason) != std::string::npos);
  }
}

TEST_CASE("an output that no step writes is refused in words") {
  Model model = everything();
  model.values.push_back({{1}, {0}});
  model.output(static_cast<int>(model.values.size()) - 1);
  CHECK(refusal(model.file()).find("which no step writes") != std::string::npos);
}

TEST_CASE("files of another kind or version are refused in words") {
  const Model model = everything();
  const auto with = [&](const std::string& version, const std::string& format) {
    return refusal(join(header_of(model.json(), model.tensors, version, format), model.tensors));
  };
  CHECK(with("2", "sparsecore.network").find("version '2', and this library reads 1") != std::string::npos);
  CHECK(with("", "sparsecore.network").find("reads 1") != std::string::npos);
  CHECK(with("1", "pt").find("its format is 'pt'") != std::string::npos);
  CHECK(refusal(join("{}", {})).find("no network") != std::string::npos);
  CHECK(refusal(join("[]", {})).find("no object") != std::string::npos);
  CHECK(refusal(join("{\"__metadata__\": {\"format\": \"sparsecore.network\", \"version\": \"1\"}}", {}))
            .find("lacks the description") != std::string::npos);
}

TEST_CASE("damaged tensors are refused in words") {
  const Model model = everything();
  const auto refuse = [&](const std::string& name, const std::function<void(FileTensor&)>& damage) {
    std::vector<FileTensor> tensors = model.tensors;
    for (FileTensor& tensor : tensors)
      if (tensor.name == name) damage(tensor);
    return refusal(join(header_of(model.json(), tensors), tensors));
  };
  const auto has = [](const std::string& text, const char* part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  has(refuse("w2.index", [](FileTensor& t) { t.data[0] = 200; }), "step 2 (conv): the packed weight 'w2' is damaged");
  has(refuse("w2.starts", [](FileTensor& t) { t.data[4] = 255; }), "damaged");
  has(refuse("w2.order", [](FileTensor& t) { t.data[0] = t.data[1]; }), "damaged");
  has(refuse("w3.scale", [](FileTensor& t) { std::memset(t.data.data() + 4, 0xff, 4); }), "channel 1");
  has(refuse("w3.scale", [](FileTensor& t) { t.name = "gone"; }), "which the file lacks");
  has(refuse("w2.values", [](FileTensor& t) { t.dtype = "I32"; }), "of dtype I32, and needs");
  has(refuse("w2.starts", [](FileTensor& t) { t.dtype = "F32"; }), "needs");
  has(refuse("w2.index", [](FileTensor& t) { t.dtype = "I8"; }), "U8");
  has(refuse("w12.index", [](FileTensor& t) { t.dtype = "U8", t.data.resize(t.data.size() / 2); }), "U16");
  has(refuse("w0.weight", [](FileTensor& t) { std::swap(t.shape[0], t.shape[1]); }), "needs 8 x 27 elements");
  has(refuse("w0.bias", [](FileTensor& t) { t.shape[0] -= 1, t.data.erase(t.data.end() - 4, t.data.end()); }),
      "needs 8 x 1");
  has(refuse("w0.bias", [](FileTensor& t) { t.shape[0] = 7; }), "its dtype and shape need 28");
  has(refuse("w0.bias", [](FileTensor& t) { t.dtype = "F31"; }), "unknown dtype");
  has(refuse("w0.bias", [](FileTensor& t) { t.shape = {-8, -1}; }), "no natural number");
  has(refuse("w0.bias", [](FileTensor& t) { t.shape = {int64_t{1} << 62, 8}; }), "too large");
}

TEST_CASE("tensors that overlap, leave gaps or lie outside are refused") {
  const std::vector<FileTensor> none;
  const auto with = [&](const std::string& places, size_t bytes) {
    std::vector<uint8_t> file = join("{" + places + "}", none);
    file.resize(file.size() + bytes);
    return refusal(file);
  };
  const auto place = [](const char* name, const char* shape, const char* offsets) {
    return "\"" + std::string(name) + "\": {\"dtype\": \"F32\", \"shape\": " + shape +
           ", \"data_offsets\": " + offsets + "}";
  };
  const auto has = [](const std::string& text, const char* part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  has(with(place("a", "[2]", "[0, 8]") + ", " + place("b", "[2]", "[4, 12]"), 12), "overlaps");
  has(with(place("a", "[2]", "[0, 8]") + ", " + place("b", "[1]", "[12, 16]"), 16), "follows a gap");
  has(with(place("a", "[2]", "[0, 8]") + ", " + place("b", "[2]", "[0, 8]"), 8), "overlaps");
  has(with(place("a", "[2]", "[8, 0]"), 8), "shape need 8");
  has(with(place("a", "[2]", "[0, 99]"), 8), "lies outside");
  has(with(place("a", "[2]", "[-8, 0]"), 8), "lies outside");
  has(with(place("a", "[2]", "[0, 8, 8]"), 8), "two data_offsets");
  has(with("\"a\": 7", 8), "lacks a dtype");
  has(with(place("a", "[2]", "[0, 8]"), 8), "no network");
}

// Small networks for tests: a Model writes the file of a network and computes, by plain loops and step by step, what
// the network must answer. Numbers are small integers, so that answers are exact wherever the operators are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "sparsecore/group_lists.h"
#include "sparsecore/network.h"

namespace network_model {

using namespace sparsecore;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t count) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(count)); }
  bool one_in(int64_t count) { return below(count) == 0; }
  float small() { return static_cast<float>(below(5) - 2); }
  std::vector<float> smalls(int64_t count) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& value : out) value = small();
    return out;
  }

 private:
  uint64_t state_;
};

struct FileTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::vector<uint8_t> data;
};

inline std::string list(const std::vector<int64_t>& numbers) {
  std::string text = "[";
  for (size_t i = 0; i < numbers.size(); ++i) text += (i ? ", " : "") + std::to_string(numbers[i]);
  return text + "]";
}

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

inline std::vector<uint8_t> join(const std::string& header, const std::vector<FileTensor>& tensors) {
  size_t bytes = 8 + header.size();
  for (const FileTensor& tensor : tensors) bytes += tensor.data.size();
  std::vector<uint8_t> file(bytes);
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<uint8_t>(header.size() >> (8 * i));
  uint8_t* end = std::copy(header.begin(), header.end(), file.data() + 8);
  for (const FileTensor& tensor : tensors) end = std::copy(tensor.data.begin(), tensor.data.end(), end);
  return file;
}

inline std::string header_of(const std::string& network, const std::vector<FileTensor>& tensors,
                             const std::string& version = "1", const std::string& format = "sparsecore.network") {
  std::string header = "{\"__metadata__\": {\"format\": " + quoted(format) + ", \"version\": " + quoted(version) +
                       ", \"network\": " + quoted(network) + "}";
  size_t offset = 0;
  for (const FileTensor& tensor : tensors) {
    header += ", " + quoted(tensor.name) + ": {\"dtype\": " + quoted(tensor.dtype) +
              ", \"shape\": " + list(tensor.shape) + ", \"data_offsets\": [" + std::to_string(offset) + ", " +
              std::to_string(offset + tensor.data.size()) + "]}";
    offset += tensor.data.size();
  }
  return header + "}";
}

// A value with what it must hold: [C, H, W] without gaps.
struct Value {
  std::vector<int64_t> shape;
  std::vector<float> data;
  int64_t channels() const { return shape[0]; }
  int64_t height() const { return shape.size() == 3 ? shape[1] : 1; }
  int64_t width() const { return shape.size() == 3 ? shape[2] : 1; }
  int64_t pixels() const { return height() * width(); }
};

inline float activate(float x, const std::string& name) {
  const float six = std::min(std::max(x + 3, 0.0f), 6.0f);
  if (name == "relu") return std::max(x, 0.0f);
  if (name == "relu6") return std::min(std::max(x, 0.0f), 6.0f);
  if (name == "hard_swish") return x * six / 6;
  if (name == "hard_sigmoid") return six / 6;
  if (name == "sigmoid") return 1 / (1 + std::exp(-x));
  if (name == "silu") return x / (1 + std::exp(-x));
  return x;
}

struct WindowSize {
  int64_t kernel_h = 1, kernel_w = 1, stride = 1, pad_top = 0, pad_left = 0, dilation = 1;
  int64_t pad_bottom = 0, pad_right = 0;
  static WindowSize square(int64_t kernel, int64_t stride = 1, int64_t pad = 0) {
    return {kernel, kernel, stride, pad, pad, 1, pad, pad};
  }
  int64_t out_height(int64_t h) const {
    return (h + pad_top + pad_bottom - dilation * (kernel_h - 1) - 1) / stride + 1;
  }
  int64_t out_width(int64_t w) const { return (w + pad_left + pad_right - dilation * (kernel_w - 1) - 1) / stride + 1; }
  std::string json(bool dilated = true) const {
    return "\"kernel\": " + list({kernel_h, kernel_w}) + ", \"stride\": " + list({stride, stride}) +
           ", \"padding\": " + list({pad_top, pad_left}) +
           (dilated ? ", \"dilation\": " + list({dilation, dilation}) : "");
  }
};

struct ListsShape {
  int32_t rows = 1, cols = 1, depth = 16, window = 4;
  int64_t kept_in_ten = 3;
  DType dtype = DType::kFloat32;
};

class Model {
 public:
  explicit Model(uint64_t seed) : random(seed) {}

  Random random;
  std::vector<Value> values;
  std::vector<int> inputs, outputs;
  std::vector<std::string> input_layouts, output_layouts;
  std::vector<std::string> steps;
  std::vector<FileTensor> tensors;
  std::string activation = "none";  // of the steps that follow

  int input(std::vector<int64_t> shape, const std::string& layout = "chw") {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    inputs.push_back(add_value(shape, random.smalls(count)));
    input_layouts.push_back(shape.size() == 1 ? "vector" : layout);
    return inputs.back();
  }
  void output(int value, const std::string& layout = "chw") {
    outputs.push_back(value);
    output_layouts.push_back(at(value).shape.size() == 1 ? "vector" : layout);
  }

  int conv(int x, int64_t out_channels, WindowSize window, ListsShape lists, int residual = -1, bool bias = true) {
    const Value source = at(x);
    const int64_t taps = window.kernel_h * window.kernel_w, k = taps * source.channels();
    const std::string name = "w" + std::to_string(steps.size());
    const std::vector<float> weight = packed(name, out_channels, k, lists);
    const std::vector<float> b = bias ? vector_tensor(name + ".bias", out_channels) : zeros(out_channels);
    Value y = convolve(source, out_channels, window,
                       [&](int64_t o, int64_t tap, int64_t c) { return weight[o * k + tap * source.channels() + c]; });
    add_bias(&y, b, residual);
    const int to = add_value(y.shape, y.data);
    steps.push_back("{\"op\": \"conv\", \"x\": " + std::to_string(x) + ", \"y\": " + std::to_string(to) +
                    lists_json(name, lists) + ", " + window.json() + activation_json() +
                    (residual >= 0 ? ", \"residual\": " + std::to_string(residual) : "") + "}");
    return to;
  }

  int stem(int x, int64_t out_channels, WindowSize window) {
    const Value source = at(x);
    const int64_t k = window.kernel_h * window.kernel_w * source.channels();
    const std::string name = "w" + std::to_string(steps.size());
    const std::vector<float> weight = float_tensor(name + ".weight", {out_channels, k});
    const std::vector<float> b = vector_tensor(name + ".bias", out_channels);
    Value y = convolve(source, out_channels, window,
                       [&](int64_t o, int64_t tap, int64_t c) { return weight[o * k + tap * source.channels() + c]; });
    add_bias(&y, b, -1);
    return plain_step("stem", x, y, ", \"weight\": " + quoted(name) + ", " + window.json() + activation_json());
  }

  int depthwise(int x, WindowSize window) {
    const Value source = at(x);
    const int64_t taps = window.kernel_h * window.kernel_w;
    const std::string name = "w" + std::to_string(steps.size());
    const std::vector<float> weight = float_tensor(name + ".weight", {source.channels(), taps});
    const std::vector<float> b = vector_tensor(name + ".bias", source.channels());
    Value y = convolve(source, source.channels(), window,
                       [&](int64_t o, int64_t tap, int64_t c) { return o == c ? weight[o * taps + tap] : 0; });
    add_bias(&y, b, -1);
    return plain_step("depthwise", x, y, ", \"weight\": " + quoted(name) + ", " + window.json() + activation_json());
  }

  int linear(int x, int64_t n, ListsShape lists) {
    const std::string name = "w" + std::to_string(steps.size());
    const std::vector<float> weight = packed(name, n, at(x).channels(), lists);
    Value y = multiply(at(x), weight, vector_tensor(name + ".bias", n), activation);
    return plain_step("linear", x, y, lists_json(name, lists) + activation_json());
  }

  int dense(int x, int64_t n, const std::string& dtype = "F32") {
    const std::string name = "w" + std::to_string(steps.size());
    const std::vector<float> weight = float_tensor(name + ".weight", {n, at(x).channels()}, dtype);
    Value y = multiply(at(x), weight, vector_tensor(name + ".bias", n), activation);
    return plain_step("dense", x, y, ", \"weight\": " + quoted(name) + activation_json());
  }

  int pool(int x, WindowSize window, bool maximum, bool with_padding = true) {
    const Value source = at(x);
    Value y = sized(source.channels(), window.out_height(source.height()), window.out_width(source.width()));
    for (int64_t c = 0; c < source.channels(); ++c)
      for (int64_t p = 0; p < y.pixels(); ++p) {
        float sum = 0, largest = -INFINITY;
        int64_t count = 0;
        for_each_tap(source, window, p / y.width(), p % y.width(), [&](int64_t, int64_t pixel) {
          const float value = source.data[c * source.pixels() + pixel];
          sum += value, largest = std::max(largest, value), ++count;
        });
        const int64_t divisor = with_padding ? window.kernel_h * window.kernel_w : count;
        y.data[c * y.pixels() + p] = maximum ? largest : sum / static_cast<float>(divisor);
      }
    return plain_step(maximum ? "max_pool" : "average_pool", x, y,
                      ", " + window.json(false) +
                          (maximum        ? ""
                           : with_padding ? ""
                                          : ", \"count_include_pad\": false"));
  }

  int global_average_pool(int x) {
    const Value source = at(x);
    return plain_step("global_average_pool", x, {{source.channels()}, means(source)}, "");
  }

  int squeeze_excite(int x, int64_t squeezed, const std::string& inner, const std::string& gate) {
    const Value source = at(x);
    const std::string name = "w" + std::to_string(steps.size());
    const int64_t channels = source.channels();
    const std::vector<float> w1 = float_tensor(name + ".weight1", {squeezed, channels});
    const std::vector<float> b1 = vector_tensor(name + ".bias1", squeezed);
    const std::vector<float> w2 = float_tensor(name + ".weight2", {channels, squeezed});
    const std::vector<float> b2 = vector_tensor(name + ".bias2", channels);
    const Value hidden = multiply({{channels}, means(source)}, w1, b1, inner), gates = multiply(hidden, w2, b2, gate);
    Value y = source;
    for (size_t i = 0; i < y.data.size(); ++i) y.data[i] *= gates.data[i / static_cast<size_t>(source.pixels())];
    return plain_step(
        "squeeze_excite", x, y,
        ", \"weight\": " + quoted(name) + ", \"inner\": " + quoted(inner) + ", \"gate\": " + quoted(gate));
  }

  int add(int x, int x2) {
    Value y = at(x);
    for (size_t i = 0; i < y.data.size(); ++i) y.data[i] = activate(y.data[i] + at(x2).data[i], activation);
    return plain_step("add", x, y, ", \"x2\": " + std::to_string(x2) + activation_json());
  }
  int scale(int x, int x2) {
    Value y = at(x);
    for (size_t i = 0; i < y.data.size(); ++i)
      y.data[i] = activate(y.data[i] * at(x2).data[i / static_cast<size_t>(y.pixels())], activation);
    return plain_step("scale", x, y, ", \"x2\": " + std::to_string(x2) + activation_json());
  }
  int activate_step(int x, const std::string& name) {
    Value y = at(x);
    for (float& value : y.data) value = activate(value, name);
    return plain_step("activation", x, y, ", \"activation\": " + quoted(name));
  }
  int concat(const std::vector<int>& xs) {
    Value y = at(xs[0]);
    y.shape[0] = 0;
    y.data.clear();
    std::vector<int64_t> numbers;
    for (const int x : xs) {
      y.shape[0] += at(x).channels();
      y.data.insert(y.data.end(), at(x).data.begin(), at(x).data.end());
      numbers.push_back(x);
    }
    const int to = add_value(y.shape, y.data);
    steps.push_back("{\"op\": \"concat\", \"xs\": " + list(numbers) + ", \"y\": " + std::to_string(to) + "}");
    return to;
  }
  int flatten(int x) {
    const Value source = at(x);
    return plain_step("flatten", x, {{static_cast<int64_t>(source.data.size())}, source.data}, "");
  }
  int softmax(int x) {
    Value y = at(x);
    const float largest = *std::max_element(y.data.begin(), y.data.end());
    double sum = 0;
    for (const float value : y.data) sum += std::exp(static_cast<double>(value - largest));
    for (float& value : y.data) value = static_cast<float>(std::exp(static_cast<double>(value - largest)) / sum);
    return plain_step("softmax", x, y, "");
  }

  std::string json() const {
    std::string text = "{\"inputs\": [";
    for (size_t i = 0; i < inputs.size(); ++i) text += port("in", i, inputs[i], input_layouts[i]);
    text += "], \"outputs\": [";
    for (size_t i = 0; i < outputs.size(); ++i) text += port("out", i, outputs[i], output_layouts[i]);
    text += "], \"values\": [";
    for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + list(values[i].shape);
    text += "], \"steps\": [";
    for (size_t i = 0; i < steps.size(); ++i) text += (i ? ", " : "") + steps[i];
    return text + "]}";
  }
  std::vector<uint8_t> file() const { return join(header_of(json(), tensors), tensors); }

  // As the caller has it, for one image.
  std::vector<float> input_array(size_t i) const { return laid_out(values[size_t(inputs[i])], input_layouts[i]); }
  std::vector<float> expected(size_t i) const { return laid_out(values[size_t(outputs[i])], output_layouts[i]); }

  const Value& at(int value) const { return values[static_cast<size_t>(value)]; }

  // The lists of `dense` [n, k] with the mask [groups, blocks].
  void add_lists(const std::string& name, const std::vector<float>& dense, const std::vector<uint8_t>& mask, int64_t n,
                 int64_t k, ListsShape shape) {
    const int64_t groups = ceil_div(n, shape.rows), panels = ceil_div(k, shape.depth);
    const int64_t records = group_lists_count(mask.data(), groups, ceil_div(k, shape.cols));
    const int64_t index_bytes = group_lists_index_bytes(shape.cols, shape.depth);
    const std::vector<uint8_t> narrow = narrowed(dense, shape.dtype);
    std::vector<uint8_t> values_bytes(size_t((records + 1) * shape.rows * shape.cols * size_of(shape.dtype)));
    std::vector<uint8_t> index(size_t((records + 1) * index_bytes)), order(size_t(panels * groups));
    std::vector<int32_t> starts(size_t(panels * (groups + 1)));
    group_lists_pack(narrow.data(), shape.dtype, mask.data(), n, k, shape.rows, shape.cols, shape.depth, shape.window,
                     values_bytes.data(), index.data(), order.data(), starts.data());
    const char* const dtypes[] = {"F32", "BF16", "F16", "I8"};
    add_tensor(name + ".values", dtypes[static_cast<int>(shape.dtype)], {records + 1, shape.cols, shape.rows},
               values_bytes);
    add_tensor(name + ".index", index_bytes == 2 ? "U16" : "U8", {records + 1}, index);
    add_tensor(name + ".order", "U8", {panels, groups}, order);
    add_tensor(name + ".starts", "I32", {panels, groups + 1}, bytes_of(starts));
  }

 private:
  static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
  static std::vector<float> zeros(int64_t count) { return std::vector<float>(static_cast<size_t>(count)); }
  static Value sized(int64_t channels, int64_t height, int64_t width) {
    return {{channels, height, width}, zeros(channels * height * width)};
  }

  template <typename T>
  static std::vector<uint8_t> bytes_of(const std::vector<T>& array) {
    std::vector<uint8_t> bytes(array.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), array.data(), bytes.size());
    return bytes;
  }
  // Small integers in every storage type, exactly.
  static std::vector<uint8_t> narrowed(const std::vector<float>& values, DType dtype) {
    if (dtype == DType::kFloat32) return bytes_of(values);
    std::vector<uint16_t> halves;
    std::vector<int8_t> integers;
    for (const float value : values) {
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      const uint32_t half = value == 0 ? 0 : ((bits >> 16) & 0x8000) | (((bits & 0x7fffffff) >> 13) - (112 << 10));
      halves.push_back(static_cast<uint16_t>(dtype == DType::kBFloat16 ? bits >> 16 : half));
      integers.push_back(static_cast<int8_t>(value));
    }
    return dtype == DType::kInt8 ? bytes_of(integers) : bytes_of(halves);
  }

  int add_value(std::vector<int64_t> shape, std::vector<float> data) {
    values.push_back({std::move(shape), std::move(data)});
    return static_cast<int>(values.size()) - 1;
  }
  int plain_step(const std::string& op, int x, const Value& y, const std::string& rest) {
    const int to = add_value(y.shape, y.data);
    steps.push_back("{\"op\": " + quoted(op) + ", \"x\": " + std::to_string(x) + ", \"y\": " + std::to_string(to) +
                    rest + "}");
    return to;
  }
  static std::string port(const char* name, size_t i, int value, const std::string& layout) {
    return std::string(i ? ", " : "") + "{\"name\": \"" + name + std::to_string(i) +
           "\", \"value\": " + std::to_string(value) + ", \"layout\": " + quoted(layout) + "}";
  }
  std::string activation_json() const { return ", \"activation\": " + quoted(activation); }
  static std::string lists_json(const std::string& name, ListsShape lists) {
    return ", \"weight\": " + quoted(name) + ", \"rows\": " + std::to_string(lists.rows) +
           ", \"cols\": " + std::to_string(lists.cols) + ", \"depth\": " + std::to_string(lists.depth) +
           ", \"window\": " + std::to_string(lists.window);
  }

  void add_tensor(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                  std::vector<uint8_t> data) {
    tensors.push_back({name, dtype, std::move(shape), std::move(data)});
  }
  std::vector<float> float_tensor(const std::string& name, std::vector<int64_t> shape,
                                  const std::string& dtype = "F32") {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    const std::vector<float> numbers = random.smalls(count);
    add_tensor(name, dtype, std::move(shape),
               narrowed(numbers, dtype == "F32"   ? DType::kFloat32
                                 : dtype == "F16" ? DType::kFloat16
                                                  : DType::kBFloat16));
    return numbers;
  }
  std::vector<float> vector_tensor(const std::string& name, int64_t count) { return float_tensor(name, {count}); }

  // A random weight in lists; what it multiplies by. Quantised ones get scales.
  std::vector<float> packed(const std::string& name, int64_t n, int64_t k, ListsShape shape) {
    const int64_t groups = ceil_div(n, shape.rows), blocks = ceil_div(k, shape.cols);
    std::vector<uint8_t> mask(static_cast<size_t>(groups * blocks));
    for (uint8_t& kept : mask) kept = random.below(10) < shape.kept_in_ten;
    std::vector<float> dense = random.smalls(n * k);
    add_lists(name, dense, mask, n, k, shape);
    std::vector<float> scale(static_cast<size_t>(n), 1.0f);
    if (shape.dtype == DType::kInt8) {
      for (float& value : scale) value = random.one_in(2) ? 2.0f : 0.5f;
      add_tensor(name + ".scale", "F32", {n}, bytes_of(scale));
    }
    for (int64_t o = 0; o < n; ++o)
      for (int64_t c = 0; c < k; ++c)
        dense[size_t(o * k + c)] *= mask[size_t(o / shape.rows * blocks + c / shape.cols)] ? scale[size_t(o)] : 0.0f;
    return dense;
  }

  template <typename Body>
  static void for_each_tap(const Value& source, const WindowSize& window, int64_t row, int64_t column, Body&& body) {
    for (int64_t i = 0; i < window.kernel_h; ++i)
      for (int64_t j = 0; j < window.kernel_w; ++j) {
        const int64_t h = row * window.stride - window.pad_top + i * window.dilation;
        const int64_t w = column * window.stride - window.pad_left + j * window.dilation;
        if (h >= 0 && h < source.height() && w >= 0 && w < source.width())
          body(i * window.kernel_w + j, h * source.width() + w);
      }
  }
  static Value convolve(const Value& source, int64_t out_channels, const WindowSize& window,
                        const std::function<float(int64_t, int64_t, int64_t)>& weight) {
    Value y = sized(out_channels, window.out_height(source.height()), window.out_width(source.width()));
    for (int64_t o = 0; o < out_channels; ++o)
      for (int64_t p = 0; p < y.pixels(); ++p)
        for_each_tap(source, window, p / y.width(), p % y.width(), [&](int64_t tap, int64_t pixel) {
          for (int64_t c = 0; c < source.channels(); ++c)
            y.data[size_t(o * y.pixels() + p)] += weight(o, tap, c) * source.data[size_t(c * source.pixels() + pixel)];
        });
    return y;
  }
  void add_bias(Value* y, const std::vector<float>& bias, int residual) const {
    for (size_t i = 0; i < y->data.size(); ++i) {
      const float other = residual >= 0 ? at(residual).data[i] : 0;
      y->data[i] = activate(y->data[i] + bias[i / static_cast<size_t>(y->pixels())] + other, activation);
    }
  }
  static Value multiply(const Value& x, const std::vector<float>& weight, const std::vector<float>& bias,
                        const std::string& activation) {
    const size_t k = x.data.size(), n = bias.size();
    Value y{{static_cast<int64_t>(n)}, bias};
    for (size_t o = 0; o < n; ++o) {
      for (size_t c = 0; c < k; ++c) y.data[o] += weight[o * k + c] * x.data[c];
      y.data[o] = activate(y.data[o], activation);
    }
    return y;
  }
  static std::vector<float> means(const Value& source) {
    std::vector<float> out(static_cast<size_t>(source.channels()));
    for (size_t i = 0; i < source.data.size(); ++i) out[i / static_cast<size_t>(source.pixels())] += source.data[i];
    for (float& sum : out) sum /= static_cast<float>(source.pixels());
    return out;
  }
  static std::vector<float> laid_out(const Value& value, const std::string& layout) {
    if (layout != "hwc") return value.data;
    std::vector<float> out(value.data.size());
    const size_t channels = static_cast<size_t>(value.channels()), pixels = static_cast<size_t>(value.pixels());
    for (size_t c = 0; c < channels; ++c)
      for (size_t p = 0; p < pixels; ++p) out[p * channels + c] = value.data[c * pixels + p];
    return out;
  }
};

}  // namespace network_model

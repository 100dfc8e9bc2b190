#include "cpu/network/graph.h"

#include <algorithm>

namespace sparsecore::network {
namespace {

constexpr int64_t kMostValues = 1 << 13;  // planning compares them pairwise
constexpr int64_t kLargestValue = INT32_MAX;
constexpr int64_t kLargestKernel = 256, kLargestWindow = 1 << 15;

// What the keys of a step mean. Required keys first; "?" marks one that may be left out.
struct OpKeys {
  const char* name;
  const char* keys[16];
};
constexpr OpKeys kOpKeys[kOps] = {
    {"conv",
     {"x", "y", "weight", "rows", "cols", "depth", "window", "kernel?", "stride?", "padding?", "dilation?",
      "activation?", "residual?"}},
    {"stem", {"x", "y", "weight", "kernel", "stride?", "padding?", "dilation?", "activation?"}},
    {"depthwise", {"x", "y", "weight", "kernel", "stride?", "padding?", "dilation?", "activation?"}},
    {"linear", {"x", "y", "weight", "rows", "cols", "depth", "window", "activation?"}},
    {"dense", {"x", "y", "weight", "activation?"}},
    {"average_pool", {"x", "y", "kernel", "stride?", "padding?", "count_include_pad?"}},
    {"max_pool", {"x", "y", "kernel", "stride?", "padding?", "dilation?"}},
    {"global_average_pool", {"x", "y"}},
    {"squeeze_excite", {"x", "y", "weight", "inner", "gate"}},
    {"add", {"x", "x2", "y", "activation?"}},
    {"scale", {"x", "x2", "y", "activation?"}},
    {"activation", {"x", "y", "activation"}},
    {"concat", {"xs", "y"}},
    {"flatten", {"x", "y"}},
    {"softmax", {"x", "y"}},
};

constexpr const char* kActivations[] = {"none",  "relu",       "gelu",         "gelu_tanh", "silu",
                                        "relu6", "hard_swish", "hard_sigmoid", "sigmoid"};
static_assert(sizeof(kActivations) / sizeof(kActivations[0]) == kLastActivation + 1);

int shown(std::string_view text) { return static_cast<int>(std::min<size_t>(text.size(), 60)); }

class GraphReader {
 public:
  GraphReader(Json root, Graph* graph, const Failure& failure) : root_(root), graph_(*graph), failure_(failure) {}

  bool run() {
    const Json inputs = root_.find("inputs"), outputs = root_.find("outputs");
    const Json values = root_.find("values"), steps = root_.find("steps");
    if (!inputs.is(JsonKind::kArray) || !outputs.is(JsonKind::kArray) || !values.is(JsonKind::kArray) ||
        !steps.is(JsonKind::kArray))
      return failure_.say("the network lacks one of the lists inputs, outputs, values and steps. Export it again");
    if (!small(inputs, "inputs") || !small(outputs, "outputs") || !small(values, "values") || !small(steps, "steps"))
      return false;
    if (inputs.size() == 0 || outputs.size() == 0) return failure_.say("the network has no input or no output");
    for (const Json value : values)
      if (!read_value(value)) return false;
    written_.assign(graph_.values.size(), false);
    for (const Json input : inputs)
      if (!read_port(input, &graph_.inputs, "input") || !write(graph_.inputs.back().value, "the inputs")) return false;
    graph_.steps.resize(steps.size());
    for (const Json step : steps) {
      if (!read_step(step, &graph_.steps[static_cast<size_t>(number_)])) return false;
      ++number_;
    }
    for (const Json output : outputs) {
      if (!read_port(output, &graph_.outputs, "output")) return false;
      if (!written_[static_cast<size_t>(graph_.outputs.back().value)])
        return failure_.say("output '%.*s' is value %d, which no step writes", shown(graph_.outputs.back().name),
                            graph_.outputs.back().name.data(), graph_.outputs.back().value);
    }
    return true;
  }

 private:
  bool small(Json list, const char* name) const {
    return list.size() <= kMostValues || failure_.say("the network has %u %s, and at most %lld are read", list.size(),
                                                      name, static_cast<long long>(kMostValues));
  }

  bool read_value(Json value) {
    const int number = static_cast<int>(graph_.values.size());
    int64_t sizes[3] = {1, 1, 1};
    int rank = 0;
    if (!value.is(JsonKind::kArray) || (value.size() != 1 && value.size() != 3))
      return failure_.say("value %d must have the shape [channels, height, width] or [features]", number);
    int64_t count = 1;
    for (const Json size : value) {
      if (!size.is(JsonKind::kInteger) || size.integer() < 1 || size.integer() > kLargestValue / count)
        return failure_.say("value %d: every size must be a whole number from 1, and their product below 2^31", number);
      count *= size.integer();
      sizes[rank++] = size.integer();
    }
    graph_.values.push_back({rank, sizes[0], sizes[1], sizes[2]});
    return true;
  }

  bool read_port(Json port, std::vector<Port>* ports, const char* kind) {
    const int i = static_cast<int>(ports->size());
    const Json name = port.find("name"), value = port.find("value"), layout = port.find("layout");
    if (!name.is(JsonKind::kString)) return failure_.say("%s %d lacks a name", kind, i);
    Port read;
    read.name = name.string();
    if (!is_value(value)) return failure_.say("%s %d must name one of the %zu values", kind, i, graph_.values.size());
    read.value = static_cast<int>(value.integer());
    const Shape& shape = graph_.values[static_cast<size_t>(read.value)];
    if (layout) {
      const std::string_view text = layout.is(JsonKind::kString) ? layout.string() : "";
      const bool fits = shape.rank == 1 ? text == "vector" : text == "chw" || text == "hwc";
      if (!fits)
        return failure_.say("%s %d: its layout must be %s", kind, i,
                            shape.rank == 1 ? "\"vector\"" : "\"chw\" or \"hwc\"");
      read.hwc = text == "hwc";
    }
    ports->push_back(read);
    return true;
  }

  bool is_value(Json value) const {
    return value.is(JsonKind::kInteger) && value.integer() >= 0 &&
           value.integer() < static_cast<int64_t>(graph_.values.size());
  }

  bool write(int value, const char* who) {
    if (written_[static_cast<size_t>(value)])
      return failure_.say("value %d is written twice, the second time by %s", value, who);
    written_[static_cast<size_t>(value)] = true;
    return true;
  }

  bool read_step(Json json, Step* step) {
    const Json op = json.find("op");
    if (!op.is(JsonKind::kString)) return failure_.say("step %d has no op", number_);
    const auto* keys = std::find_if(std::begin(kOpKeys), std::end(kOpKeys),
                                    [&](const OpKeys& known) { return op.string() == known.name; });
    if (keys == std::end(kOpKeys))
      return failure_.say("step %d has the op '%.*s', which this library does not know. Update sparsecore", number_,
                          shown(op.string()), op.string().data());
    step->op = static_cast<Op>(keys - kOpKeys);
    op_ = keys->name;
    if (!known_keys(json, *keys)) return false;
    for (const char* key : keys->keys) {
      if (!key) break;
      std::string_view name = key;
      const bool optional = name.back() == '?';
      if (optional) name.remove_suffix(1);
      const Json value = json.find(name);
      if (!value && optional) continue;
      if (!value) return failure_.say("step %d (%s) lacks \"%s\". Export the network again", number_, op_, key);
      if (!read_key(name, value, step)) return false;
    }
    if (step->op == Op::kAveragePool || step->op == Op::kMaxPool) default_stride(json, step);
    if (!check_shapes(graph_, step, number_, failure_)) return false;
    char who[32];
    std::snprintf(who, sizeof who, "step %d (%s)", number_, op_);
    return write(step->y, who);
  }

  // A pooling window that says no stride steps by its own size.
  static void default_stride(Json json, Step* step) {
    if (json.find("stride")) return;
    step->window.stride_h = step->window.kernel_h;
    step->window.stride_w = step->window.kernel_w;
  }

  // Keys that mean nothing here would be silently without effect.
  bool known_keys(Json json, const OpKeys& keys) const {
    for (auto member = json.begin(); member != json.end(); ++member) {
      const std::string_view key = (*member).string();
      ++member;
      const bool known =
          key == "op" || key == "name" || std::any_of(std::begin(keys.keys), std::end(keys.keys), [&](const char* own) {
            return own && std::string_view(own).substr(0, key.size()) == key &&
                   (own[key.size()] == '\0' || own[key.size()] == '?');
          });
      if (!known)
        return failure_.say(
            "step %d (%s) has the key '%.*s', which %s does not take. Update sparsecore, or export again", number_, op_,
            shown(key), key.data(), op_);
    }
    return true;
  }

  bool read_key(std::string_view key, Json value, Step* step) {
    Window& window = step->window;
    if (key == "x") return read_value_number(key, value, &step->x);
    if (key == "x2" || key == "residual") return read_value_number(key, value, &step->x2);
    if (key == "y") return read_place(value, &step->y);
    if (key == "xs") return read_sources(value, step);
    if (key == "weight") return read_weight_name(value, step);
    if (key == "rows") return read_int32(key, value, &step->weights.lists.rows);
    if (key == "cols") return read_int32(key, value, &step->weights.lists.cols);
    if (key == "depth") return read_int32(key, value, &step->weights.lists.depth);
    if (key == "window") return read_int32(key, value, &step->weights.lists.window);
    if (key == "kernel") return read_pair(key, value, 1, kLargestKernel, &window.kernel_h, &window.kernel_w);
    if (key == "stride") return read_pair(key, value, 1, kLargestWindow, &window.stride_h, &window.stride_w);
    if (key == "padding") return read_pair(key, value, 0, kLargestWindow, &window.pad_top, &window.pad_left);
    if (key == "dilation") return read_pair(key, value, 1, kLargestWindow, &window.dilation_h, &window.dilation_w);
    if (key == "activation") return read_activation(key, value, &step->activation);
    if (key == "inner") return read_activation(key, value, &step->inner);
    if (key == "gate") return read_activation(key, value, &step->gate);
    // count_include_pad
    if (!value.is(JsonKind::kBool)) return wrong(key, "true or false");
    step->count_include_pad = value.integer() != 0;
    return true;
  }

  bool wrong(std::string_view key, const char* needed) const {
    return failure_.say("step %d (%s): \"%.*s\" must be %s", number_, op_, shown(key), key.data(), needed);
  }

  bool read_place(Json value, int* out) const {
    if (!is_value(value)) return wrong("y", "the number of a value");
    *out = static_cast<int>(value.integer());
    return true;
  }

  bool read_value_number(std::string_view key, Json value, int* out) const {
    if (!is_value(value)) return wrong(key, "the number of a value");
    *out = static_cast<int>(value.integer());
    if (written_[static_cast<size_t>(*out)]) return true;
    return failure_.say("step %d (%s) reads value %d before any step writes it", number_, op_, *out);
  }

  bool read_sources(Json value, Step* step) const {
    if (!value.is(JsonKind::kArray) || value.size() == 0 || value.size() > kMostValues)
      return wrong("xs", "a list of values");
    for (const Json source : value) {
      int x = 0;
      if (!read_value_number("xs", source, &x)) return false;
      step->xs.push_back(x);
    }
    return true;
  }

  bool read_weight_name(Json value, Step* step) const {
    if (!value.is(JsonKind::kString)) return wrong("weight", "the name of a weight");
    step->weight = value.string();
    return true;
  }

  bool read_int32(std::string_view key, Json value, int32_t* out) const {
    if (!value.is(JsonKind::kInteger) || value.integer() < 1 || value.integer() > 65536)
      return wrong(key, "a whole number from 1 to 65536");
    *out = static_cast<int32_t>(value.integer());
    return true;
  }

  bool read_pair(std::string_view key, Json value, int64_t least, int64_t most, int64_t* first, int64_t* second) const {
    int64_t pair[2] = {0, 0};
    bool good = value.is(JsonKind::kArray) && value.size() == 2;
    int i = 0;
    if (good)
      for (const Json number : value) {
        good = good && number.is(JsonKind::kInteger) && number.integer() >= least && number.integer() <= most;
        if (good) pair[i++] = number.integer();
      }
    if (!good)
      return failure_.say("step %d (%s): \"%.*s\" must be two whole numbers from %lld to %lld", number_, op_,
                          shown(key), key.data(), static_cast<long long>(least), static_cast<long long>(most));
    *first = pair[0];
    *second = pair[1];
    return true;
  }

  bool read_activation(std::string_view key, Json value, Activation* out) const {
    if (value.is(JsonKind::kString))
      for (int i = 0; i <= kLastActivation; ++i)
        if (value.string() == kActivations[i]) {
          *out = static_cast<Activation>(i);
          return true;
        }
    return wrong(key, "the name of an activation that this library knows");
  }

  Json root_;
  Graph& graph_;
  const Failure& failure_;
  std::vector<bool> written_;
  int number_ = 0;
  const char* op_ = "";
};

}  // namespace

const char* op_name(Op op) { return kOpKeys[static_cast<int>(op)].name; }

bool read_graph(std::string_view json, Graph* graph, const Failure& failure) {
  JsonDocument document;
  size_t where = 0;
  if (const char* wrong = document.parse(json, &where))
    return failure.say("the network's description is not JSON: %s at its byte %zu. Export the network again", wrong,
                       where);
  if (!document.root().is(JsonKind::kObject)) return failure.say("the network's description is JSON, but no object");
  return GraphReader(document.root(), graph, failure).run();
}

}  // namespace sparsecore::network

// The network of a file as plain structures: what the JSON says, checked as far as it can be without the weights.
//
// Sizes are bounded so that no product overflows: a value holds fewer than 2^31 elements, a kernel at most 256 x 256.
#pragma once

#include "cpu/network/safetensors.h"
#include "sparsecore/group_lists.h"
#include "sparsecore/planes.h"

namespace sparsecore::network {

enum class Op : uint8_t {
  kConv,
  kStem,
  kDepthwise,
  kLinear,
  kDense,
  kAveragePool,
  kMaxPool,
  kGlobalAveragePool,
  kSqueezeExcite,
  kAdd,
  kScale,
  kActivation,
  kConcat,
  kFlatten,
  kSoftmax,
};
constexpr int kOps = static_cast<int>(Op::kSoftmax) + 1;
const char* op_name(Op op);

struct Shape {
  int rank = 3;  // 3: [channels, height, width]; 1: [channels], height and width 1
  int64_t channels = 0, height = 1, width = 1;

  int64_t pixels() const { return height * width; }
  int64_t count() const { return channels * pixels(); }
  bool operator==(const Shape& other) const {
    return rank == other.rank && channels == other.channels && height == other.height && width == other.width;
  }
};

struct Port {
  std::string name;
  int value = 0;
  bool hwc = false;
};

// What a step computes with; filled when the weights are read (weights.h). Arrays belong to the network.
struct Weights {
  GroupLists lists;
  DType dtype = DType::kFloat32;  // of the lists' values
  const float* scale = nullptr;   // per output channel, or null
  const float* bias = nullptr;    // or null
  const float* weight = nullptr;  // of stem and depthwise
  const float* weight1 = nullptr;
  const float* bias1 = nullptr;
  const float* weight2 = nullptr;
  const float* bias2 = nullptr;
  int64_t squeezed = 0;
  int64_t products = 0, dense_products = 0;  // multiply-adds of one image
};

struct Step {
  Op op = Op::kConv;
  int x = -1, x2 = -1, y = -1;  // values; x2 is the second operand or the residual, -1 where there is none
  std::vector<int> xs;          // of a concat
  std::string weight;
  Window window;
  Activation activation = Activation::kNone;
  Activation inner = Activation::kRelu, gate = Activation::kSigmoid;
  bool count_include_pad = true;
  Weights weights;
};

struct Graph {
  std::vector<Port> inputs, outputs;
  std::vector<Shape> values;
  std::vector<Step> steps;

  // Values that a step reads, in order.
  template <typename Body>
  void for_each_read(const Step& step, Body&& body) const {
    if (step.x >= 0) body(step.x);
    if (step.x2 >= 0) body(step.x2);
    for (const int x : step.xs) body(x);
  }
};

// The JSON text of a file's metadata -> graph; shapes of all steps fit each other and every value is written once,
// before it is read. `rows`, `cols`, `depth` and `window` of group lists land in weights.lists, unchecked.
bool read_graph(std::string_view json, Graph* graph, const Failure& failure);

// Part of read_graph: the shapes of one step's values and its window (shapes.cpp).
bool check_shapes(const Graph& graph, Step* step, int number, const Failure& failure);

}  // namespace sparsecore::network

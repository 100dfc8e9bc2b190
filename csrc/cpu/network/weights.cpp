#include "cpu/network/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/narrow.h"

namespace sparsecore::network {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_float(const Tensor& tensor) {
  return tensor.type == TensorType::kFloat32 || tensor.type == TensorType::kFloat16 ||
         tensor.type == TensorType::kBFloat16;
}

std::string shape_text(const Tensor& tensor) {
  std::string text = "[";
  for (size_t i = 0; i < tensor.shape.size() && i < 6; ++i) text += (i ? ", " : "") + std::to_string(tensor.shape[i]);
  return text + (tensor.shape.size() > 6 ? ", ...]" : "]");
}

}  // namespace

void* WeightStore::reserve(int64_t bytes) {
  const size_t rounded = static_cast<size_t>((bytes + kSlack + 63) / 64 * 64);
  void* memory = std::aligned_alloc(64, rounded);
  if (!memory) return nullptr;
  std::memset(static_cast<char*>(memory) + bytes, 0, rounded - static_cast<size_t>(bytes));
  blocks_.emplace_back(memory);
  bytes_ += static_cast<size_t>(bytes);
  return memory;
}

const void* WeightStore::copy(const Tensor& tensor) {
  const void*& known = copies_[std::string(tensor.name)];
  if (known) return known;
  void* memory = reserve(tensor.bytes);
  if (memory && tensor.bytes) std::memcpy(memory, tensor.data, static_cast<size_t>(tensor.bytes));
  return known = memory;
}

const float* WeightStore::widen(const Tensor& tensor) {
  if (tensor.type == TensorType::kFloat32) return static_cast<const float*>(copy(tensor));
  const void*& known = widened_[std::string(tensor.name)];
  if (known) return static_cast<const float*>(known);
  auto* memory = static_cast<float*>(reserve(4 * tensor.count));
  if (!memory) return nullptr;
  for (int64_t i = 0; i < tensor.count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, tensor.data + 2 * i, 2);
    memory[i] =
        tensor.type == TensorType::kBFloat16 ? sparsecore::widen(BFloat16{bits}) : sparsecore::widen(Float16{bits});
  }
  known = memory;
  return memory;
}

// Reads the tensors of one step.
class WeightReader {
 public:
  WeightReader(const TensorFile& file, WeightStore* store, const Graph& graph, Step* step, int number,
               const Failure& failure)
      : file_(file), store_(*store), graph_(graph), step_(*step), number_(number), failure_(failure) {}

  bool run() {
    const int64_t taps = step_.window.kernel_h * step_.window.kernel_w;
    switch (step_.op) {
      case Op::kConv: return lists(y().channels, x().channels, taps, y().pixels());
      case Op::kLinear: return lists(y().channels, x().channels, 1, 1);
      case Op::kDense: return dense(y().channels, x().channels);
      case Op::kStem: return plain(x().channels * taps, x().channels);
      case Op::kDepthwise: return plain(taps, 1);
      case Op::kSqueezeExcite: return squeeze_excite();
      default: return true;
    }
  }

 private:
  const Shape& x() const { return graph_.values[static_cast<size_t>(step_.x)]; }
  const Shape& y() const { return graph_.values[static_cast<size_t>(step_.y)]; }

  // The tensor <weight>.<part>; a missing one is an error unless it is optional.
  bool find(const char* part, bool optional, const Tensor** out) const {
    *out = file_.find(step_.weight + "." + part);
    return *out || optional ||
           failure_.say("step %d (%s) needs the tensor '%.60s.%s', which the file lacks. Export the network again",
                        number_, op_name(step_.op), step_.weight.c_str(), part);
  }
  bool wrong(const char* part, const Tensor& tensor, const char* needed) const {
    return failure_.say(
        "step %d (%s): tensor '%.60s.%s' has the shape %s of dtype %.8s, and needs %s. Export the network again",
        number_, op_name(step_.op), step_.weight.c_str(), part, shape_text(tensor).c_str(),
        std::string(tensor.dtype).c_str(), needed);
  }
  bool wrong_count(const char* part, const Tensor& tensor, int64_t count, const char* types) const {
    char needed[96];
    std::snprintf(needed, sizeof needed, "%lld elements of %s", static_cast<long long>(count), types);
    return wrong(part, tensor, needed);
  }
  bool no_memory() const {
    return failure_.say("step %d (%s): no memory for the tensors of '%.60s'", number_, op_name(step_.op),
                        step_.weight.c_str());
  }

  bool is_matrix(const char* part, const Tensor& tensor, int64_t rows, int64_t columns) const {
    if (is_float(tensor) && tensor.count == rows * columns && !tensor.shape.empty() && tensor.shape[0] == rows)
      return true;
    char needed[96];
    std::snprintf(needed, sizeof needed, "%lld x %lld elements of F32, F16 or BF16", static_cast<long long>(rows),
                  static_cast<long long>(columns));
    return wrong(part, tensor, needed);
  }

  // A matrix or, of one column, a vector; widened.
  bool floats(const char* part, int64_t rows, int64_t columns, bool optional, const float** out) {
    const Tensor* tensor = nullptr;
    if (!find(part, optional, &tensor)) return false;
    if (!tensor) return true;
    if (!is_matrix(part, *tensor, rows, columns)) return false;
    *out = store_.widen(*tensor);
    return *out || no_memory();
  }

  bool bytes(const char* part, const Tensor& tensor, int64_t count, TensorType type, TensorType same, const char* types,
             const void** out) {
    if ((tensor.type != type && tensor.type != same) || tensor.count != count)
      return wrong_count(part, tensor, count, types);
    *out = store_.copy(tensor);
    return *out || no_memory();
  }

  // Products of one image: every kept weight meets `positions` outputs.
  void count_products(int64_t kept, int64_t all, int64_t positions) {
    step_.weights.products = kept * positions;
    step_.weights.dense_products = all * positions;
  }

  bool lists(int64_t n, int64_t channels, int64_t taps, int64_t positions) {
    GroupLists& lists = step_.weights.lists;
    const int64_t k = channels * taps;
    if (k > INT32_MAX)
      return failure_.say("step %d (%s): %lld columns are too many", number_, op_name(step_.op),
                          static_cast<long long>(k));
    // Sizes below divide by these.
    const auto power = [](int32_t value) { return value >= 1 && value <= 32 && (value & (value - 1)) == 0; };
    if (!power(lists.rows) || !power(lists.cols) || lists.depth < 16 || lists.depth % 16 || lists.depth % lists.cols ||
        lists.window > 256)
      return failure_.say(
          "step %d (%s): rows %d, cols %d, depth %d and window %d are no group lists: rows and cols "
          "are powers of two up to 32, depth a multiple of 16 and of cols, window up to 256",
          number_, op_name(step_.op), lists.rows, lists.cols, lists.depth, lists.window);
    const Tensor *values, *index, *order, *starts;
    if (!find("values", false, &values) || !find("index", false, &index) || !find("order", false, &order) ||
        !find("starts", false, &starts))
      return false;
    const int64_t groups = ceil_div(n, lists.rows), panels = ceil_div(k, lists.depth);
    const bool wide = group_lists_index_bytes(lists.cols, lists.depth) == 2;
    const int64_t area = int64_t{lists.rows} * lists.cols;
    if (index->count < 1) return wrong("index", *index, "at least the padding record");
    lists.records = index->count - 1;
    if (lists.records > INT32_MAX) return wrong("index", *index, "fewer than 2^31 records");
    const TensorType narrow = TensorType::kUint8;
    const void *order_bytes = nullptr, *starts_bytes = nullptr;
    if (!bytes("index", *index, index->count, wide ? TensorType::kUint16 : narrow, wide ? TensorType::kInt16 : narrow,
               wide ? "U16" : "U8", &lists.index) ||
        !bytes("order", *order, panels * groups, narrow, narrow, "U8", &order_bytes) ||
        !bytes("starts", *starts, panels * (groups + 1), TensorType::kInt32, TensorType::kInt32, "I32", &starts_bytes))
      return false;
    lists.order = static_cast<const uint8_t*>(order_bytes);
    lists.starts = static_cast<const int32_t*>(starts_bytes);
    const bool quantised = values->type == TensorType::kInt8;
    if ((!quantised && !is_float(*values)) || values->count != (lists.records + 1) * area)
      return wrong_count("values", *values, (lists.records + 1) * area, "F32, F16, BF16 or I8");
    step_.weights.dtype = quantised                              ? DType::kInt8
                          : values->type == TensorType::kFloat32 ? DType::kFloat32
                          : values->type == TensorType::kFloat16 ? DType::kFloat16
                                                                 : DType::kBFloat16;
    lists.values = store_.copy(*values);
    if (!lists.values) return no_memory();
    if (!floats("bias", n, 1, true, &step_.weights.bias) || !floats("scale", n, 1, !quantised, &step_.weights.scale))
      return false;
    for (int64_t o = 0; step_.weights.scale && o < n; ++o)
      if (!std::isfinite(step_.weights.scale[o]))
        return failure_.say("step %d (%s): the scale of channel %lld in '%.60s.scale' is not finite", number_,
                            op_name(step_.op), static_cast<long long>(o), step_.weight.c_str());
    int64_t where = 0;
    const Status status = group_lists_validate(lists, n, k, &where);
    if (status != Status::kOk)
      return failure_.say("step %d (%s): the packed weight '%.60s' is damaged at %lld: %s. Export the network again",
                          number_, op_name(step_.op), step_.weight.c_str(), static_cast<long long>(where),
                          describe(status));
    count_products(lists.records * area, n * k, positions);
    return true;
  }

  bool dense(int64_t n, int64_t k) {
    const float* weight = nullptr;
    const Tensor* tensor = nullptr;
    if (!find("weight", false, &tensor)) return false;
    if (!is_matrix("weight", *tensor, n, k)) return false;
    if (!floats("bias", n, 1, true, &step_.weights.bias)) return false;
    GroupLists& packed = store_.packed_[step_.weight + "/" + std::to_string(n)];
    if (packed.values) {
      step_.weights.lists = packed;
      count_products(n * k, n * k, 1);
      return true;
    }
    WeightStore unpacked;  // float32 row by row, needed only here
    weight = unpacked.widen(*tensor);
    packed.rows = 8;
    packed.depth = group_lists_depth(packed.rows, packed.cols, k, 1.0);
    packed.window = group_lists_window(packed.rows, n);
    const int64_t groups = ceil_div(n, packed.rows), panels = ceil_div(k, packed.depth);
    packed.records = groups * k;
    const std::vector<uint8_t> mask(static_cast<size_t>(packed.records), 1);
    void* values = store_.reserve((packed.records + 1) * packed.rows * 4);
    void* index = store_.reserve((packed.records + 1) * group_lists_index_bytes(packed.cols, packed.depth));
    auto* order = static_cast<uint8_t*>(store_.reserve(panels * groups));
    auto* starts = static_cast<int32_t*>(store_.reserve(panels * (groups + 1) * 4));
    if (!weight || !values || !index || !order || !starts) return no_memory();
    const Status status = group_lists_pack(weight, DType::kFloat32, mask.data(), n, k, packed.rows, packed.cols,
                                           packed.depth, packed.window, values, index, order, starts);
    if (status != Status::kOk)
      return failure_.say("step %d (dense): '%.60s.weight' of %lld x %lld cannot be packed: %s", number_,
                          step_.weight.c_str(), static_cast<long long>(n), static_cast<long long>(k), describe(status));
    packed.values = values, packed.index = index, packed.order = order, packed.starts = starts;
    step_.weights.lists = packed;
    count_products(n * k, n * k, 1);
    return true;
  }

  // A weight as the file has it: `columns` numbers for every output channel.
  bool plain(int64_t columns, int64_t channels) {
    if (columns > INT32_MAX / channels)
      return failure_.say("step %d (%s): its window is too large", number_, op_name(step_.op));
    count_products(y().channels * columns, y().channels * columns, y().pixels());
    return floats("weight", y().channels, columns, false, &step_.weights.weight) &&
           floats("bias", y().channels, 1, true, &step_.weights.bias);
  }

  bool squeeze_excite() {
    Weights& weights = step_.weights;
    const Tensor* bias1 = nullptr;
    if (!find("bias1", false, &bias1)) return false;
    weights.squeezed = bias1->count;
    if (weights.squeezed < 1 || weights.squeezed > INT32_MAX)
      return wrong("bias1", *bias1, "an element per squeezed channel");
    const int64_t channels = x().channels, squeezed = weights.squeezed;
    count_products(2 * channels * squeezed, 2 * channels * squeezed, 1);
    return floats("bias1", squeezed, 1, false, &weights.bias1) &&
           floats("weight1", squeezed, channels, false, &weights.weight1) &&
           floats("weight2", channels, squeezed, false, &weights.weight2) &&
           floats("bias2", channels, 1, false, &weights.bias2);
  }

  const TensorFile& file_;
  WeightStore& store_;
  const Graph& graph_;
  Step& step_;
  const int number_;
  const Failure& failure_;
};

bool WeightStore::read(const TensorFile& file, Graph* graph, const Failure& failure) {
  int number = 0;
  for (Step& step : graph->steps)
    if (!WeightReader(file, this, *graph, &step, number++, failure).run()) return false;
  return true;
}

}  // namespace sparsecore::network

#include "cpu/network/plan.h"

#include <algorithm>
#include <numeric>

namespace sparsecore::network {
namespace {

constexpr int64_t kLineFloats = 16;
static_assert(kLineFloats % kPlaneLanes == 0);

int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// Memory that one value, or several that follow each other in place, share.
struct Storage {
  int64_t elements = 0;
  int first = 0, last = 0;
  int64_t offset = -1;
};

class Planner {
 public:
  explicit Planner(const Graph& graph) : graph_(graph), storage_of_(graph.values.size(), -1) {
    plan_.values.resize(graph.values.size());
  }

  Plan run() {
    find_lives();
    borrow_inputs();
    make_storages();
    place();
    return std::move(plan_);
  }

 private:
  Placement& placement(int value) { return plan_.values[static_cast<size_t>(value)]; }
  const Shape& shape(int value) const { return graph_.values[static_cast<size_t>(value)]; }

  void find_lives() {
    int number = 0;
    for (const Step& step : graph_.steps) {
      graph_.for_each_read(step, [&](int value) {
        if (placement(value).first < 0) placement(value).first = number;  // an input
        placement(value).last = number;
      });
      placement(step.y).first = placement(step.y).last = number++;
    }
  }

  // An input that its readers can take as it lies needs no memory here.
  void borrow_inputs() {
    for (size_t i = 0; i < graph_.inputs.size(); ++i) {
      const Port& port = graph_.inputs[i];
      const Shape& own = shape(port.value);
      const bool whole = own.rank == 1 || own.pixels() % kPlaneLanes == 0;
      if (placement(port.value).first >= 0 && !(port.hwc ? reads_pixels(port.value) : whole)) continue;
      placement(port.value).input = static_cast<int>(i);
      placement(port.value).hwc = port.hwc;
    }
  }

  // True where every reader is a convolution that takes [H, W, C].
  bool reads_pixels(int value) const {
    bool all = true;
    for (const Step& step : graph_.steps)
      graph_.for_each_read(step, [&](int read) {
        const bool takes = (step.op == Op::kConv || step.op == Op::kStem) && step.x2 != value;
        all = all && (read != value || takes);
      });
    return all;
  }

  // The operand that `step`, the `number`th, may overwrite, or -1.
  int operand_in_place(const Step& step, int number) {
    const auto free = [&](int value) {
      return storage_of_[static_cast<size_t>(value)] >= 0 && placement(value).last == number;
    };
    switch (step.op) {
      case Op::kAdd: return free(step.x) ? step.x : free(step.x2) ? step.x2 : -1;
      case Op::kScale:
      case Op::kActivation:
      case Op::kSqueezeExcite:
      case Op::kSoftmax: return free(step.x) ? step.x : -1;
      default: return -1;
    }
  }

  void make_storages() {
    for (const Port& port : graph_.inputs) open(port.value);
    int number = 0;
    for (const Step& step : graph_.steps) {
      const int x = operand_in_place(step, number);
      if (x >= 0) {
        const int storage = storage_of_[static_cast<size_t>(x)];
        storages_[static_cast<size_t>(storage)].last = placement(step.y).last;
        storage_of_[static_cast<size_t>(step.y)] = storage;
      } else {
        open(step.y);
      }
      ++number;
    }
  }

  void open(int value) {
    if (placement(value).input >= 0) return;
    storage_of_[static_cast<size_t>(value)] = static_cast<int>(storages_.size());
    storages_.push_back({arena_elements(shape(value)), placement(value).first, placement(value).last, -1});
  }

  void place() {
    std::vector<int> order(storages_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return storages_[static_cast<size_t>(a)].elements > storages_[static_cast<size_t>(b)].elements;
    });
    std::vector<const Storage*> placed;  // by offset
    for (const int i : order) {
      Storage& storage = storages_[static_cast<size_t>(i)];
      storage.offset = best_gap(storage, placed);
      const auto behind = std::upper_bound(placed.begin(), placed.end(), &storage,
                                           [](const Storage* a, const Storage* b) { return a->offset < b->offset; });
      placed.insert(behind, &storage);
      plan_.elements = std::max(plan_.elements, storage.offset + storage.elements);
    }
    for (size_t value = 0; value < graph_.values.size(); ++value)
      if (storage_of_[value] >= 0)
        plan_.values[value].offset = storages_[static_cast<size_t>(storage_of_[value])].offset;
    plan_.elements += kArenaSlack;
  }

  // The smallest gap between storages of overlapping lives that takes `wanted`, or the place behind all of them.
  static int64_t best_gap(const Storage& wanted, const std::vector<const Storage*>& placed) {
    int64_t best = -1, smallest = INT64_MAX, end = 0;
    for (const Storage* other : placed) {
      if (other->last < wanted.first || wanted.last < other->first) continue;
      const int64_t gap = other->offset - end;
      if (gap >= wanted.elements && gap < smallest) best = end, smallest = gap;
      end = std::max(end, other->offset + other->elements);
    }
    return best >= 0 ? best : end;
  }

  const Graph& graph_;
  Plan plan_;
  std::vector<int> storage_of_;  // of each value, -1 for none
  std::vector<Storage> storages_;
};

}  // namespace

int64_t plane_stride(const Shape& shape) {
  if (shape.rank == 1) return 1;
  const int64_t lines = round_up(shape.pixels(), kLineFloats) / kLineFloats;
  return (lines <= 4 ? lines : lines | 1) * kLineFloats;
}

int64_t arena_elements(const Shape& shape) { return round_up(shape.channels * plane_stride(shape), kLineFloats); }

Plan plan_arena(const Graph& graph) { return Planner(graph).run(); }

}  // namespace sparsecore::network

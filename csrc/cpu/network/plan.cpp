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
  Planner(const Graph& graph, const std::vector<Chain>& chains, bool over_residuals)
      : graph_(graph), chains_(chains), over_residuals_(over_residuals), storage_of_(graph.values.size(), -1) {
    plan_.values.resize(graph.values.size());
  }

  Plan run() {
    find_lives();
    join_lives();
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

  // All steps of a chain are at work until its end.
  void join_lives() {
    for (const Chain& chain : chains_)
      for (int number = chain.first; number <= chain.last; ++number) {
        const Step& step = graph_.steps[static_cast<size_t>(number)];
        graph_.for_each_read(step, [&](int value) {
          Placement& at = placement(value);
          at.last = std::max(at.last, chain.last);
          if (at.first > chain.first) at.first = chain.first;  // an input, or a value of the chain
        });
        placement(step.y).first = chain.first;
        placement(step.y).last = std::max(placement(step.y).last, chain.last);
        if (number < chain.last) placement(step.y).rows = chain.roofs[static_cast<size_t>(number - chain.first)];
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
      case Op::kConv:
        if (in_chain(number)) return -1;
        return over_residuals_ && step.x2 >= 0 && step.x2 != step.x && free(step.x2) ? step.x2 : -1;
      case Op::kScale:
      case Op::kActivation:
      case Op::kSqueezeExcite:
      case Op::kSoftmax: return free(step.x) ? step.x : -1;
      default: return -1;
    }
  }

  bool in_chain(int number) const {
    return std::any_of(chains_.begin(), chains_.end(),
                       [&](const Chain& chain) { return chain.first <= number && number <= chain.last; });
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
    const int64_t elements = placement(value).rows < 0 ? arena_elements(shape(value))
                                                       : rolling_elements(shape(value), placement(value).rows);
    storages_.push_back({elements, placement(value).first, placement(value).last, -1});
  }

  // No order is best for every network: the largest first, or as they begin, or where most is alive first.
  void place() {
    const std::vector<int64_t> alive = alive_elements();
    std::vector<int64_t> crowd;  // the most that is alive while a storage is
    for (const Storage& storage : storages_)
      crowd.push_back(*std::max_element(alive.begin() + storage.first, alive.begin() + storage.last + 1));
    const auto size = [&](int i) { return storages_[static_cast<size_t>(i)].elements; };
    const auto begin = [&](int i) { return storages_[static_cast<size_t>(i)].first; };
    const auto beside = [&](int i) { return crowd[static_cast<size_t>(i)]; };
    try_order([&](int a, int b) { return size(a) > size(b); });
    try_order([&](int a, int b) { return beside(a) != beside(b) ? beside(a) > beside(b) : size(a) > size(b); });
    try_order([&](int a, int b) { return begin(a) < begin(b); });
    for (size_t value = 0; value < graph_.values.size(); ++value)
      if (storage_of_[value] >= 0) plan_.values[value].offset = best_[static_cast<size_t>(storage_of_[value])];
    plan_.elements = (storages_.empty() ? 0 : smallest_) + kArenaSlack;
  }

  // At every step.
  std::vector<int64_t> alive_elements() const {
    std::vector<int64_t> alive(graph_.steps.size() + 1);
    for (const Storage& storage : storages_) {
      alive[static_cast<size_t>(storage.first)] += storage.elements;
      alive[static_cast<size_t>(storage.last) + 1] -= storage.elements;
    }
    std::partial_sum(alive.begin(), alive.end(), alive.begin());
    return alive;
  }

  template <typename Before>
  void try_order(Before&& before) {
    std::vector<int> order(storages_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), before);
    std::vector<const Storage*> placed;  // by offset
    int64_t end = 0;
    for (const int i : order) {
      Storage& storage = storages_[static_cast<size_t>(i)];
      storage.offset = best_gap(storage, placed);
      const auto behind = std::upper_bound(placed.begin(), placed.end(), &storage,
                                           [](const Storage* a, const Storage* b) { return a->offset < b->offset; });
      placed.insert(behind, &storage);
      end = std::max(end, storage.offset + storage.elements);
    }
    if (end >= smallest_) return;
    smallest_ = end;
    best_.clear();
    for (const Storage& storage : storages_) best_.push_back(storage.offset);
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
  const std::vector<Chain>& chains_;
  const bool over_residuals_;
  Plan plan_;
  std::vector<int> storage_of_;  // of each value, -1 for none
  std::vector<Storage> storages_;
  int64_t smallest_ = INT64_MAX;  // of the orders tried
  std::vector<int64_t> best_;     // and its offsets
};

}  // namespace

int64_t plane_stride(const Shape& shape) { return shape.rank == 1 ? 1 : rolling_stride(shape, shape.height); }

int64_t arena_elements(const Shape& shape) { return round_up(shape.channels * plane_stride(shape), kLineFloats); }

int64_t rolling_stride(const Shape& shape, int64_t rows) {
  const int64_t lines = round_up(rows * shape.width, kLineFloats) / kLineFloats;
  return (lines <= 4 ? lines : lines | 1) * kLineFloats;
}

int64_t rolling_elements(const Shape& shape, int64_t rows) {
  return round_up(shape.channels * rolling_stride(shape, rows), kLineFloats);
}

Plan plan_arena(const Graph& graph, const std::vector<Chain>& chains) {
  Plan apart = Planner(graph, chains, false).run(), over = Planner(graph, chains, true).run();
  return over.elements < apart.elements ? over : apart;
}

}  // namespace sparsecore::network

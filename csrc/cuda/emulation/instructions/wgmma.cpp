#include "wgmma.h"

#include <algorithm>
#include <deque>
#include <map>

namespace cuda_emulation {
namespace {

struct Operation {
  const char* instruction;
  WgmmaLane lanes[kWarpgroup];
  WgmmaShape shape;
  WgmmaProduct product;
  WgmmaOperands operands;
  bool has_read = false;
};

// What the accumulators of operations under way will be, by the first thread's address of them.
struct Sums {
  std::vector<uint32_t> values;
  int pending = 0;
};

// Accumulators that a wait handed back, and what was in them.
struct Delivered {
  std::vector<uint32_t> values;
  uint64_t epoch;
};

class Warpgroup : public WarpgroupState {
 public:
  void issue(const char* instruction, WgmmaLane* const* lanes, const WgmmaShape& shape, WgmmaProduct product);
  void fence(int warp) { fenced_[warp] = epoch_; }
  void commit() {
    groups_.push_back(operations_.size() - grouped_);
    grouped_ = operations_.size();
    group_began_ = ++epoch_;
  }
  void wait(size_t groups_left);
  const char* unfinished() const override { return operations_.empty() ? nullptr : operations_.front().instruction; }

 private:
  void read(Operation& operation);
  void finish(Operation& operation);
  void require_fences(const Operation& operation);
  bool fenced_since(uint64_t epoch) const {
    return std::all_of(fenced_, fenced_ + 4, [=](uint64_t fence) { return fence >= epoch; });
  }

  std::deque<Operation> operations_;
  std::deque<size_t> groups_;
  size_t grouped_ = 0;
  std::map<uint32_t*, Sums> sums_;
  std::map<uint32_t*, Delivered> delivered_;
  std::map<const uint32_t*, std::vector<uint32_t>> used_a_;  // values of A's registers in earlier groups
  uint64_t epoch_ = 1, group_began_ = 1;                     // grows with every commit and wait
  uint64_t fenced_[4] = {};
};

size_t registers_of(const WgmmaShape& shape) { return static_cast<size_t>(shape.columns) / 2; }

std::vector<uint32_t> gather(const WgmmaLane* lanes, size_t count) {
  std::vector<uint32_t> values(kWarpgroup * count);
  for (int t = 0; t < kWarpgroup; ++t) std::memcpy(&values[t * count], lanes[t].sums, 4 * count);
  return values;
}

std::vector<uint32_t> gather_a(const WgmmaLane* lanes) {
  std::vector<uint32_t> values(kWarpgroup * 4);
  for (int t = 0; t < kWarpgroup; ++t) std::memcpy(&values[4 * t], lanes[t].a_registers, 16);
  return values;
}

void check_poison(const Operation& operation) {
  const size_t count = registers_of(operation.shape);
  for (int t = 0; t < kWarpgroup; ++t) {
    for (size_t i = 0; i < count; ++i) {
      if (operation.lanes[t].sums[i] == operation.shape.poison) continue;
      violation("%s: accumulator register %zu of thread %d of the warpgroup was written before wgmma.wait_group",
                operation.instruction, i, t);
    }
  }
}

void Warpgroup::issue(const char* instruction, WgmmaLane* const* lanes, const WgmmaShape& shape, WgmmaProduct product) {
  operations_.emplace_back();
  Operation& operation = operations_.back();
  operation.instruction = instruction;
  operation.shape = shape;
  operation.product = product;
  for (int t = 0; t < kWarpgroup; ++t) {
    operation.lanes[t] = *lanes[t];
    operation.operands.metadata[t] = lanes[t]->metadata;
    if (lanes[t]->a_descriptor != lanes[0]->a_descriptor || lanes[t]->b_descriptor != lanes[0]->b_descriptor ||
        lanes[t]->accumulate != lanes[0]->accumulate) {
      violation("%s: thread %d of the warpgroup brings another descriptor or another accumulate than thread 0",
                instruction, t);
    }
  }
  const size_t count = registers_of(shape);
  require_fences(operation);
  if (lanes[0]->a_registers != nullptr) {
    const std::vector<uint32_t> a = gather_a(operation.lanes);
    std::memcpy(operation.operands.a_registers, a.data(), sizeof operation.operands.a_registers);
    used_a_[lanes[0]->a_registers] = a;
  }
  Sums& sums = sums_[lanes[0]->sums];
  if (sums.pending > 0) {
    if (sums.values.size() != kWarpgroup * count) {
      violation("%s: the accumulators are those of an operation of another shape, without a wait between", instruction);
    }
    check_poison(operation);
  } else {
    sums.values = gather(operation.lanes, count);
    for (int t = 0; t < kWarpgroup; ++t) std::fill_n(operation.lanes[t].sums, count, shape.poison);
  }
  sums.pending++;
  delivered_.erase(lanes[0]->sums);
  if (happens_at_once()) read(operation);
}

void Warpgroup::require_fences(const Operation& operation) {
  const WgmmaLane& first = operation.lanes[0];
  if (!fenced_since(1)) violation("%s: no wgmma.fence by all four warps comes before it", operation.instruction);
  const auto delivered = delivered_.find(first.sums);
  if (delivered != delivered_.end() && !fenced_since(delivered->second.epoch) &&
      gather(operation.lanes, registers_of(operation.shape)) != delivered->second.values) {
    violation("%s: the accumulators were written since the last wait, and no wgmma.fence by all four warps followed",
              operation.instruction);
  }
  if (first.a_registers != nullptr && !fenced_since(group_began_)) {
    const auto used = used_a_.find(first.a_registers);
    if (used == used_a_.end() || used->second != gather_a(operation.lanes)) {
      violation("%s: A's registers hold new values, and no wgmma.fence by all four warps came in this group",
                operation.instruction);
    }
  }
}

void Warpgroup::read(Operation& operation) {
  const WgmmaLane& first = operation.lanes[0];
  const WgmmaShape& shape = operation.shape;
  const auto matrix = [&](uint64_t descriptor, int rows, int k_bytes, bool transposed) {
    const MatrixDescriptor decoded = decode_descriptor(descriptor, operation.instruction);
    return (transposed ? read_mn_major : read_k_major)(decoded, rows, k_bytes, operation.instruction);
  };
  if (first.a_registers == nullptr) {
    operation.operands.a = matrix(first.a_descriptor, 64, shape.a_bytes, shape.a_transposed);
  }
  operation.operands.b = matrix(first.b_descriptor, shape.columns, shape.b_bytes, shape.b_transposed);
  operation.has_read = true;
}

void Warpgroup::finish(Operation& operation) {
  const WgmmaLane& first = operation.lanes[0];
  if (!operation.has_read) read(operation);
  if (first.a_registers != nullptr && std::memcmp(gather_a(operation.lanes).data(), operation.operands.a_registers,
                                                  sizeof operation.operands.a_registers) != 0) {
    violation("%s: A's registers changed before wgmma.wait_group: they were written, or their variable ended",
              operation.instruction);
  }
  Sums& sums = sums_.at(first.sums);
  if (!first.accumulate) std::fill(sums.values.begin(), sums.values.end(), 0);
  operation.product(operation.instruction, operation.operands, operation.shape, sums.values.data());
  if (--sums.pending > 0) return;
  check_poison(operation);
  const size_t count = registers_of(operation.shape);
  for (int t = 0; t < kWarpgroup; ++t) std::memcpy(operation.lanes[t].sums, &sums.values[t * count], 4 * count);
  delivered_[first.sums] = {std::move(sums.values), epoch_ + 1};
  sums_.erase(first.sums);
}

void Warpgroup::wait(size_t groups_left) {
  while (groups_.size() > groups_left) {
    for (size_t i = 0; i < groups_.front(); ++i) {
      finish(operations_.front());
      operations_.pop_front();
      grouped_--;
    }
    groups_.pop_front();
  }
  epoch_++;
}

Warpgroup& of_running_warpgroup() {
  std::vector<std::unique_ptr<WarpgroupState>>& states = cta().warpgroup_states;
  const size_t index = static_cast<size_t>(warp().index) / 4;
  if (states.size() <= index) states.resize(index + 1);
  if (states[index] == nullptr) states[index] = std::make_unique<Warpgroup>();
  return static_cast<Warpgroup&>(*states[index]);
}

struct Nothing {};

}  // namespace

void wgmma_issue(const char* instruction, WgmmaLane* const* lanes, const WgmmaShape& shape, WgmmaProduct product) {
  require_capability(90, instruction);
  of_running_warpgroup().issue(instruction, lanes, shape, product);
}

void wgmma_fence() {
  require_capability(90, "wgmma.fence");
  Nothing nothing;
  warp_collective("wgmma.fence", nothing, [](Nothing* const*) { of_running_warpgroup().fence(warp().index % 4); });
}

void wgmma_commit() {
  Nothing nothing;
  warpgroup_collective("wgmma.commit_group", nothing, [](Nothing* const*) { of_running_warpgroup().commit(); });
}

void wgmma_wait(int groups_left) {
  Nothing nothing;
  warpgroup_collective("wgmma.wait_group", nothing,
                       [=](Nothing* const*) { of_running_warpgroup().wait(static_cast<size_t>(groups_left)); });
}

}  // namespace cuda_emulation

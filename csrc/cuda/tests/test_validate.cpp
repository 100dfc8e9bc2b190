// The checks of loaded weights on the device against those on the host: arrays damaged at random, the same verdict.
#include <doctest/doctest.h>

#include <set>

#include "cuda/tests/damaged.h"

using namespace sparsecore;

namespace {

using Where = cuda_emulation::GlobalBuffer<int64_t>;

// Status and place of the host; the device's place is -1 where there is no fault.
void check_same(const Where& device, Status status, int64_t place) {
  CHECK(device[0] == static_cast<int64_t>(status));
  CHECK(device[1] == (status == Status::kOk ? -1 : place));
}

}  // namespace

TEST_CASE("validation: damaged shared lists get the verdict of the host") {
  std::set<Status> met;
  for (int trial = 0; trial < 120; ++trial) {
    CAPTURE(trial);
    DamagedSharedLists problem(trial);
    int64_t place = -1;
    const Status status = shared_lists_validate(problem.weight(), problem.n, problem.k, &place);
    met.insert(status);
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    Where where(2);
    REQUIRE(shared_lists_validate_device(problem.weight(), problem.n, problem.k, where.data(), nullptr) == Status::kOk);
    check_same(where, status, place);
  }
  CHECK(met == std::set{Status::kOk, Status::kBadPointers, Status::kBadIndex, Status::kUnsorted});
}

TEST_CASE("validation: damaged group lists get the verdict of the host") {
  std::set<Status> met;
  int padding = 0, whole = 0;
  for (int trial = 0; trial < DamagedGroupLists::kTrials; ++trial) {
    CAPTURE(trial);
    DamagedGroupLists problem(trial);
    int64_t place = -1;
    const Status status = group_lists_validate(problem.weight(), problem.n, problem.k, &place);
    met.insert(status);
    if (trial >= DamagedGroupLists::kFirstChosen) CHECK(status != Status::kOk);
    padding += status == Status::kBadIndex && place == problem.records;
    whole += status == Status::kOk && problem.records > 0;
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    Where where(2);
    REQUIRE(group_lists_validate_device(problem.weight(), problem.n, problem.k, where.data(), nullptr) == Status::kOk);
    check_same(where, status, place);
  }
  CHECK(met == std::set{Status::kOk, Status::kBadPointers, Status::kBadIndex, Status::kUnsorted});
  CHECK(padding > 0);
  CHECK(whole > 5);
}

TEST_CASE("validation: damaged bitmaps get the verdict of the host") {
  std::set<Status> met;
  for (int trial = 0; trial < 120; ++trial) {
    CAPTURE(trial);
    DamagedBitmap problem(trial);
    const BitmapDecode weight = problem.weight();
    const Status status = bitmap_decode_check(weight, problem.n, problem.k);
    met.insert(status);
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    Where where(2);
    REQUIRE(bitmap_decode_validate_device(weight, problem.n, problem.k, where.data(), nullptr) == Status::kOk);
    CHECK(where[0] == static_cast<int64_t>(status));
    // The host does not say which row.
    CHECK((status == Status::kOk ? where[1] == -1 : where[1] >= 0 && where[1] <= problem.n));
  }
  CHECK(met == std::set{Status::kOk, Status::kBadPointers, Status::kBadIndex});
}

TEST_CASE("validation: what cannot be done is said") {
  SharedListsProblem<BFloat16> lists({0, 32, 64, 16});
  CHECK(shared_lists_validate_device(lists.weight(), 32, 64, nullptr, nullptr) == Status::kNullPointer);
  GroupProblem groups(0, 32, 64, 4, 1, 64, 8, {});
  CHECK(group_lists_validate_device(groups.weight(), 32, 64, nullptr, nullptr) == Status::kNullPointer);
  BitmapProblem bitmap(0, 8, 64);
  Where where(2);
  BitmapDecode weight = bitmap.params(0).weight;
  CHECK(bitmap_decode_validate_device(weight, 8, 64, nullptr, nullptr) == Status::kNullPointer);
  CHECK(bitmap_decode_validate_device(weight, -1, 64, where.data(), nullptr) == Status::kBadShape);
  weight.row_ptr = nullptr;
  CHECK(bitmap_decode_validate_device(weight, 8, 64, where.data(), nullptr) == Status::kNullPointer);
}

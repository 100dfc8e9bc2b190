#include "mbarrier.h"

#include <cstring>

#include "machine.h"

namespace cuda_emulation {
namespace {

constexpr int kMostArrivals = (1 << 20) - 1;
constexpr uint64_t kMark = 0x7F8B6D6261727269u;  // in shared memory, where a barrier lives

struct Found {
  Cta* owner;
  uint32_t offset;
  Mbarrier* barrier;
};

uint32_t offset_in(const Cta& owner, const uint64_t* barrier) {
  return static_cast<uint32_t>(reinterpret_cast<const std::byte*>(barrier) - owner.shared->base());
}

Found find(const uint64_t* barrier, const char* instruction) {
  require_capability(80, instruction);
  check_shared_cluster(barrier, 8, 8, instruction);
  Cta* owner = owner_of_shared(barrier);
  const uint32_t offset = offset_in(*owner, barrier);
  const auto found = owner->mbarriers.find(offset);
  if (found == owner->mbarriers.end()) {
    violation("%s: there is no initialised mbarrier at shared offset %u", instruction, offset);
  }
  if (*barrier != kMark) violation("%s: the mbarrier at shared offset %u was overwritten", instruction, offset);
  if (owner != &cta() && !found->second.fenced) {
    violation("%s: the mbarrier at shared offset %u of block %u was initialised without fence.mbarrier_init",
              instruction, offset, owner->rank);
  }
  return {owner, offset, &found->second};
}

void end_phase_if_complete(const Found& f) {
  Mbarrier& b = *f.barrier;
  if (b.pending != 0 || b.transactions != 0) return;
  b.phase++;
  b.pending = b.expected;
  for (Lane* l : b.waiting) {
    if (l != running) wake(*l);
  }
  b.waiting.clear();
  f.owner->cluster->wave->progress();
}

void arrive(const Found& f, uint32_t count, const char* instruction) {
  if (count == 0 || count > static_cast<uint32_t>(f.barrier->pending)) {
    violation("%s: %u arrivals at the mbarrier at shared offset %u, whose phase %llu waits for %d of %d", instruction,
              count, f.offset, static_cast<unsigned long long>(f.barrier->phase), f.barrier->pending,
              f.barrier->expected);
  }
  f.barrier->pending -= static_cast<int>(count);
  end_phase_if_complete(f);
}

void add_transactions(const Found& f, int64_t bytes, const char* instruction) {
  f.barrier->transactions += bytes;
  if (f.barrier->transactions > kMostArrivals || f.barrier->transactions < -kMostArrivals) {
    violation("%s: the mbarrier at shared offset %u counts %lld bytes, more than 2^20 - 1", instruction, f.offset,
              static_cast<long long>(f.barrier->transactions));
  }
}

bool phase_ended(const Mbarrier& barrier, uint32_t parity) { return (barrier.phase & 1) != parity; }

std::string describe(const Mbarrier& b, uint32_t offset, uint32_t parity) {
  return format_text(
      "mbarrier at shared offset %u, parity %u; its phase %llu waits for %d of %d arrivals and %lld bytes", offset,
      parity, static_cast<unsigned long long>(b.phase), b.pending, b.expected, static_cast<long long>(b.transactions));
}

}  // namespace

void mbarrier_init(uint64_t* barrier, uint32_t count) {
  require_capability(80, "mbarrier.init");
  check_shared(barrier, 8, 8, "mbarrier.init");
  if (count == 0 || count > static_cast<uint32_t>(kMostArrivals)) {
    violation("mbarrier.init: a count of %u; it is 1 to 2^20 - 1", count);
  }
  const uint32_t offset = offset_in(cta(), barrier);
  if (cta().mbarriers.count(offset) != 0) {
    violation("mbarrier.init: the mbarrier at shared offset %u exists already; mbarrier.inval comes first", offset);
  }
  Mbarrier& b = cta().mbarriers[offset];
  b.expected = static_cast<int>(count);
  b.pending = b.expected;
  b.initialised_by = running;
  *barrier = kMark;
}

void mbarrier_invalidate(uint64_t* barrier) {
  const Found f = find(barrier, "mbarrier.inval");
  if (!f.barrier->waiting.empty()) {
    violation("mbarrier.inval: threads wait on the mbarrier at shared offset %u", f.offset);
  }
  f.owner->mbarriers.erase(f.offset);
  std::memset(barrier, kPoison, 8);
}

void publish_mbarriers(Lane& self) {
  for (auto& [offset, barrier] : self.cta->mbarriers) barrier.fenced |= barrier.initialised_by == &self;
}

void fence_mbarrier_init() {
  require_capability(90, "fence.mbarrier_init");
  publish_mbarriers(lane());
}

void mbarrier_arrive(uint64_t* barrier, uint32_t count) {
  const Found f = find(barrier, "mbarrier.arrive");
  const uint64_t phase = f.barrier->phase;
  arrive(f, count, "mbarrier.arrive");
  if (f.barrier->phase != phase) reschedule();
}

void mbarrier_expect_tx(uint64_t* barrier, uint32_t bytes) {
  require_capability(90, "mbarrier.expect_tx");
  add_transactions(find(barrier, "mbarrier.expect_tx"), bytes, "mbarrier.expect_tx");
}

void mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes) {
  require_capability(90, "mbarrier.arrive.expect_tx");
  const Found f = find(barrier, "mbarrier.arrive.expect_tx");
  add_transactions(f, bytes, "mbarrier.arrive.expect_tx");
  arrive(f, 1, "mbarrier.arrive.expect_tx");
}

void mbarrier_complete_tx(uint64_t* barrier, uint32_t bytes) {
  require_capability(90, "mbarrier.complete_tx");
  complete_transaction(barrier, bytes, "mbarrier.complete_tx");
}

void complete_transaction(uint64_t* barrier, size_t bytes, const char* instruction) {
  const Found f = find(barrier, instruction);
  add_transactions(f, -static_cast<int64_t>(bytes), instruction);
  end_phase_if_complete(f);
}

bool mbarrier_test_wait(uint64_t* barrier, uint32_t parity) {
  const Found f = find(barrier, "mbarrier.test_wait");
  if (parity > 1) violation("mbarrier.test_wait: parity %u; it is 0 or 1", parity);
  if (phase_ended(*f.barrier, parity)) return true;
  lane().waits_for = [f, parity] { return describe(*f.barrier, f.offset, parity); };
  poll("mbarrier.test_wait");
  return false;
}

bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
  const Found f = find(barrier, "mbarrier.try_wait");
  if (parity > 1) violation("mbarrier.try_wait: parity %u; it is 0 or 1", parity);
  if (f.owner != &cta()) violation("mbarrier.try_wait: the mbarrier belongs to another block of the cluster");
  Lane& self = lane();
  while (!phase_ended(*f.barrier, parity)) {
    f.barrier->waiting.push_back(&self);
    self.waits_in = "mbarrier.try_wait";
    self.site = current_site();
    self.waits_for = [f, parity] { return describe(*f.barrier, f.offset, parity); };
    self.may_retry = true;
    self.retried = false;
    block();
    if (self.retried) {
      std::erase(f.barrier->waiting, &self);
      return false;
    }
  }
  return true;
}

void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

void cp_async_mbarrier_arrive_noinc(uint64_t* barrier) {
  const Found f = find(barrier, "cp.async.mbarrier.arrive.noinc");
  Lane* self = running;
  // What is waited for in the meantime leaves the front of the list, which only makes the count cover more.
  const size_t copies = self->copies.issued();
  wave().engine.issue("cp.async.mbarrier.arrive.noinc", {f.owner}, [=] {
    self->copies.perform_first(copies);
    arrive(f, 1, "cp.async.mbarrier.arrive.noinc");
  });
}

void require_visible_mbarrier(const uint64_t* barrier, const char* instruction) {
  const Found f = find(barrier, instruction);
  if (!f.barrier->fenced) {
    violation(
        "%s: the mbarrier at shared offset %u was initialised without a fence (fence.mbarrier_init or "
        "fence.proxy.async) that makes it visible to asynchronous copies",
        instruction, f.offset);
  }
}

}  // namespace cuda_emulation

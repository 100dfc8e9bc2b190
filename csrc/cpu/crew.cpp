#include "cpu/crew.h"

#include <thread>

#include "cpu/arch.h"

#if defined(SPARSECORE_X86)
#include <immintrin.h>
#endif

namespace sparsecore {
namespace {

constexpr int kSpins = 1000;  // ten to twenty microseconds: longer than most steps that only one thread runs
constexpr int kYields = 100;

void relax() {
#if defined(SPARSECORE_X86)
  _mm_pause();
#elif defined(SPARSECORE_ARM)
  __asm__ volatile("isb");
#endif
}

// The value of `word` once `ready` says that it will do. Whoever changes it calls notify_one().
template <typename Value, typename Ready>
Value wait_until(const std::atomic<Value>& word, Ready&& ready) {
  Value value = word.load(std::memory_order_acquire);
  for (int tries = 0; !ready(value); ++tries) {
    if (tries < kSpins)
      relax();
    else if (tries < kSpins + kYields)
      std::this_thread::yield();
    else
      word.wait(value, std::memory_order_acquire);
    value = word.load(std::memory_order_acquire);
  }
  return value;
}

uint32_t turn_of(uint64_t claim) { return static_cast<uint32_t>(claim >> 32); }

}  // namespace

void Crew::publish(uint32_t turn, int64_t count, Task task, void* context) {
  for (int member = 0; member < members_; ++member) {
    Seat& seat = seats_[member];
    const int64_t begin = member * count / members_;
    seat.end = (member + 1) * count / members_;
    seat.task = task;
    seat.context = context;
    // In one order with the count of sleepers that notify_one() looks at.
    seat.claim.store(uint64_t{turn} << 32 | static_cast<uint64_t>(seat.end - begin), std::memory_order_seq_cst);
    seat.claim.notify_one();
  }
}

// Takes tasks of a share until none is left, or until the turn is over; how many it took.
int64_t Crew::work(Seat& seat, uint32_t turn) {
  int64_t taken = 0;
  uint64_t claim = seat.claim.load(std::memory_order_acquire);
  while (turn_of(claim) == turn && static_cast<uint32_t>(claim)) {
    if (!seat.claim.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    seat.task(seat.context, seat.end - static_cast<uint32_t>(claim));
    ++taken;
    claim = seat.claim.load(std::memory_order_acquire);
  }
  return taken;
}

int64_t Crew::help(int member, uint32_t turn) {
  int64_t taken = 0;
  for (int i = 1; i < members_; ++i) taken += work(seats_[(member + i) % members_], turn);
  return taken;
}

void Crew::run(int member, int64_t count, Task task, void* context) {
  done_.store(0, std::memory_order_relaxed);
  publish(++turn_, count, task, context);
  int64_t own = work(seats_[member], turn_);
  if (own + done_.load(std::memory_order_acquire) < count) own += help(member, turn_);
  wait_until(done_, [=](int64_t done) { return own + done == count; });
}

void Crew::serve(int member) {
  Seat& own = seats_[member];
  for (uint32_t seen = 0; seen != kDismissed;) {
    seen = turn_of(wait_until(own.claim, [=](uint64_t claim) { return turn_of(claim) != seen; }));
    for (const bool helping : {false, true}) {
      const int64_t taken = helping ? help(member, seen) : work(own, seen);
      if (taken == 0) continue;
      done_.fetch_add(taken, std::memory_order_seq_cst);
      done_.notify_one();
    }
  }
}

}  // namespace sparsecore

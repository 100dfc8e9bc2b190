// Threads that stand by while one of them leads: for a call of many short parallel steps, such as a whole network. To
// begin and end a step costs two cache lines that change hands, where a parallel region of its own costs a microsecond.
//
// Every member has a seat, a cache line, with its even share of the tasks of a turn:
//
//   claim = turn << 32 | tasks left          the next task of the seat is end - left
//
// The leader writes a share and then its claim; the member that waits for it sees the turn change. Whoever takes a task
// lowers the claim of the turn it knows, so that no task of a later turn is taken by somebody who is late, and what a
// share says cannot change while a task of it is held. A member that is done with its share takes from the others:
// nobody has to come for a turn to end, only the tasks that are held have to.
//
// A member that waits spins for some microseconds, then leaves its processor to others again and again, then sleeps.
#pragma once

#include <atomic>

#include "sparsecore/parallel.h"

namespace sparsecore {

class Crew {
 public:
  static constexpr int kMost = 64;

  explicit Crew(int members) : members_(members) {}  // at most kMost
  int members() const { return members_; }

  // True for the first caller: it leads, and later calls dismiss(). The others serve() until then.
  bool lead() { return !led_.exchange(true, std::memory_order_acq_rel); }
  // Runs tasks [0, count), count < 2^32, on all members that are there. By the leader of seat `member`.
  void run(int member, int64_t count, Task task, void* context);
  void dismiss() { publish(kDismissed, 0, nullptr, nullptr); }
  void serve(int member);

 private:
  static constexpr uint32_t kDismissed = ~uint32_t{0};

  struct alignas(64) Seat {
    std::atomic<uint64_t> claim{0};
    Task task = nullptr;
    void* context = nullptr;
    int64_t end = 0;
  };

  void publish(uint32_t turn, int64_t count, Task task, void* context);
  int64_t work(Seat& seat, uint32_t turn);
  int64_t help(int member, uint32_t turn);

  const int members_;
  uint32_t turn_ = 0;
  std::atomic<bool> led_{false};
  alignas(64) std::atomic<int64_t> done_{0};  // tasks of this turn by others than the leader
  Seat seats_[kMost];
};

}  // namespace sparsecore

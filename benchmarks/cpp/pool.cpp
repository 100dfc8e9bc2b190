#include "pool.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "sparsecore/parallel.h"

namespace bench {
namespace {

using sparsecore::Task;

// Workers wait for a new generation, spinning for a while first: kernels follow each other closely.
class Pool {
 public:
  ~Pool() { resize(1); }

  void resize(int threads) {
    stop_ = true;
    announce();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stop_ = false;
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, seen = generation_.load()] { work(seen); });
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t count, Task task, void* context) {
    task_ = task;
    context_ = context;
    count_ = count;
    next_ = 0;
    busy_ = static_cast<int>(workers_.size());
    announce();
    take();
    while (busy_.load(std::memory_order_acquire)) {
    }
  }

 private:
  void announce() {
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }

  void take() {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) task_(context_, i);
  }

  void work(uint32_t seen) {
    constexpr int kSpins = 20000;
    for (;;) {
      for (int i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) {
      }
      generation_.wait(seen, std::memory_order_acquire);
      seen = generation_.load(std::memory_order_acquire);
      if (stop_) return;
      take();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::atomic<uint32_t> generation_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false};
  Task task_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
};

Pool& pool() {
  static Pool pool;
  return pool;
}

}  // namespace

void use_threads(int threads) {
  pool().resize(threads);
  sparsecore::set_parallel_host({[](int64_t count, Task task, void* context) { pool().run(count, task, context); },
                                 [] { return pool().threads(); }});
}

int available_threads() {
  const unsigned count = std::thread::hardware_concurrency();
  return count ? static_cast<int>(count) : 1;
}

}  // namespace bench

// Tasks and steps: everything runs once, whoever comes when, and denormals are flushed.
#include <atomic>
#include <stdexcept>
#include <vector>
#if !defined(__wasm__)
#include <chrono>
#include <thread>
#endif

#include "sparsecore/parallel.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

constexpr float kTiny = 1e-38f;

bool flushes() {
  volatile float tiny = kTiny;
  return tiny * 0.01f == 0.0f;
}

#if defined(__wasm__)
constexpr bool kFlushes = false;  // WebAssembly has no flush mode, and no threads
#else
constexpr bool kFlushes = true;

void pause(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

// A thread for every task, each of which starts so much later than the one before.
class Staggered {
 public:
  Staggered(int threads, int milliseconds) {
    count = threads, delay = milliseconds;
    set_parallel_host({run, [] { return count; }});
  }
  ~Staggered() { set_parallel_host({nullptr, nullptr}); }

 private:
  static inline int count = 1, delay = 0;
  static void run(int64_t tasks, Task task, void* context) {
    std::vector<std::thread> threads;
    for (int64_t i = 0; i < tasks; ++i)
      threads.emplace_back([=] {
        pause(static_cast<int>(i) * delay);
        task(context, i);
      });
    for (std::thread& thread : threads) thread.join();
  }
};
#endif

// Steps of many sizes; each reads what the one before wrote.
void check_steps(int pause_every) {
  std::vector<int64_t> sums(1000, 0);
  int bodies = 0;
  parallel_steps([&] {
    ++bodies;
    CHECK(flushes() == kFlushes);
    for (int step = 0; step < 300; ++step) {
#if !defined(__wasm__)
      if (pause_every && step % pause_every == 0) pause(3);
#endif
      const int64_t count = step % 7 == 0 ? 1000 : step % 5 + 1;
      parallel_for_each(count, [&](int64_t i) {
        const auto at = static_cast<size_t>(i);
        sums[at] = sums[at] + (flushes() == kFlushes && (count == 1 || num_threads() == 1) ? step : 1 << 20);
      });
    }
  });
  CHECK(bodies == 1);
  for (size_t i = 0; i < sums.size(); ++i) {
    int64_t wanted = 0;
    for (int step = 0; step < 300; ++step)
      if (static_cast<int64_t>(i) < (step % 7 == 0 ? 1000 : step % 5 + 1)) wanted += step;
    REQUIRE(sums[i] == wanted);
  }
  volatile float tiny = kTiny;
  CHECK(tiny * 0.01f != 0.0f);  // the caller's mode is back
}

}  // namespace

TEST_CASE("every task runs once, with denormals flushed") {
  std::vector<int> seen(37, 0);
  parallel_for_each(37, [&](int64_t task) { seen[static_cast<size_t>(task)] += flushes() == kFlushes ? 1 : 1000; });
  for (int count : seen) CHECK(count == 1);
  CHECK(!flushes());  // the caller's mode is back
}

TEST_CASE("steps without threads") { check_steps(0); }

TEST_CASE("steps on members that share fewer threads" * doctest::test_suite("threads")) {
  for (const int count : {1, 2, 3, 5, 64, 200}) {
    const Threads threads(count);
    check_steps(0);
  }
}

#if !defined(__wasm__)
TEST_CASE("steps on members that come late, and on members that have gone to sleep" * doctest::test_suite("threads")) {
  for (const int count : {2, 3, 8}) {
    const Staggered late(count, 2);
    check_steps(0);
    check_steps(100);
  }
}

TEST_CASE("steps begun inside of steps and of tasks run there" * doctest::test_suite("threads")) {
  const Staggered threads(3, 0);
  std::atomic<int> inner{0};
  parallel_steps([&] {
    CHECK(num_threads() == 3);
    parallel_steps([&] {
      CHECK(num_threads() == 3);
      parallel_for_each(6, [&](int64_t) { parallel_steps([&] { parallel_for_each(4, [&](int64_t) { ++inner; }); }); });
    });
  });
  CHECK(inner == 24);
  CHECK(num_threads() == 3);
}

TEST_CASE("a body that throws lets the others go" * doctest::test_suite("threads")) {
  static bool caught = false;
  set_parallel_host({[](int64_t tasks, Task task, void* context) {
                       std::vector<std::thread> threads;
                       for (int64_t i = 0; i < tasks; ++i)
                         threads.emplace_back([=] {
                           try {
                             task(context, i);
                           } catch (const std::runtime_error&) {
                             caught = true;
                           }
                         });
                       for (std::thread& thread : threads) thread.join();
                     },
                     [] { return 3; }});
  parallel_steps([] { throw std::runtime_error("stop"); });
  set_parallel_host({nullptr, nullptr});
  CHECK(caught);
}
#endif

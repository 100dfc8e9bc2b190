// Shared and global memory: bounds, poison, bank conflicts, and cp.async at the moments an adversary chooses.
#include <doctest/doctest.h>

#include <cmath>

#include "emulation.h"

using namespace cuda_emulation;

TEST_CASE("shared memory starts as NaN and is aligned to 1024") {
  GlobalBuffer<int> checks(2);
  launch(threads(1, 20), [&] {
    checks[0] = std::isnan(reinterpret_cast<float*>(shared_memory())[4]);
    checks[1] = reinterpret_cast<uintptr_t>(shared_memory()) % 1024 == 0;
  });
  CHECK(checks[0] == 1);
  CHECK(checks[1] == 1);
}

TEST_CASE("bounds and alignment of shared memory") {
  GlobalBuffer<char> source(64);
  const auto copies = [&](int offset, int bytes) {
    return violation_of(threads(1, 40), [&, offset, bytes] {
      cp_async(shared_memory() + offset, source.data(), bytes);
      cp_async_wait_all();
    });
  };
  CHECK(copies(16, 16) == "");
  CHECK(contains(copies(32, 16), "outside of the block's 40 bytes"));
  CHECK(contains(copies(-16, 16), "outside of the block's 40 bytes"));
  CHECK(contains(copies(8, 16), "not a multiple of 16"));
  CHECK(contains(copies(0, 12), "4, 8 or 16"));
  CHECK(contains(violation_of(threads(1, 40), [] { reinterpret_cast<char*>(shared_memory())[40] = 1; }),
                 "past its 40 bytes of shared memory, at offset 40"));
  CHECK(contains(violation_of(threads(1, 40), [] { reinterpret_cast<char*>(shared_memory())[-3] = 1; }),
                 "before its 40 bytes of shared memory, at offset -3"));
}

TEST_CASE("global buffers notice writes beside them, and copies that start outside") {
  GlobalBuffer<float> buffer(10);
  CHECK(contains(violation_of(threads(1), [&] { buffer.data()[10] = 1; }), "at offset 40 of a global buffer of 40"));
  std::memset(buffer.data() + 10, kPoison, 4);
  CHECK(contains(violation_of(threads(1), [&] { buffer.data()[-1] = 1; }), "at offset -4 of a global buffer of 40"));
  std::memset(buffer.data() - 1, kPoison, 4);
  CHECK(contains(violation_of(threads(1, 16), [&] { cp_async(shared_memory(), buffer.data() + 8, 16); }),
                 "outside of a global buffer"));
  CHECK(contains(violation_of(threads(1, 16), [&] { cp_async(shared_memory(), buffer.data() + 1, 16); }),
                 "not a multiple of 16"));
  CHECK(contains(violation_of(threads(1), [&] { atomicAdd(buffer.data() + 10, 1.0f); }), "outside of a global buffer"));
  CHECK(std::isnan(buffer[3]));
}

// The sanitizer would end the process before the emulator sees the access.
__attribute__((noinline, no_sanitize("undefined"))) static float read_through(const volatile float* pointer) {
  return *pointer;
}

TEST_CASE("plain accesses far outside are violations of the thread that made them") {
  GlobalBuffer<float> buffer(64);
  volatile float sink = 0;
  const auto reads = [&](ptrdiff_t index) {
    return violation_of(threads(40), [&, index] {
      if (threadIdx.x == 37) sink = buffer.data()[index];
    });
  };
  CHECK(reads(63) == "");
  const std::string sentence = reads(64);
  CHECK(contains(sentence, "at offset 256 of a global buffer of 256 bytes"));
  CHECK(contains(sentence, "thread (37, 0, 0), lane 5 of warp 1, at test_emulation_memory.cpp"));
  CHECK(contains(reads(-16384), "at offset -65536 of a global buffer"));
  CHECK(contains(violation_of(threads(33, 1024), [&] { sink = reinterpret_cast<float*>(shared_memory())[256]; }),
                 "shared offset 1024, outside of the block's 1024 bytes"));
  CHECK(contains(violation_of(threads(1), [&] { sink = read_through(nullptr); }), "null pointer"));
  const auto overflow = [&](auto self, int depth) -> int {
    volatile char room[4096];
    room[0] = static_cast<char>(depth);
    return depth == 0 ? room[0] : self(self, depth - 1) + room[0];
  };
  CHECK(contains(violation_of(threads(1), [&] { sink = static_cast<float>(overflow(overflow, 100000)); }),
                 "stack overflows"));
  CHECK(violation_of(threads(64, 64), [] { __syncthreads(); }) == "");
}

TEST_CASE("the shared memory of a block that has exited may not be touched") {
  Config config = threads(32, 64);
  config.grid = dim3(2);
  config.cluster = dim3(2);
  volatile int sink = 0;
  CHECK(contains(violation_of(config,
                              [&] {
                                cluster_sync();
                                const int* theirs = static_cast<const int*>(map_shared_rank(shared_memory(), 0));
                                if (cluster_block_rank() == 1) {
                                  named_barrier_sync(1, 32);
                                  sink = theirs[3];
                                }
                              }),
                 "which has exited"));
}

namespace {

// Each thread copies its 16 bytes in `stages` steps, two in flight, and adds up what its neighbour copied.
enum class Drop { kNothing, kWait, kBarrier, kLastBarrier };

bool pipeline_is_right(Drop drop, const Options& options) {
  constexpr int kThreads = 64, kSteps = 6;
  GlobalBuffer<float> in(kThreads * 4 * kSteps), out(kThreads);
  for (size_t i = 0; i < in.size(); i++) in[i] = static_cast<float>(i);
  launch(
      threads(kThreads, 2 * kThreads * 16),
      [&, drop] {
        float* shared = reinterpret_cast<float*>(shared_memory());
        const auto load = [&](int step) {
          if (step < kSteps) {
            cp_async(shared + (step % 2) * kThreads * 4 + threadIdx.x * 4,
                     in.data() + (static_cast<unsigned>(step) * kThreads + threadIdx.x) * 4, 16);
          }
          cp_async_commit();
        };
        float sum = 0;
        load(0);
        for (int step = 0; step < kSteps; step++) {
          load(step + 1);
          if (drop != Drop::kWait) cp_async_wait(1);
          if (drop != Drop::kBarrier) __syncthreads();
          sum += shared[(step % 2) * kThreads * 4 + (threadIdx.x + 32) % kThreads * 4 + 3];
          if (drop != Drop::kLastBarrier) __syncthreads();
        }
        out[threadIdx.x] = sum;
      },
      options);
  for (size_t t = 0; t < kThreads; t++) {
    float expected = 0;
    for (size_t step = 0; step < kSteps; step++) expected += in[(step * kThreads + (t + 32) % kThreads) * 4 + 3];
    if (!(out[t] == expected)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a pipeline of cp.async is right at every moment, and wrong with any of its waits left out") {
  for (const Options& options : adversaries(80)) CHECK(pipeline_is_right(Drop::kNothing, options));
  const auto caught = [](Drop drop) {
    int count = 0;
    for (const Options& options : adversaries(80)) count += !pipeline_is_right(drop, options);
    return count;
  };
  CHECK(caught(Drop::kWait) >= 3);
  CHECK(caught(Drop::kBarrier) >= 3);
  CHECK(caught(Drop::kLastBarrier) >= 3);
}

TEST_CASE("cp.async fills with zeros what has no source") {
  GlobalBuffer<float> in(std::vector<float>{1, 2, 3}), out(8);
  launch(threads(1, 32), [&] {
    float* shared = reinterpret_cast<float*>(shared_memory());
    cp_async(shared, in.data(), 16, 12);
    cp_async(shared + 4, nullptr, 16, 0);
    cp_async_wait_all();
    for (int i = 0; i < 8; i++) out[static_cast<size_t>(i)] = shared[i];
  });
  CHECK(out.to_vector() == std::vector<float>{1, 2, 3, 0, 0, 0, 0, 0});
}

TEST_CASE("accesses that lanes make one by one are put together to count their bank conflicts") {
  const Report report = launch(threads(64, 64 * 128), [] {
    for (int i = 0; i < 3; i++) {
      const std::byte* address = shared_memory() + threadIdx.x * 128;
      count_lane_access("ld.shared", address, 4);
    }
    if (threadIdx.x % 2 == 0) count_lane_access("ld.shared", shared_memory() + threadIdx.x * 64, 4);
  });
  REQUIRE(report.bank_conflicts.size() == 2);
  for (const BankConflicts& site : report.bank_conflicts) {
    const bool whole = site.worst == 32;
    CHECK(site.executions == (whole ? 6 : 2));
    CHECK(site.passes == site.executions * (whole ? 32 : 16));
  }
}

TEST_CASE("bank conflicts are counted by place") {
  const auto worst = [](int stride, int bytes) {
    const Report report = launch(threads(32, 32 * 256), [=] {
      struct Args {
        const void* address;
      } args{shared_memory() + threadIdx.x * static_cast<unsigned>(stride)};
      warp_collective("ld.shared", args, [=](Args** lanes) {
        const void* addresses[32];
        for (int l = 0; l < 32; l++) addresses[l] = lanes[l]->address;
        count_bank_conflicts("ld.shared", addresses, bytes);
      });
    });
    REQUIRE(report.bank_conflicts.size() == 1);
    CHECK(report.bank_conflicts[0].executions == 1);
    CHECK(contains(report.bank_conflicts[0].site.describe(), "test_emulation_memory.cpp"));
    return report.worst_bank_conflict();
  };
  CHECK(worst(0, 4) == 1);  // one word for all
  CHECK(worst(4, 4) == 1);
  CHECK(worst(8, 4) == 2);
  CHECK(worst(128, 4) == 32);
  CHECK(worst(132, 4) == 1);
  CHECK(worst(16, 16) == 1);
  CHECK(worst(128, 16) == 8);  // rows of 128 bytes without a swizzle
  CHECK(worst(144, 16) == 1);
  CHECK(worst(8, 8) == 1);
}

#include "roof.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "cpu/arch.h"
#include "sparsecore/cpu.h"
#include "sparsecore/parallel.h"

namespace bench {
namespace {

using sparsecore::Isa;

constexpr Peak kPeaks[] = {
#if defined(SPARSECORE_X86)
    {"fma_float32", Isa::kAvx512, avx512::kFmaFloat32, avx512::fma_float32},
    {"fma_float32", Isa::kAvx2, avx2::kFmaFloat32, avx2::fma_float32},
#elif defined(SPARSECORE_ARM)
    {"fma_float32", Isa::kNeon, neon::kFmaFloat32, neon::fma_float32},
#endif
    {"fma_float32", Isa::kScalar, scalar::kFmaFloat32, scalar::fma_float32},
#if defined(SPARSECORE_X86)
    {"fma_loaded_float32", Isa::kAvx512, 2 * kLoadedFloats, avx512::fma_loaded_float32},
    {"fma_loaded_float32", Isa::kAvx2, 2 * kLoadedFloats, avx2::fma_loaded_float32},
    {"dot_bfloat16", Isa::kAvx512Bf16, avx512_bf16::kDotBFloat16, avx512_bf16::dot_bfloat16},
    {"dot_int8", Isa::kAvx512Vnni, avx512_vnni::kDotInt8, avx512_vnni::dot_int8},
    {"fma_float16", Isa::kAvx512Fp16, avx512_fp16::kFmaFloat16, avx512_fp16::fma_float16},
#endif
};

double seconds_of(const auto& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Reads with four independent sums; `streams` places of the part advance side by side.
uint64_t read_part(const uint64_t* from, int64_t words, int streams) {
  uint64_t sums[4] = {};
  const int64_t run = words / streams;
  for (int64_t i = 0; i + 8 <= run; i += 8)
    for (int s = 0; s < streams; ++s)
      for (int j = 0; j < 8; ++j) sums[j % 4] += from[s * run + i + j];
  return sums[0] + sums[1] + sums[2] + sums[3];
}

volatile uint64_t sink;
volatile float float_sink;

}  // namespace

int peaks(const Peak** rows) {
  *rows = kPeaks;
  return static_cast<int>(sizeof(kPeaks) / sizeof(kPeaks[0]));
}

double peak_gflops(const char* name) {
  for (const Peak& row : kPeaks) {
    if (std::strcmp(row.name, name) || !sparsecore::isa_enabled(row.isa)) continue;
    const int threads = sparsecore::num_threads();
    const int64_t rounds = (int64_t{1} << 30) / row.operations;
    std::vector<double> rates;
    for (int repeat = 0; repeat < 9; ++repeat) {
      const double seconds =
          seconds_of([&] { sparsecore::parallel_for_each(threads, [&](int64_t) { float_sink = row.spin(rounds); }); });
      rates.push_back(1e-9 * static_cast<double>(row.operations * rounds * threads) / seconds);
    }
    std::sort(rates.begin(), rates.end());
    return rates[rates.size() - 2];  // the best but one: a limit, though not a lucky reading
  }
  return 0;
}

double read_gb_per_s() {
  constexpr int64_t kWords = int64_t{1} << 27;  // 1 GiB
  std::unique_ptr<uint64_t[]> memory(new uint64_t[kWords]);
  const int threads = sparsecore::num_threads();
  sparsecore::parallel_for_each(threads, [&](int64_t part) {
    std::fill(memory.get() + part * kWords / threads, memory.get() + (part + 1) * kWords / threads, part);
  });
  double best = 0;
  for (int streams : {1, 2, 4}) {
    std::vector<double> rates;
    for (int repeat = 0; repeat < 7; ++repeat) {
      const double seconds = seconds_of([&] {
        sparsecore::parallel_for_each(threads, [&](int64_t part) {
          const int64_t begin = part * kWords / threads, end = (part + 1) * kWords / threads;
          sink = read_part(memory.get() + begin, end - begin, streams);
        });
      });
      rates.push_back(1e-9 * static_cast<double>(kWords) * 8 / seconds);
    }
    std::sort(rates.begin(), rates.end());
    best = std::max(best, rates[rates.size() / 2]);
  }
  return best;
}

double handover_ns() {
  constexpr int kTurns = 1 << 17;
  std::vector<double> times;
  for (int repeat = 0; repeat < 9; ++repeat) {
    alignas(128) std::atomic<int> turn{0};
    const auto play = [&](int first) {
      for (int i = first; i < kTurns; i += 2) {
        while (turn.load(std::memory_order_acquire) != i) {
        }
        turn.store(i + 1, std::memory_order_release);
      }
    };
    std::thread other(play, 1);
    times.push_back(1e9 * seconds_of([&] { play(0); }) / kTurns);
    other.join();
  }
  std::sort(times.begin(), times.end());
  return times[1];
}

double copy_gb_per_s(int64_t bytes) {
  const int threads = sparsecore::num_threads();
  const int64_t half = bytes / 2, part = half / threads, rounds = std::max<int64_t>(1, (int64_t{1} << 27) / bytes);
  std::unique_ptr<char[]> memory(new char[2 * half + 64]());
  char* from = memory.get() + 64 - reinterpret_cast<uintptr_t>(memory.get()) % 64;
  std::vector<double> rates;
  for (int repeat = 0; repeat < 9; ++repeat) {
    const double seconds = seconds_of([&] {
      sparsecore::parallel_for_each(threads, [&](int64_t i) {
        for (int64_t r = 0; r < rounds; ++r) {
          std::memcpy(from + half + i * part, from + i * part, part);
          __asm__ volatile("" : : : "memory");
        }
      });
    });
    rates.push_back(1e-9 * static_cast<double>(2 * part * threads * rounds) / seconds);
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() - 2];
}

}  // namespace bench

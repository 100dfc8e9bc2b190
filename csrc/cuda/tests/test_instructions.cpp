// What the emulated tensor cores refuse, and what wrong operands do to results: each rule broken once.
#include <doctest/doctest.h>

#include <cmath>

#include "cuda/common/fence.h"
#include "cuda/common/fragments.h"
#include "cuda/common/ldmatrix.h"
#include "cuda/common/mma_sparse.h"
#include "cuda/common/shared_memory.h"
#include "cuda/common/swizzle.h"
#include "cuda/common/wgmma_sparse.h"
#include "emulation.h"

using namespace sparsecore;
using cuda_emulation::GlobalBuffer;
using cuda_emulation::Options;

namespace {

constexpr uint32_t kOnes = 0x3f803f80u;  // two bf16 ones

// All ones, A's pairs at places (0, 1): every sum is 16. `word(lane)` is the metadata.
template <int kSelector, class Word>
std::string run_mma_sparse(Word word, GlobalBuffer<float>& sums) {
  return violation_of(threads(32), [&] {
    const uint32_t a[4] = {kOnes, kOnes, kOnes, kOnes}, b[4] = {kOnes, kOnes, kOnes, kOnes};
    float d[4] = {};
    ptx::mma_sparse<BFloat16, kSelector>(d, a, b, word(static_cast<int>(threadIdx.x)));
    sums[threadIdx.x] = d[0];
  });
}

}  // namespace

TEST_CASE("sparse products need metadata in ascending order, from the lanes that the selector names") {
  GlobalBuffer<float> sums(32);
  CHECK(run_mma_sparse<0>([](int) { return fragments::kPaddingMetadata; }, sums) == "");
  for (float sum : sums) CHECK(sum == 16);
  // (1, 0) instead of (0, 1), in one pair of one row.
  CHECK(contains(run_mma_sparse<0>([](int lane) { return lane == 8 ? 0x44444441u : 0x44444444u; }, sums),
                 "the metadata of row 2, group 0 is (1, 0) and must be ascending"));
  CHECK(contains(run_mma_sparse<0>([](int lane) { return lane == 5 ? 0x54444444u : 0x44444444u; }, sums),
                 "the metadata of row 9, group 7 is (1, 1) and must be ascending"));
  // Lanes 2 and 3 of each four are not asked with selector 0, and are the only ones with selector 1.
  const auto upper = [](int lane) { return lane % 4 >= 2 ? 0u : fragments::kPaddingMetadata; };
  CHECK(run_mma_sparse<0>(upper, sums) == "");
  CHECK(contains(run_mma_sparse<1>(upper, sums), "must be ascending"));
}

TEST_CASE("8-bit sparse products know selector 0 only, and 8-bit floats need sm_89") {
  const auto run = [](int selector, int capability) {
    Options options;
    options.capability = capability;
    return violation_of(
        threads(32),
        [=] {
          const uint32_t a[4] = {}, b[4] = {};
          int32_t d[4] = {};
          float e[4] = {};
          cuda_emulation::mma_sparse<cuda_emulation::Int8>(d, a, b, fragments::kPaddingMetadata, selector);
          ptx::mma_sparse<Float8E4M3, 0>(e, a, b, fragments::kPaddingMetadata);
        },
        options);
  };
  CHECK(run(0, 89) == "");
  CHECK(contains(run(1, 89), "selector is 1 and must be below 1"));
  CHECK(contains(run(0, 80), "mma.sp"));
}

TEST_CASE("the wrong selector gives wrong sums where both words are valid") {
  GlobalBuffer<float> sums(2);
  // One element of B is 1, at k = 0: the sum is 1 where A's first pair is at (0, 1), 0 where it is at (2, 3).
  const auto word = [](int lane) { return lane % 4 < 2 ? 0x44444444u : 0xeeeeeeeeu; };
  for (int selector = 0; selector < 2; ++selector) {
    CHECK(violation_of(threads(32), [&] {
            const uint32_t a[4] = {kOnes, kOnes, kOnes, kOnes};
            const uint32_t b[4] = {threadIdx.x % 4 == 0 ? 0x3f80u : 0u, 0, 0, 0};
            float d[4] = {};
            if (selector == 0) {
              ptx::mma_sparse<BFloat16, 0>(d, a, b, word(static_cast<int>(threadIdx.x)));
            } else {
              ptx::mma_sparse<BFloat16, 1>(d, a, b, word(static_cast<int>(threadIdx.x)));
            }
            if (threadIdx.x == 0) sums[selector] = d[0];
          }) == "");
  }
  CHECK(sums[0] == 1);
  CHECK(sums[1] == 0);
}

TEST_CASE("ldmatrix needs rows at multiples of 16 inside shared memory, and 8 conflict-free ones") {
  const auto run = [](int offset, int row_bytes) {
    return violation_of(threads(32, 1024), [=] {
      uint32_t registers[4];
      ptx::ldmatrix(registers, ptx::smem() + offset + row_bytes * (threadIdx.x % 8));
    });
  };
  CHECK(run(0, 128) == "");
  CHECK(contains(run(8, 128), "not a multiple of 16"));
  CHECK(contains(run(1008, 16), "outside of the block's 1024 bytes"));
  const auto passes = [](bool swizzle) {
    const cuda_emulation::Report report = cuda_emulation::launch(threads(32, 1024), [=] {
      uint32_t registers[1];
      const int row = static_cast<int>(threadIdx.x % 8);
      ptx::ldmatrix(registers, ptx::smem() + (swizzle ? swizzled<Swizzle::k128>(row, 32) : 128 * row + 32));
    });
    return report.worst_bank_conflict();
  };
  CHECK(passes(true) == 1);
  CHECK(passes(false) == 8);
}

namespace {

// D (64 x 8) = A (64 x 16) B (16 x 8), all ones, so every sum is 16; with one thing wrong.
enum class Wrong {
  kNothing,
  kNoFence,
  kNoProxyFence,
  kNoWait,
  kNoCommit,
  kReadBeforeWait,
  kWrittenBeforeWait,
  kWrittenWithoutFence,
  kRegistersOverwritten,
  kRegistersWithoutFence,
  kSharedOverwritten,
  kOneWarpMissing,
  kOtherDescriptor,
  kStartOffTile,
  kPastRow,
  kOutside,
  kBaseOffset,
  kNoSwizzle,
  kStride,
};

struct Outcome {
  std::string violation;
  float worst = 0;  // largest distance of a sum from 16; NaN counts as infinite
};

Outcome run_wgmma(Wrong wrong, cuda_emulation::Copies copies, bool registers = false) {
  GlobalBuffer<float> sums(64 * 8);
  Options options;
  options.copies = copies;
  Outcome outcome;
  outcome.violation = violation_of(
      threads(128, 20 * 1024),
      [&] {
        char* const shared = ptx::smem();
        constexpr uint32_t b_at = 8 * 1024;
        // Rows of 128 bytes, of which the first 32 are ones and the others thirds, in swizzled chunks.
        for (uint32_t i = threadIdx.x; i < 72 * 8; i += 128) {
          const uint32_t row = i / 8, chunk = i % 8, word = chunk < 2 ? kOnes : 0x3eab3eabu;
          ptx::store_shared_16(shared + (row < 64 ? 0 : b_at) + swizzled<Swizzle::k128>(row % 64, 16 * chunk),
                               make_uint4(word, word, word, word));
        }
        if (wrong != Wrong::kNoProxyFence) ptx::fence_proxy_async_shared();
        __syncthreads();
        const uint32_t start = ptx::shared_address(shared);
        uint64_t a = k_major_descriptor(start, Swizzle::k128), b = k_major_descriptor(start + b_at, Swizzle::k128);
        if (wrong == Wrong::kOtherDescriptor && threadIdx.x == 77) b += 2;
        if (wrong == Wrong::kStartOffTile) b = k_major_descriptor(start + b_at + 128, Swizzle::k128);
        if (wrong == Wrong::kPastRow) b = k_major_descriptor(start + b_at + 112, Swizzle::k128);
        if (wrong == Wrong::kOutside) b = k_major_descriptor(start + 20 * 1024, Swizzle::k128);
        if (wrong == Wrong::kBaseOffset) b |= uint64_t{1} << 49;
        if (wrong == Wrong::kNoSwizzle) b = matrix_descriptor(start + b_at, Swizzle::kNone, 16, 1024);
        if (wrong == Wrong::kStride) a = matrix_descriptor(start, Swizzle::k128, 16, 1040);
        uint32_t a_registers[4] = {kOnes, kOnes, kOnes, kOnes};
        float d[4] = {3, 3, 3, 3};
        if (wrong != Wrong::kNoFence) ptx::wgmma_fence(d, a_registers);
        const auto multiply = [&](bool accumulate) {
          if (registers) {
            ptx::wgmma<BFloat16>(d, a_registers, b, accumulate);
          } else {
            ptx::wgmma<BFloat16>(d, a, b, accumulate);
          }
        };
        if (wrong == Wrong::kOneWarpMissing && threadIdx.x >= 96) return;
        multiply(false);
        if (wrong == Wrong::kReadBeforeWait) {
          for (int i = 0; i < 4; ++i) sums[threadIdx.x * 4 + i] = d[i];
        }
        if (wrong == Wrong::kWrittenBeforeWait && threadIdx.x == 5) d[2] = 0;
        if (wrong == Wrong::kRegistersOverwritten) a_registers[1] = 0;
        if (wrong == Wrong::kSharedOverwritten) {
          ptx::store_shared_16(shared + b_at + 16 * (threadIdx.x % 64), make_uint4(0, 0, 0, 0));
          ptx::fence_proxy_async_shared();
        }
        if (wrong != Wrong::kNoCommit) ptx::wgmma_commit();
        if (wrong != Wrong::kNoWait) ptx::wgmma_wait<0>(d);
        if (wrong == Wrong::kWrittenWithoutFence || wrong == Wrong::kRegistersWithoutFence) {
          if (wrong == Wrong::kWrittenWithoutFence) {
            for (float& sum : d) sum -= 16;
          } else {
            for (uint32_t& word : a_registers) word = 0;
          }
          multiply(true);
          ptx::wgmma_commit();
          ptx::wgmma_wait<0>(d);
        }
        if (wrong != Wrong::kReadBeforeWait) {
          for (int i = 0; i < 4; ++i) sums[threadIdx.x * 4 + i] = d[i];
        }
      },
      options);
  for (float sum : sums) {
    const float distance = std::isnan(sum) ? INFINITY : std::fabs(sum - 16);
    outcome.worst = std::max(outcome.worst, distance);
  }
  return outcome;
}

}  // namespace

TEST_CASE("every rule of wgmma, broken once") {
  using cuda_emulation::Copies;
  for (const Copies copies : {Copies::kLate, Copies::kEarly, Copies::kMixed}) {
    CAPTURE(static_cast<int>(copies));
    for (const bool registers : {false, true}) {
      const auto violation = [&](Wrong wrong) { return run_wgmma(wrong, copies, registers).violation; };
      const Outcome good = run_wgmma(Wrong::kNothing, copies, registers);
      CHECK(good.violation == "");
      CHECK(good.worst == 0);
      CHECK(contains(violation(Wrong::kNoFence), "no wgmma.fence by all four warps"));
      CHECK(contains(violation(Wrong::kNoProxyFence), "no fence.proxy.async"));
      CHECK(contains(violation(Wrong::kNoWait), "exits without waiting"));
      CHECK(contains(violation(Wrong::kNoCommit), "exits without waiting"));
      CHECK(contains(violation(Wrong::kWrittenBeforeWait), "register 2 of thread 5"));
      CHECK(contains(violation(Wrong::kWrittenWithoutFence), "accumulators were written since the last wait"));
      CHECK(violation(Wrong::kOneWarpMissing) != "");
      CHECK(contains(violation(Wrong::kOtherDescriptor), "thread 77 of the warpgroup brings another descriptor"));
      CHECK(contains(violation(Wrong::kStartOffTile), "in row 1 of a 128-byte swizzle"));
      CHECK(contains(violation(Wrong::kPastRow), "32 bytes of k from byte 112 of the row run past"));
      CHECK(contains(violation(Wrong::kOutside), "outside of the block's 20480 bytes"));
      CHECK(contains(violation(Wrong::kBaseOffset), "base offset is 1"));
      // Nothing is forbidden here, but the sums are not those of the right descriptor.
      CHECK(run_wgmma(Wrong::kNoSwizzle, copies, registers).worst > 1);
      CHECK(run_wgmma(Wrong::kReadBeforeWait, copies, registers).worst == INFINITY);
    }
    CHECK(run_wgmma(Wrong::kStride, copies).worst > 1);
    CHECK(contains(run_wgmma(Wrong::kRegistersOverwritten, copies, true).violation, "A's registers changed"));
    CHECK(contains(run_wgmma(Wrong::kRegistersWithoutFence, copies, true).violation, "A's registers hold new values"));
  }
  // Overwriting a shared operand before the wait is seen where the operand is read late.
  CHECK(run_wgmma(Wrong::kSharedOverwritten, Copies::kLate).worst > 1);
}

TEST_CASE("wgmma needs sm_90 and four warps") {
  Options options;
  options.capability = 89;
  CHECK(contains(violation_of(threads(128, 1024), [] { ptx::wgmma_fence(); }, options), "wgmma.fence"));
  CHECK(contains(violation_of(threads(64, 1024),
                              [] {
                                float d[4] = {};
                                ptx::wgmma_fence(d);
                                ptx::wgmma<BFloat16>(d, 0, 0, true);
                              }),
                 "needs four warps"));
}

TEST_CASE("a later wgmma on the same accumulators needs no wait, and one of another shape does") {
  GlobalBuffer<float> sums(128);
  const auto run = [&](bool other_shape) {
    return violation_of(threads(128, 16 * 1024), [&, other_shape] {
      char* const shared = ptx::smem();
      for (int i = threadIdx.x; i < 16 * 1024 / 16; i += 128) {
        ptx::store_shared_16(shared + 16 * i, make_uint4(kOnes, kOnes, kOnes, kOnes));
      }
      ptx::fence_proxy_async_shared();
      __syncthreads();
      const uint64_t matrix = k_major_descriptor(ptx::shared_address(shared), Swizzle::k128);
      float d[8] = {};
      ptx::wgmma_fence(d);
      ptx::wgmma<BFloat16>(d, matrix, matrix, true);
      ptx::wgmma_commit();
      if (other_shape) {
        ptx::wgmma<BFloat16>(reinterpret_cast<float (&)[4]>(d), matrix, matrix, true);
      } else {
        ptx::wgmma<BFloat16>(d, matrix, matrix, true);
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>(d);
      sums[threadIdx.x] = d[7];
    });
  };
  CHECK(run(false) == "");
  for (float sum : sums) CHECK(sum == 32);
  CHECK(contains(run(true), "another shape"));
}

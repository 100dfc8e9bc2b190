// The same question for the copy engine: one thread keeps kStages runs of 16 KB on their way to shared memory, and the
// block's warps add up what has come. It decides whether kernels for few tokens are better fed by bulk copies.
#include "counted_words.h"
#include "cuda/common/bulk_copy.h"
#include "cuda/common/cache_hints.h"
#include "cuda/common/mbarrier.h"

namespace sparsecore::questions {
namespace {

constexpr int kRunBytes = 16 * 1024, kThreads = 256;

// from [runs, kRunBytes], runs b, b + blocks, .. of block b; sums [threads of the grid].
template <int kStages>
__global__ void __launch_bounds__(kThreads, 1) add_up_runs(const char* from, int runs, uint32_t* sums) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const full = reinterpret_cast<uint64_t*>(shared + kStages * kRunBytes);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) ptx::mbarrier_init(full + stage, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  const uint64_t policy = ptx::policy_evict_first();
  const auto copy = [&](int run, int stage) {
    ptx::mbarrier_arrive_expect_bytes(full + stage, kRunBytes);
    ptx::bulk_load_hinted(shared + stage * kRunBytes, from + static_cast<int64_t>(run) * kRunBytes, kRunBytes,
                          full + stage, policy);
  };
  const int mine =
      (runs - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages && i < mine; ++i) copy(blockIdx.x + i * gridDim.x, i);
  }
  uint32_t sum = 0;
  for (int i = 0; i < mine; ++i) {
    const int stage = i % kStages;
    ptx::mbarrier_wait(full + stage, i / kStages & 1);
    for (int at = 16 * threadIdx.x; at < kRunBytes; at += 16 * kThreads) {
      const uint4 words = ptx::load_shared_16(shared + stage * kRunBytes + at);
      sum += words.x + words.y + words.z + words.w;
    }
    __syncthreads();  // all have read the stage
    if (threadIdx.x == 0 && i + kStages < mine) copy(blockIdx.x + (i + kStages) * gridDim.x, stage);
  }
  sums[blockIdx.x * kThreads + threadIdx.x] = sum;
#endif
}

template <int kStages>
Answer ask_bulk() {
  const int blocks = all_blocks(), runs = scaled(64 << 10, 2 * kStages + 3);  // 1 GiB
  const int64_t size = static_cast<int64_t>(runs) * kRunBytes / 4;
  CountedWords words(size);
  DeviceArray<uint32_t> sums(std::vector<uint32_t>(static_cast<size_t>(blocks) * kThreads));
  LaunchConfig config;
  config.grid = dim3(blocks);
  config.block = dim3(kThreads);
  config.shared_bytes = kStages * kRunBytes + kStages * 8;
  const auto run = [&] {
    require(launch(config, add_up_runs<kStages>, reinterpret_cast<const char*>(words.data()), runs, sums.data()));
  };
  Answer answer;
  answer.seconds = seconds_of(run);
  uint32_t sum = 0;
  for (const uint32_t part : sums.values()) sum += part;
  if (sum != words.sum()) answer.wrong = "the words do not add up";
  answer.bytes = 4.0 * size;
  answer.in_flight = kStages * kRunBytes;
  return answer;
}

}  // namespace

void add_bulk_questions(std::vector<Question>& questions) {
  questions.push_back({"bulk.runs2", 90, 2, ask_bulk<2>});
  questions.push_back({"bulk.runs4", 90, 1, ask_bulk<4>});
  questions.push_back({"bulk.runs8", 90, 2, ask_bulk<8>});
  questions.push_back({"bulk.runs12", 90, 2, ask_bulk<12>});
}

}  // namespace sparsecore::questions

// How many bytes have to be on their way for the memory's bandwidth, when lanes load 16 bytes each into registers? It
// decides warps and loads per lane of kernels for few tokens.
//
// Every block walks the array with all its lanes, kLoads vectors each at a time, and adds up words, modulo 2^32.
#include "counted_words.h"
#include "cuda/common/cache_hints.h"

namespace sparsecore::questions {
namespace {

// `vectors` is a multiple of what the grid loads at a time. sums [threads of the grid].
template <int kLoads>
__global__ void add_up(const uint4* from, int64_t vectors, uint32_t* sums) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t lanes = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const uint64_t policy = ptx::policy_evict_first();
  uint32_t sum = 0;
  for (int64_t at = thread; at < vectors; at += kLoads * lanes) {
    uint4 loaded[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) loaded[i] = ptx::load_streaming_16(from + at + i * lanes, policy);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) sum += loaded[i].x + loaded[i].y + loaded[i].z + loaded[i].w;
  }
  sums[thread] = sum;
}

template <int kLoads>
Answer ask_loads(int warps) {
  const int blocks = all_blocks(), threads = 32 * warps;
  const int64_t at_a_time = static_cast<int64_t>(blocks) * threads * kLoads;
  const int64_t vectors = (scaled(64 << 20, 1) + at_a_time - 1) / at_a_time * at_a_time;  // 1 GiB
  CountedWords words(4 * vectors);
  LaunchConfig config;
  config.grid = dim3(blocks);
  config.block = dim3(threads);
  DeviceArray<uint32_t> sums(std::vector<uint32_t>(static_cast<size_t>(blocks) * threads));
  const auto run = [&] {
    require(launch(config, add_up<kLoads>, reinterpret_cast<const uint4*>(words.data()), vectors, sums.data()));
  };
  Answer answer;
  answer.seconds = seconds_of(run);
  uint32_t sum = 0;
  for (const uint32_t part : sums.values()) sum += part;
  if (sum != words.sum()) answer.wrong = "the words do not add up";
  answer.bytes = 16.0 * vectors;
  answer.in_flight = 16.0 * threads * kLoads;
  return answer;
}

template <int kLoads>
void add(std::vector<Question>& questions) {
  for (const int warps : {8, 16, 32}) {
    if (kLoads * warps > 256) continue;  // more than registers hold
    questions.push_back({"loads.lane" + std::to_string(kLoads) + ".warps" + std::to_string(warps), 80,
                         kLoads == 4 ? 1 : 2, [=] { return ask_loads<kLoads>(warps); }});
  }
}

}  // namespace

void add_load_questions(std::vector<Question>& questions) {
  add<1>(questions);
  add<2>(questions);
  add<4>(questions);
  add<8>(questions);
  add<16>(questions);
}

}  // namespace sparsecore::questions

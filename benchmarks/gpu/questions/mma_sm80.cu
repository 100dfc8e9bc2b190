// How many operations per cycle do mma.sync and mma.sp reach when nothing but registers feeds them? It decides from how
// many tokens on the wgmma kernels are faster.
//
// Each warp has kChains independent sums of 16 x 8 and the same A and B all the time: sums = turns * A B.
#include "cuda/conformance/mma_check.h"
#include "question.h"

namespace sparsecore::questions {
namespace {

constexpr int kChains = 8;

// a [16, k] (sparse: as stored), b [8, k], d [blocks, warps, kChains, 16, 8], cycles [blocks].
template <class T, bool kSparse>
__global__ void mma_turns(const T* a, const uint32_t* metadata, const T* b, Accumulator<T>* d, long long* cycles,
                          int turns) {
  constexpr int stored = fragments::kStoredColumns<T>, depth = kSparse ? 2 * stored : stored;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t a_registers[4], b_registers[kSparse ? 4 : 2];
  conformance::load_fragment(
      a_registers, [=](int r, int e) { return fragments::a_place<T>({lane, r, e}); }, a, stored, false);
  conformance::load_fragment(
      b_registers, [=](int r, int e) { return fragments::b_place<T>({lane, r, e}); }, b, depth, true);
  const uint32_t words = kSparse ? metadata[lane] : 0;
  Accumulator<T> sums[kChains][4] = {};
  __syncthreads();
  const long long start = cycle_counter();
#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
    for (int chain = 0; chain < kChains; ++chain) {
      if constexpr (kSparse) {
        ptx::mma_sparse<T, 0>(sums[chain], a_registers, b_registers, words);
      } else {
        ptx::mma<T>(sums[chain], a_registers, b_registers);
      }
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) cycles[blockIdx.x] = cycle_counter() - start;
  Accumulator<T>* to = d + (static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp) * kChains * 128;
#pragma unroll
  for (int chain = 0; chain < kChains; ++chain) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const fragments::Place at = fragments::c_place(lane, i);
      to[chain * 128 + 8 * at.row + at.column] = sums[chain][i];
    }
  }
}

template <class T, bool kSparse>
Answer ask_mma(int warps) {
  using Sum = Accumulator<T>;
  constexpr int stored = fragments::kStoredColumns<T>, depth = kSparse ? 2 * stored : stored;
  std::mt19937 random(1);
  const conformance::SparseMatrix<T> a(16, stored, random);
  const conformance::Matrix<T> b(8, depth, random);
  const int blocks = all_blocks();
  DeviceArray<T> device_a(a.stored.elements), device_b(b.elements);
  DeviceArray<uint32_t> metadata(conformance::metadata_words(a, 0, 0, 0));
  DeviceArray<Sum> d(std::vector<Sum>(static_cast<size_t>(blocks) * warps * kChains * 128));
  DeviceArray<long long> cycles{std::vector<long long>(blocks)};
  LaunchConfig config;
  config.grid = dim3(blocks);
  config.block = dim3(32 * warps);
  const auto run = [&](int turns) {
    require(launch(config, mma_turns<T, kSparse>, device_a.data(), metadata.data(), device_b.data(), d.data(),
                   cycles.data(), turns));
  };
  Answer answer;
  run(3);
  finish();
  const std::vector<Sum> zero(128);
  std::vector<Sum> once = kSparse ? product(a, b, zero) : product(a.stored, b, zero), expected;
  for (Sum& sum : once) sum *= 3;
  for (int i = 0; i < blocks * warps * kChains; ++i) expected.insert(expected.end(), once.begin(), once.end());
  answer.wrong = first_difference(d.values(), expected, 8);

  const int turns = scaled(20000, 4);
  answer.seconds = seconds_of([&] { run(turns); });
  answer.cycles = slowest(cycles.values());
  answer.operations = 2.0 * 16 * 8 * depth * kChains * turns * warps * blocks;
  answer.blocks = blocks;
  return answer;
}

template <class T, bool kSparse>
void add(std::vector<Question>& questions, int value) {
  for (const int warps : {4, 8, 16}) {
    questions.push_back(
        {std::string(kSparse ? "mma_sparse." : "mma.") + conformance::type_name<T> + ".warps" + std::to_string(warps),
         80, value + (warps == 8 ? 0 : 1), [=] { return ask_mma<T, kSparse>(warps); }});
  }
}

}  // namespace

void add_mma_questions(std::vector<Question>& questions) {
  add<BFloat16, false>(questions, 1);
  add<BFloat16, true>(questions, 1);
  add<int8_t, false>(questions, 2);
  add<int8_t, true>(questions, 2);
}

}  // namespace sparsecore::questions

// What does a multiprocessor reach with wgmma and wgmma.sp, and what holds it back: the shape of the instruction, where
// A comes from, the copies that fill the ring? It decides the tile of the products with many tokens.
//
// The block of matmul_sm90: a producing thread and two consuming warpgroups. A turn is 64 inputs. Each consumer has
// kGroups x 64 channels, all multiplied with the same kTokens tokens of the turn:
//
//   sums[channel, token] += sum over the 64 inputs of a[channel, input] * b[token, input]
//
//   B       tile of kTokens x 128 bytes, 128-byte swizzle, in a ring of kStages. Filled anew each turn, or once.
//   A       kRegisters  the same registers each turn: what the tensor cores could do if A cost nothing
//           kLoaded     from global memory to registers, a turn ahead, as matmul_sm90 does
//           kShared     a tile in the ring beside B: channels x 64 stored bytes (2:4, 64-byte swizzle) or 128 (dense)
//
// Tiles lie in global memory as shared memory wants them, kSlots of them, so that all comes from L2.
#include "cuda/common/bulk_copy.h"
#include "cuda/common/fragments.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/registers.h"
#include "cuda/common/wgmma_sparse.h"
#include "cuda/conformance/mma_check.h"
#include "question.h"

namespace sparsecore::questions {
namespace {

using conformance::Matrix;
using conformance::SparseMatrix;

enum class A { kRegisters, kLoaded, kShared };
constexpr int kStages = 4, kSlots = 8, kInputs = 64, kConsumers = 2;

template <bool kIsSparse, int kTokensOfTile, int kGroupsOfConsumer, A kSourceOfA, bool kFills>
struct Case {
  static constexpr bool kSparse = kIsSparse, kFill = kFills;
  static constexpr int kTokens = kTokensOfTile, kGroups = kGroupsOfConsumer;
  static constexpr A kSource = kSourceOfA;
  static constexpr int kStored = kSparse ? 32 : 64;  // of a channel and turn
  static constexpr int kSteps = kSparse ? 2 : 4;     // instructions along the inputs
  static constexpr int kChannels = kConsumers * kGroups * 64;
  static constexpr Swizzle kSwizzleA = kSparse ? Swizzle::k64 : Swizzle::k128;
  static constexpr int kTileA = 64 * kStored * 2;  // bytes of 64 channels
  static constexpr int kBytesB = kTokens * 128, kBytesA = kSource == A::kShared ? kChannels * kStored * 2 : 0;
  static constexpr int kStageBytes = kBytesB + kBytesA;
  static constexpr int kSharedBytes = kStages * kStageBytes + 2 * kStages * 8;
};

struct Arguments {
  const char* b;             // [kSlots] tiles
  const char* a_tiles;       // [kSlots] tiles of all channels, for kShared
  const uint4* a_fragments;  // [kSlots, consumer, group, step, thread 128]
  const uint32_t* metadata;  // [kSlots, consumer, group, thread 128]
  float* y;                  // [blocks, channels, kTokens]
  long long* cycles;         // [blocks]
  int turns;
};

template <class C>
struct Registers {
  uint32_t a[C::kGroups][C::kSteps][4];
  uint32_t metadata[C::kGroups];

  SC_DEVICE void load(const Arguments& args, int slot, int consumer, int thread) {
#pragma unroll
    for (int group = 0; group < C::kGroups; ++group) {
      const int at = (slot * kConsumers + consumer) * C::kGroups + group;
      metadata[group] = C::kSparse ? args.metadata[at * 128 + thread] : 0;
      if constexpr (C::kSource != A::kShared) {
#pragma unroll
        for (int step = 0; step < C::kSteps; ++step) {
          const uint4 vector = args.a_fragments[(at * C::kSteps + step) * 128 + thread];
          a[group][step][0] = vector.x;
          a[group][step][1] = vector.y;
          a[group][step][2] = vector.z;
          a[group][step][3] = vector.w;
        }
      }
    }
  }
};

// Where a turn's operands come from; a ring that is filled once repeats itself.
template <class C>
constexpr int slot_of(int turn) {
  return turn % (C::kFill ? kSlots : kStages);
}

template <class C>
SC_DEVICE void fill(const Arguments& args, int turn, char* shared, uint64_t* full) {
  const int stage = turn % kStages, slot = slot_of<C>(turn);
  char* const to = shared + stage * C::kStageBytes;
  ptx::mbarrier_arrive_expect_bytes(full + stage, C::kStageBytes);
  ptx::bulk_load(to, args.b + static_cast<int64_t>(slot) * C::kBytesB, C::kBytesB, full + stage);
  if constexpr (C::kSource == A::kShared)
    ptx::bulk_load(to + C::kBytesB, args.a_tiles + static_cast<int64_t>(slot) * C::kBytesA, C::kBytesA, full + stage);
}

template <class C>
__global__ void __launch_bounds__(384, 1) wgmma_turns(const Arguments args) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const full = reinterpret_cast<uint64_t*>(shared + kStages * C::kStageBytes);
  uint64_t* const empty = full + kStages;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::mbarrier_init(full + stage, 1);
      ptx::mbarrier_init(empty + stage, kConsumers * 4);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    ptx::give_registers_back<40>();
    if (threadIdx.x == 0) {
      for (int turn = 0; turn < (C::kFill ? args.turns : kStages); ++turn) {
        ptx::mbarrier_wait(empty + turn % kStages, (turn / kStages & 1) ^ 1);
        fill<C>(args, turn, shared, full);
      }
    }
    return;
  }
  ptx::take_registers<232>();
  const int consumer = threadIdx.x / 128 - 1, thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  float sums[C::kGroups][C::kTokens / 2];
#pragma unroll
  for (int group = 0; group < C::kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; ++i) sums[group][i] = 0;
  }
  Registers<C> registers[2];
  registers[0].load(args, 0, consumer, thread);
  const long long start = cycle_counter();
  const auto multiply = [&](int turn, auto buffer) {
    constexpr int kBuffer = C::kSource == A::kRegisters ? 0 : decltype(buffer)::value;
    Registers<C>& own = registers[kBuffer];
    const int stage = turn % kStages;
    if (C::kFill || turn < kStages) ptx::mbarrier_wait(full + stage, turn / kStages & 1);
    const uint32_t at = ptx::shared_address(shared + stage * C::kStageBytes);
    const uint64_t b = k_major_descriptor(at, Swizzle::k128);
    const uint64_t a = k_major_descriptor(at + C::kBytesB + consumer * C::kGroups * C::kTileA, C::kSwizzleA);
#pragma unroll
    for (int group = 0; group < C::kGroups; ++group) {
      if constexpr (C::kSource == A::kShared) {
        ptx::wgmma_fence(sums[group]);
      } else {
        ptx::wgmma_fence(sums[group], own.a[group][0], own.a[group][1], own.a[group][C::kSteps - 2],
                         own.a[group][C::kSteps - 1]);
      }
    }
    const auto step_of = [&](auto number) {
      constexpr int kStep = decltype(number)::value;
      // A step is 32 stored bytes of A, and of B 64 (2:4) or 32 (dense). Descriptors count in 16.
      const uint64_t b_step = b + kStep * (C::kSparse ? 4 : 2);
#pragma unroll
      for (int group = 0; group < C::kGroups; ++group) {
        const uint64_t a_step = a + (group * C::kTileA + kStep * 32) / 16;
        if constexpr (C::kSource == A::kShared && C::kSparse) {
          ptx::wgmma_sparse<BFloat16, kStep>(sums[group], a_step, b_step, own.metadata[group], true);
        } else if constexpr (C::kSource == A::kShared) {
          ptx::wgmma<BFloat16>(sums[group], a_step, b_step, true);
        } else if constexpr (C::kSparse) {
          ptx::wgmma_sparse<BFloat16, kStep>(sums[group], own.a[group][kStep], b_step, own.metadata[group], true);
        } else {
          ptx::wgmma<BFloat16>(sums[group], own.a[group][kStep], b_step, true);
        }
      }
    };
    step_of(std::integral_constant<int, 0>());
    step_of(std::integral_constant<int, 1>());
    if constexpr (!C::kSparse) {
      step_of(std::integral_constant<int, 2>());
      step_of(std::integral_constant<int, 3>());
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    // The turn before is done with its stage and its registers.
    if (C::kFill && turn > 0 && lane == 0) ptx::mbarrier_arrive(empty + (turn - 1) % kStages);
    if constexpr (C::kSource != A::kRegisters) {
      if (turn + 1 < args.turns) registers[kBuffer ^ 1].load(args, slot_of<C>(turn + 1), consumer, thread);
    }
  };
  int turn = 0;
#pragma unroll 1
  for (; turn + 1 < args.turns; turn += 2) {
    multiply(turn, std::integral_constant<int, 0>());
    multiply(turn + 1, std::integral_constant<int, 1>());
  }
  if (turn < args.turns) multiply(turn, std::integral_constant<int, 0>());
  if constexpr (C::kGroups == 2) {
    ptx::wgmma_wait<0>(sums[0], sums[1]);
  } else {
    ptx::wgmma_wait<0>(sums[0]);
  }
  if (threadIdx.x == 128) args.cycles[blockIdx.x] = cycle_counter() - start;
#pragma unroll
  for (int group = 0; group < C::kGroups; ++group) {
    float* const to =
        args.y + (static_cast<int64_t>(blockIdx.x) * C::kChannels + (consumer * C::kGroups + group) * 64 + warp * 16) *
                     C::kTokens;
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; ++i) {
      const fragments::Place place = fragments::c_place(lane, i);
      to[place.row * C::kTokens + place.column] = sums[group][i];
    }
  }
#endif
}

// What a turn multiplies.
template <class C>
struct Operands {
  SparseMatrix<BFloat16> a;  // dense: what is stored alone
  Matrix<BFloat16> b;
  explicit Operands(std::mt19937& random) : a(C::kChannels, C::kStored, random), b(C::kTokens, kInputs, random) {}
};

// A matrix of rows of `row_bytes(kSwizzle)` bytes as shared memory holds it, appended to `tiles`.
template <Swizzle kSwizzle>
void append_tile(const Matrix<BFloat16>& matrix, int first_row, int rows, std::vector<uint16_t>& tiles) {
  const size_t start = tiles.size();
  tiles.resize(start + static_cast<size_t>(rows) * matrix.columns);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < matrix.columns; ++column) {
      const uint32_t byte = swizzled<kSwizzle>(row, 2 * column);
      tiles[start + byte / 2] = matrix.elements[static_cast<size_t>(first_row + row) * matrix.columns + column].bits;
    }
  }
}

// A as the lanes of a warpgroup hold it: 64 channels, one register vector per step and thread.
template <class C>
void append_fragments(const SparseMatrix<BFloat16>& a, int first_channel, std::vector<uint32_t>& registers,
                      std::vector<uint32_t>& metadata) {
  for (int step = 0; step < C::kSteps; ++step) {
    for (int thread = 0; thread < 128; ++thread) {
      for (int r = 0; r < 4; ++r) {
        uint32_t pair = 0;
        for (int e = 0; e < 2; ++e) {
          const fragments::Place at = fragments::a_place<BFloat16>({thread % 32, r, e});
          const int row = first_channel + thread / 32 * 16 + at.row, column = step * 16 + at.column;
          pair |= static_cast<uint32_t>(a.stored.elements[static_cast<size_t>(row) * C::kStored + column].bits)
                  << 16 * e;
        }
        registers.push_back(pair);
      }
    }
  }
  for (int warp = 0; warp < 4; ++warp) {
    const std::vector<uint32_t> first = conformance::metadata_words(a, first_channel + 16 * warp, 0, 0);
    const std::vector<uint32_t> second = conformance::metadata_words(a, first_channel + 16 * warp, 16, 1);
    for (int lane = 0; lane < 32; ++lane)
      metadata.push_back(fragments::metadata_lane<BFloat16>(lane, 0) ? first[lane] : second[lane]);
  }
}

template <class C>
Answer ask_wgmma() {
  std::mt19937 random(7);
  std::vector<Operands<C>> slots;
  std::vector<uint16_t> b_tiles, a_tiles;
  std::vector<uint32_t> a_registers, metadata;
  for (int slot = 0; slot < kSlots; ++slot) {
    const Operands<C>& operands = slots.emplace_back(random);
    append_tile<Swizzle::k128>(operands.b, 0, C::kTokens, b_tiles);
    for (int channel = 0; channel < C::kChannels; channel += 64) {
      append_tile<C::kSwizzleA>(operands.a.stored, channel, 64, a_tiles);
      append_fragments<C>(operands.a, channel, a_registers, metadata);
    }
  }
  const int blocks = SC_EMULATED ? 1 : all_blocks();
  const size_t sums = static_cast<size_t>(C::kChannels) * C::kTokens;
  DeviceArray<uint16_t> device_b(b_tiles), device_a(a_tiles);
  DeviceArray<uint32_t> device_registers(a_registers), device_metadata(metadata);
  DeviceArray<float> y(std::vector<float>(blocks * sums));
  DeviceArray<long long> cycles{std::vector<long long>(blocks)};
  LaunchConfig config;
  config.grid = dim3(blocks);
  config.block = dim3(384);
  config.shared_bytes = C::kSharedBytes;
  const auto run = [&](int turns) {
    const Arguments args{reinterpret_cast<const char*>(device_b.data()),
                         reinterpret_cast<const char*>(device_a.data()),
                         reinterpret_cast<const uint4*>(device_registers.data()),
                         device_metadata.data(),
                         y.data(),
                         cycles.data(),
                         turns};
    require(launch(config, wgmma_turns<C>, args));
  };
  Answer answer;
  constexpr int kFew = kStages + 2;
  run(kFew);
  finish();
  std::vector<float> expected(sums);
  for (int turn = 0; turn < kFew; ++turn) {
    const SparseMatrix<BFloat16>& a = slots[C::kSource == A::kRegisters ? 0 : slot_of<C>(turn)].a;
    const Matrix<BFloat16>& b = slots[slot_of<C>(turn)].b;
    expected = C::kSparse ? product(a, b, expected) : product(a.stored, b, expected);
  }
  const std::vector<float> got = y.values();
  answer.wrong =
      first_difference(std::vector<float>(got.end() - static_cast<int64_t>(sums), got.end()), expected, C::kTokens);

  const int turns = scaled(4096, 3);
  answer.seconds = seconds_of([&] { run(turns); });
  answer.cycles = slowest(cycles.values());
  answer.operations = 2.0 * static_cast<double>(sums) * kInputs * turns * blocks;
  answer.blocks = blocks;
  return answer;
}

template <bool kSparse, int kTokens, int kGroups, A kSource, bool kFill>
void add(std::vector<Question>& questions, int value) {
  std::string name = kSparse ? "wgmma_sparse" : "wgmma";
  name += ".n" + std::to_string(kTokens) + ".m64x" + std::to_string(kGroups);
  name += kSource == A::kRegisters ? ".registers" : kSource == A::kLoaded ? ".loaded" : ".shared";
  if (kFill) name += ".filled";
  questions.push_back({name, 90, value, ask_wgmma<Case<kSparse, kTokens, kGroups, kSource, kFill>>});
}

}  // namespace

void add_wgmma_questions(std::vector<Question>& questions) {
  // The tile of matmul_sm90, and what its three burdens cost: nothing, copies, loads of A, both.
  add<true, 128, 2, A::kLoaded, true>(questions, 0);
  add<true, 128, 2, A::kRegisters, false>(questions, 0);
  add<true, 128, 2, A::kRegisters, true>(questions, 0);
  add<true, 128, 2, A::kLoaded, false>(questions, 0);
  add<true, 128, 2, A::kShared, true>(questions, 0);
  // The wide instruction.
  add<true, 256, 1, A::kLoaded, true>(questions, 0);
  add<true, 256, 1, A::kShared, true>(questions, 0);
  add<true, 256, 1, A::kRegisters, false>(questions, 0);
  add<true, 256, 1, A::kRegisters, true>(questions, 0);
  add<true, 256, 1, A::kLoaded, false>(questions, 1);
  add<true, 256, 1, A::kShared, false>(questions, 1);
  add<true, 128, 2, A::kShared, false>(questions, 1);
  // Few tokens.
  add<true, 64, 2, A::kLoaded, true>(questions, 1);
  // What dense products reach in the same loop.
  add<false, 128, 2, A::kShared, true>(questions, 0);
  add<false, 256, 1, A::kShared, true>(questions, 0);
  add<false, 128, 2, A::kLoaded, true>(questions, 1);
  add<false, 256, 1, A::kRegisters, false>(questions, 1);
}

}  // namespace sparsecore::questions

// Gradients of kept blocks with wgmma, blocks of 64 and 128: persistent blocks of three warpgroups.
//
//   out[entry, o, i] = sum over tokens t of grad_y[t, kSize * row + o] * x[t, kSize * column + i]
//
//   a work    eight entries of 64 that follow each other, or three of 128, of one split of the tokens: 64 channels x
//   512
//             inputs or 128 x 384 where they are of one row. Each of two consuming warpgroups makes 64 channels: of
//             blocks of 64 it has four of the entries, of blocks of 128 one half of all three entries' channels
//   a turn    32 tokens: boxes of so many rows x 128 bytes
//   stage     the boxes of x, one for each column of 64 inputs, then as many places for boxes of grad_y: entries of one
//             row share theirs, so that most places stay empty. 128-byte swizzle
//   operands  both MN-major, as tokens are rows. Boxes of x lie one behind the other: one instruction multiplies up to
//             four of those that share their grad_y, a run of columns
//   producer  one warp, a lane for each box of x. The lane whose entry begins a row also brings grad_y, and which do is
//             left beside the stage, in begins[stage]
//   ring      full[s] counts the copies' bytes; empty[s] the eight consuming warps. Turn i of a block uses stage
//             i % kStages, and the parity of i / kStages tells its phases apart, across works
//   order     works of one split follow each other: blocks of threads read the same tokens at about the same time, so
//             that grad_y and x come from the level 2 cache
//   result    to out, or with several splits to the workspace, [splits, blocks, kSize, kSize], straight from registers:
//             a block is written once for hundreds of tokens
//
// Registers: 40 for the producer, 232 for a consumer.
#pragma once

#include "cuda/block_sparse/index.cuh"
#include "cuda/common/bulk_copy.h"
#include "cuda/common/convert.h"
#include "cuda/common/fragments.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/registers.h"
#include "cuda/common/shared_memory.h"
#include "cuda/common/wgmma.h"

namespace sparsecore::block_sparse::sm90 {

template <int kSizeOfBlock>
struct GradTile {
  static constexpr int kSize = kSizeOfBlock, kParts = kSize / 64;  // 64 channels or inputs of a block each
  static constexpr int kEntries = kGradEntriesSm90<kSize>, kColumns = kEntries * kParts;
  static constexpr int kOwn = kParts == 1 ? kColumns / 2 : kColumns;  // columns of a consumer
  static constexpr int kTokens = kGradTurnSm90, kBoxBytes = kTokens * cuda_linear::kRowBytes;
  static constexpr int kStageBytes = 2 * kColumns * kBoxBytes, kStages = kSize == 64 ? 3 : 4;
  static constexpr int kThreads = 384, kConsumerWarps = 8;
  static constexpr int kColumnSums = 32,
                       kSums = kOwn * kColumnSums;  // registers of 64 channels x 64 inputs, and of all
  static constexpr int kBarrierOffset = kStages * kStageBytes;
  static constexpr int kSharedBytes = kBarrierOffset + kStages * (8 + 8 + 4);
};

// The ring and what stands beside it.
struct GradRing {
  char* stages;
  uint64_t *full, *empty;
  uint32_t* begins;

  template <class Tile>
  static SC_DEVICE GradRing in(char* shared, Tile) {
    uint64_t* barriers = reinterpret_cast<uint64_t*>(shared + Tile::kBarrierOffset);
    return {shared, barriers, barriers + Tile::kStages, reinterpret_cast<uint32_t*>(barriers + 2 * Tile::kStages)};
  }
};

// The persistent schedule: block b takes works b, b + blocks, ..
template <class Tile>
struct GradWork {
  int32_t first_entry;
  int split, first_turn, turns;

  SC_DEVICE GradWork(const GradArguments& args, int index, int units) {
    split = index / units;
    first_entry = index % units * Tile::kEntries;
    const cuda_linear::BlockRange range =
        cuda_linear::split_range(ceil_div(args.p.m, Tile::kTokens), split, args.splits);
    first_turn = static_cast<int>(range.first);
    turns = static_cast<int>(range.last - range.first);
  }
};

template <class Tile>
SC_DEVICE void produce(const GradArguments& args, const TensorMap* grad_y, const TensorMap* x, int units,
                       const GradRing& ring) {
  const BlockSparse& weight = args.p.weight;
  const int lane = threadIdx.x;
  const bool copies = lane < Tile::kColumns;
  const int works = units * args.splits;
  uint32_t turn = 0;
  for (int index = blockIdx.x; index < works; index = cuda_linear::work_after(index, gridDim.x, works)) {
    const GradWork<Tile> work(args, index, units);
    // Of a lane: column `lane` of the stage, part `part` of its entry. Past the last entry the copy engine brings the
    // zeros that lie behind the inputs.
    const int part = lane % Tile::kParts, entry = work.first_entry + lane / Tile::kParts;
    const int32_t row = row_of(weight, args.rows, entry);
    const int32_t row_before = __shfl_up_sync(0xffffffffu, row, Tile::kParts);
    const bool begins = copies && (lane < Tile::kParts || row != row_before);
    const uint32_t all_begins = __ballot_sync(0xffffffffu, begins && part == 0);
    const int place = Tile::kColumns + __popc(all_begins & ((2u << lane) - 1)) * Tile::kParts - Tile::kParts + part;
    const uint32_t bytes = (Tile::kColumns + __popc(all_begins) * Tile::kParts) * Tile::kBoxBytes;
    const int32_t input =
        copies && entry < weight.blocks
            ? static_cast<int32_t>(static_cast<int64_t>(weight.index[entry]) * Tile::kSize + 64 * part)
            : static_cast<int32_t>(args.p.k);
    const int32_t channel = row * Tile::kSize + 64 * part;
    for (int i = 0; i < work.turns; ++i, ++turn) {
      const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
      if (lane == 0) {
        // The first round finds the stages empty: the phase before the first counts as complete.
        ptx::mbarrier_wait(&ring.empty[stage], phase ^ 1);
        ptx::store_shared_4(&ring.begins[stage], all_begins);
        ptx::mbarrier_arrive_expect_bytes(&ring.full[stage], bytes);
      }
      __syncwarp();
      char* to = ring.stages + stage * Tile::kStageBytes;
      const int32_t token = (work.first_turn + i) * Tile::kTokens;
      const int32_t at_x[2] = {input, token}, at_grad_y[2] = {channel, token};
      if (copies) ptx::tensor_load(to + lane * Tile::kBoxBytes, x, at_x, &ring.full[stage]);
      if (begins) ptx::tensor_load(to + place * Tile::kBoxBytes, grad_y, at_grad_y, &ring.full[stage]);
    }
  }
}

// function(std::integral_constant<int, i>()) for i from 0 to kCount - 1.
template <int kCount, class Function>
SC_DEVICE void unrolled(Function function) {
  if constexpr (kCount > 0) {
    unrolled<kCount - 1>(function);
    function(std::integral_constant<int, kCount - 1>());
  }
}

// kCount registers from kFirst on.
template <int kFirst, int kCount, int kRegisters>
SC_DEVICE float (&registers_of(float (&all)[kRegisters])) [kCount] {
  static_assert(kFirst + kCount <= kRegisters);
  return reinterpret_cast<float (&)[kCount]>(all[kFirst]);
}

// Of a warpgroup: its columns of the stage, and the box of grad_y that each of them is multiplied with.
template <class Tile>
struct GradColumns {
  int first, part;  // part: of the entries' channels
  int places[Tile::kOwn];

  // begins: bit c is set where column c begins another row than the column before it.
  SC_DEVICE GradColumns(int consumer, uint32_t begins) {
    first = Tile::kParts == 1 ? Tile::kOwn * consumer : 0;
    part = Tile::kParts == 1 ? 0 : consumer;
#pragma unroll
    for (int c = 0; c < Tile::kOwn; ++c)
      places[c] = Tile::kColumns + (__popc(begins & ((2u << (first + c)) - 1)) - 1) * Tile::kParts + part;
  }
};

// How many columns each instruction of a step makes, of 1, 2 or 4: those of a run share their grad_y.
template <int... kColumns>
struct Runs {};

// One step of 16 tokens, `from` the first of them. x: descriptor of the first column's box, the next ones kBox on.
template <class T, class Tile, int kFirst, int kRun, int... kRest>
SC_DEVICE void multiply(float (&sums)[Tile::kSums], const uint64_t (&grad_y)[Tile::kOwn], uint64_t x, int from,
                        Runs<kRun, kRest...>) {
  constexpr int kOne = Tile::kColumnSums, kBox = Tile::kBoxBytes / 16;
  ptx::wgmma<T, Major::kMN, Major::kMN>(registers_of<kFirst * kOne, kRun * kOne>(sums), grad_y[kFirst] + from,
                                        x + kFirst * kBox + from, true);
  if constexpr (sizeof...(kRest) > 0) multiply<T, Tile, kFirst + kRun>(sums, grad_y, x, from, Runs<kRest...>());
}

// 64 channels x 64 inputs of a block from element `first` of `out` on, rows kSize apart.
template <int kSize, int kRegisters>
SC_DEVICE void store_column(void* out, DType dtype, int64_t first, const float (&sums)[kRegisters], int warp,
                            int lane) {
  const fragments::Place corner = fragments::c_place(lane, 0);
  first += (16 * warp + corner.row) * kSize + corner.column;
#pragma unroll
  for (int e = 0; e < kRegisters; e += 2) {
    const fragments::Place at = fragments::c_place(0, e);
    const int64_t place = first + at.row * kSize + at.column;
    if (dtype == DType::kFloat32) {
      *reinterpret_cast<float2*>(static_cast<float*>(out) + place) = {sums[e], sums[e + 1]};
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(out) + place) =
          dtype == DType::kBFloat16 ? ptx::pack2<BFloat16>(sums[e], sums[e + 1])
                                    : ptx::pack2<Float16>(sums[e], sums[e + 1]);
    }
  }
}

// A warpgroup's share of a work. All kinds of runs have sums of their own: where they meet in shared registers, ptxas
// finds no room for products under way.
template <class T, class Tile, class SomeRuns>
SC_DEVICE void make_columns(const GradArguments& args, const GradRing& ring, const GradWork<Tile>& work,
                            const GradColumns<Tile>& columns, uint32_t first_turn, SomeRuns runs) {
  constexpr int kBox = Tile::kBoxBytes / 16;  // descriptors count in 16 bytes
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  float sums[Tile::kSums];
#pragma unroll
  for (int i = 0; i < Tile::kSums; ++i) sums[i] = 0;
  for (int i = 0; i < work.turns; ++i) {
    const uint32_t turn = first_turn + i, stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
    ptx::mbarrier_wait(&ring.full[stage], phase);
    // Eight tokens of 64 columns are 1024 bytes, the next 64 columns a box on.
    const uint64_t boxes = matrix_descriptor(ptx::shared_address(ring.stages + stage * Tile::kStageBytes),
                                             Swizzle::k128, Tile::kBoxBytes, 1024);
    uint64_t grad_y[Tile::kOwn];
#pragma unroll
    for (int c = 0; c < Tile::kOwn; ++c) grad_y[c] = boxes + columns.places[c] * kBox;
    ptx::wgmma_fence(sums);
#pragma unroll
    for (int step = 0; step < Tile::kTokens / 16; ++step)
      multiply<T, Tile, 0>(sums, grad_y, boxes + columns.first * kBox, step * 128, runs);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    // The turn before is done with its stage.
    if (i > 0 && lane == 0) ptx::mbarrier_arrive(&ring.empty[(turn - 1) % Tile::kStages]);
  }
  ptx::wgmma_wait<0>(sums);
  if (work.turns > 0 && lane == 0) ptx::mbarrier_arrive(&ring.empty[(first_turn + work.turns - 1) % Tile::kStages]);

  const int64_t blocks = args.p.weight.blocks, share = work.split * blocks * (Tile::kSize * Tile::kSize);
  void* out = args.splits > 1 ? static_cast<float*>(args.p.workspace) + share : args.p.out;
  const DType dtype = args.splits > 1 ? DType::kFloat32 : args.p.out_dtype;
  unrolled<Tile::kOwn>([&](auto c) {
    constexpr int kColumn = decltype(c)::value;
    const int column = columns.first + kColumn;
    const int64_t entry = work.first_entry + column / Tile::kParts;
    if (entry >= blocks) return;
    const int64_t first = (entry * Tile::kSize + 64 * columns.part) * Tile::kSize + 64 * (column % Tile::kParts);
    constexpr int kOne = Tile::kColumnSums;
    store_column<Tile::kSize>(out, dtype, first, registers_of<kColumn * kOne, kOne>(sums), warp, lane);
  });
}

template <class T, class Tile>
SC_DEVICE void consume(const GradArguments& args, int units, int consumer, const GradRing& ring) {
  const int works = units * args.splits;
  uint32_t turn = 0;
  for (int index = blockIdx.x; index < works; index = cuda_linear::work_after(index, gridDim.x, works)) {
    const GradWork<Tile> work(args, index, units);
    uint32_t begins = 1;
    if (work.turns > 0) {
      const uint32_t stage = turn % Tile::kStages, phase = turn / Tile::kStages & 1;
      ptx::mbarrier_wait(&ring.full[stage], phase);
      begins = ptx::load_shared_4(&ring.begins[stage]);
    }
    const GradColumns<Tile> columns(consumer, begins);
    const auto make = [&](auto runs) { make_columns<T, Tile>(args, ring, work, columns, turn, runs); };
    const auto share = [&](int a, int b) { return columns.places[a] == columns.places[b]; };
    if constexpr (Tile::kParts == 1) {
      if (share(0, 3)) {
        make(Runs<4>());
      } else if (share(0, 1)) {
        share(2, 3) ? make(Runs<2, 2>()) : make(Runs<2, 1, 1>());
      } else {
        share(2, 3) ? make(Runs<1, 1, 2>()) : make(Runs<1, 1, 1, 1>());
      }
    } else {  // both parts of an entry do
      share(0, 2) ? make(Runs<4, 2>()) : share(2, 4) ? make(Runs<2, 4>()) : make(Runs<2, 2, 2>());
    }
    turn += work.turns;
  }
}

// Budget of sm90::weight_grad: 168 registers.
template <class T, int kSize>
__global__ void __launch_bounds__(384, 1)
    weight_grad(const GradArguments args, const __grid_constant__ TensorMap grad_y, const __grid_constant__ TensorMap x,
                const int units) {
  using Tile = GradTile<kSize>;
  const GradRing ring = GradRing::in(ptx::smem(), Tile());
  if (threadIdx.x == 0) {
    ptx::mbarrier_init_ring(ring.full, ring.empty, Tile::kStages, 1, Tile::kConsumerWarps);
    ptx::fence_mbarrier_init();
    ptx::tensor_prefetch_map(&grad_y);
    ptx::tensor_prefetch_map(&x);
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    ptx::give_registers_back<40>();
    if (threadIdx.x < 32) produce<Tile>(args, &grad_y, &x, units, ring);
  } else {
    ptx::take_registers<232>();
    consume<T, Tile>(args, units, warpgroup - 1, ring);
  }
}

}  // namespace sparsecore::block_sparse::sm90

// How many bytes a second does the level 2 cache give to tensor copies? It bounds the gradients of square blocks.
//
// The producer of block_sparse::sm90::weight_grad: kBoxes boxes of 32 rows x 64 columns in a turn, from the same rows
// on all multiprocessors, each at columns of its own; kStages turns on their way. One warp waits for a turn and adds up
// the first word of every row of its boxes.
//
//   matrix [rows, columns] of 16 bits, in words of 32: word i holds i. 8 MB, read again and again
#include "counted_words.h"
#include "cuda/common/bulk_copy.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/shared_memory.h"
#include "cuda/common/swizzle.h"

namespace sparsecore::questions {
namespace {

constexpr int kBoxRows = 32, kBoxBytes = kBoxRows * 128, kColumns = scaled(4096, 512), kRows = scaled(1024, 96);
constexpr int kWordsOfRow = kColumns / 2, kWords = kRows * kWordsOfRow;

// Where a box of a block begins: neighbours lie apart.
constexpr int column_of(int block, int box) { return (block * 11 + box * 7) % (kColumns / 64) * 64; }

// sums [blocks, lanes]
template <int kBoxes, int kStages>
__global__ void __launch_bounds__(32, 1)
    add_up_boxes(const __grid_constant__ TensorMap matrix, int turns, uint32_t* sums) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const full = reinterpret_cast<uint64_t*>(shared + kStages * kBoxes * kBoxBytes);
  const int lane = threadIdx.x, block = blockIdx.x;
  const auto copy = [&](int turn) {
    const int stage = turn % kStages;
    ptx::mbarrier_arrive_expect_bytes(full + stage, kBoxes * kBoxBytes);
    for (int box = 0; box < kBoxes; ++box) {
      const int32_t at[2] = {column_of(block, box), turn * kBoxRows % kRows};
      ptx::tensor_load(shared + (stage * kBoxes + box) * kBoxBytes, &matrix, at, full + stage);
    }
  };
  if (lane == 0) {
    for (int stage = 0; stage < kStages; ++stage) ptx::mbarrier_init(full + stage, 1);
    ptx::fence_mbarrier_init();
    for (int turn = 0; turn < kStages && turn < turns; ++turn) copy(turn);
  }
  __syncwarp();
  uint32_t sum = 0;
  for (int turn = 0; turn < turns; ++turn) {
    const int stage = turn % kStages;
    ptx::mbarrier_wait(full + stage, turn / kStages & 1);
    for (int box = 0; box < kBoxes; ++box)
      sum += ptx::load_shared_4(shared + (stage * kBoxes + box) * kBoxBytes + swizzled<Swizzle::k128>(lane, 0));
    __syncwarp();  // all have read the stage
    if (lane == 0 && turn + kStages < turns) copy(turn + kStages);
  }
  sums[block * 32 + lane] = sum;
#endif
}

template <int kBoxes, int kStages>
Answer ask_boxes() {
  const int blocks = all_blocks(), turns = scaled(16 << 10, kStages + 4);
  CountedWords words(kWords);
  TensorShape shape;
  shape.address = words.data();
  shape.sizes[0] = kColumns;
  shape.sizes[1] = kRows;
  shape.strides[1] = 2 * kColumns;
  shape.box[0] = 64;
  shape.box[1] = kBoxRows;
  TensorMap map;
  if (!make_tensor_map(shape, &map)) throw std::runtime_error("the driver refuses the tensor map");
  DeviceArray<uint32_t> sums(std::vector<uint32_t>(static_cast<size_t>(blocks) * 32));
  LaunchConfig config;
  config.grid = dim3(blocks);
  config.block = dim3(32);
  config.shared_bytes = kStages * kBoxes * kBoxBytes + kStages * 8;
  Answer answer;
  answer.seconds = seconds_of([&] { require(launch(config, add_up_boxes<kBoxes, kStages>, map, turns, sums.data())); });
  std::vector<uint32_t> expected;
  for (int block = 0; block < blocks; ++block)
    for (int lane = 0; lane < 32; ++lane) {
      uint32_t sum = 0;
      for (int turn = 0; turn < turns; ++turn)
        for (int box = 0; box < kBoxes; ++box)
          sum += static_cast<uint32_t>((turn * kBoxRows % kRows + lane) * kWordsOfRow + column_of(block, box) / 2);
      expected.push_back(sum);
    }
  answer.wrong = first_difference(sums.values(), expected, 32);
  answer.bytes = static_cast<double>(blocks) * turns * kBoxes * kBoxBytes;
  answer.in_flight = kStages * kBoxes * kBoxBytes;
  answer.blocks = blocks;
  return answer;
}

}  // namespace

void add_box_questions(std::vector<Question>& questions) {
  questions.push_back({"boxes.9x3", 90, 1, ask_boxes<9, 3>});
  questions.push_back({"boxes.9x2", 90, 2, ask_boxes<9, 2>});
  questions.push_back({"boxes.9x6", 90, 2, ask_boxes<9, 6>});
}

}  // namespace sparsecore::questions

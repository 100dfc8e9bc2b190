// stmatrix, mbarriers, clusters, register counts and dependent launches.
#include "cuda/common/cluster.h"
#include "cuda/common/cp_async.h"
#include "cuda/common/dependent_launch.h"
#include "cuda/common/ldmatrix.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/registers.h"
#include "cuda/common/shared_memory.h"
#include "cuda/conformance/matrix_tiles.h"

namespace sparsecore::conformance {
namespace {

// registers [32, kTiles], tiles [kTiles, 8, 8].
template <int kTiles, bool kTransposed>
__global__ void stmatrix_kernel(const uint32_t* registers, uint16_t* tiles) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  const int lane = threadIdx.x;
  uint32_t own[kTiles];
  for (int i = 0; i < kTiles; ++i) own[i] = registers[lane * kTiles + i];
  char* row = shared + 16 * (lane % (8 * kTiles));
  if constexpr (kTransposed) {
    ptx::stmatrix_transposed(row, own);
  } else {
    ptx::stmatrix(row, own);
  }
  __syncwarp();
  for (int i = lane; i < kTiles * 64; i += 32) tiles[i] = reinterpret_cast<uint16_t*>(shared)[i];
#endif
}

template <int kTiles, bool kTransposed>
std::string check_stmatrix() {
  const MatrixTiles tiles(kTiles, kTransposed);
  DeviceArray<uint32_t> device_registers(tiles.registers);
  DeviceArray<uint16_t> device_tiles(std::vector<uint16_t>(64 * kTiles));
  require(launch(one_block(32, kTiles * 128), stmatrix_kernel<kTiles, kTransposed>, device_registers.data(),
                 device_tiles.data()));
  finish();
  return first_difference(device_tiles.values(), tiles.elements, 8);
}

// A ring of two slots between warp 0, which writes, and warp 1, which adds up: each slot has a barrier for full and one
// for empty, and each wait alternates parity by itself. With cp.async the arrival at full is the copies' own.
constexpr int kRounds = 7;
template <bool kCopies>
__global__ void mbarrier_kernel(const uint32_t* from, uint32_t* sums) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint32_t* const slots = reinterpret_cast<uint32_t*>(shared);
  uint64_t* const full = reinterpret_cast<uint64_t*>(shared + 256);
  uint64_t* const empty = full + 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < 2; ++slot) {
      ptx::mbarrier_init(full + slot, 32);
      ptx::mbarrier_init(empty + slot, 32);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  uint32_t sum = 0;
  for (int round = 0; round < kRounds; ++round) {
    const int slot = round % 2;
    const uint32_t parity = round / 2 % 2;
    if (warp == 0) {
      ptx::mbarrier_wait(empty + slot, parity ^ 1);
      if constexpr (kCopies) {
        ptx::cp_async<4, ptx::CacheAt::kAll>(slots + 32 * slot + lane, from + 32 * round + lane);
        ptx::mbarrier_arrive_after_cp_async(full + slot);
      } else {
        slots[32 * slot + lane] = from[32 * round + lane];
        ptx::mbarrier_arrive(full + slot);
      }
    } else {
      ptx::mbarrier_wait(full + slot, parity);
      sum += slots[32 * slot + (31 - lane)];
      ptx::mbarrier_arrive(empty + slot);
    }
  }
  if (warp == 1) sums[lane] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 0; i < 4; ++i) ptx::mbarrier_invalidate(full + i);
  }
  __syncthreads();
  if (threadIdx.x < 8) reinterpret_cast<uint32_t*>(full)[threadIdx.x] = threadIdx.x;  // ordinary memory again
#endif
}

template <bool kCopies>
std::string check_mbarrier() {
  std::vector<uint32_t> from(32 * kRounds), expected(32);
  std::mt19937 random(1);
  for (uint32_t& word : from) word = static_cast<uint32_t>(random() % 1000);
  for (int i = 0; i < 32 * kRounds; ++i) expected[31 - i % 32] += from[i];
  DeviceArray<uint32_t> device_from(from), sums(std::vector<uint32_t>(32));
  require(launch(one_block(64, 288), mbarrier_kernel<kCopies>, device_from.data(), sums.data()));
  finish();
  return first_difference(sums.values(), expected, 32);
}

// Four blocks. Each writes a row to its own shared memory and one to its neighbour's, and reads its neighbour's own
// row; then every block arrives at block 0's mbarrier. to [4 blocks, 8]: 4 words of the neighbour, 1 as a float, 1 that
// the neighbour was given, rank, size.
__global__ void cluster_kernel(uint32_t* to) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(shared + 64);
  const uint32_t rank = ptx::cluster_rank(), size = ptx::cluster_size(), next = (rank + 1) % size;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(barrier, size);
    ptx::fence_mbarrier_init();
    ptx::store_shared_16(shared, make_uint4(rank, rank + 10, rank + 20, __float_as_uint(0.5f + rank)));
  }
  ptx::cluster_sync();
  uint32_t* const row = to + 8 * rank;
  if (threadIdx.x == 0) {
    const uint4 words = ptx::load_cluster_16(ptx::cluster_address(shared, next));
    row[0] = words.x;
    row[1] = words.y;
    row[2] = words.z;
    row[3] = words.w;
    row[4] = static_cast<uint32_t>(2 * ptx::load_cluster_float(ptx::cluster_address(shared + 12, next)));
    ptx::store_cluster_16(ptx::cluster_address(shared + 32, next), make_uint4(100 + rank, 0, 0, 0));
    row[6] = rank;
    row[7] = size;
  }
  ptx::cluster_sync();
  if (threadIdx.x == 0) {
    row[5] = ptx::load_shared_4(shared + 32);
    ptx::mbarrier_arrive_remote(barrier, 0);
    if (rank == 0) ptx::mbarrier_wait(barrier, 0);
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
#endif
}

std::string check_cluster() {
  std::vector<uint32_t> expected;
  for (uint32_t rank = 0; rank < 4; ++rank) {
    const uint32_t next = (rank + 1) % 4, before = (rank + 3) % 4;
    constexpr uint32_t halves[4] = {0x3f000000, 0x3fc00000, 0x40200000, 0x40600000};  // 0.5, 1.5, 2.5, 3.5
    for (uint32_t word : {next, next + 10, next + 20, halves[next], 2 * next + 1, 100 + before, rank, 4u}) {
      expected.push_back(word);
    }
  }
  DeviceArray<uint32_t> to(std::vector<uint32_t>(32));
  LaunchConfig config = one_block(64, 128);
  config.grid = dim3(4);
  config.cluster = dim3(4);
  require(launch(config, cluster_kernel, to.data()));
  finish();
  return first_difference(to.values(), expected, 8);
}

// The first warpgroup gives registers to the two others, as the kernels here do.
__global__ void __launch_bounds__(384, 1) registers_kernel(uint32_t* to) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  uint32_t value = threadIdx.x * threadIdx.x;
  if (threadIdx.x < 128) {
    ptx::give_registers_back<40>();
    value += 1;
  } else {
    ptx::take_registers<232>();
    value += 2;
  }
  to[threadIdx.x] = value;
#endif
}

std::string check_registers() {
  std::vector<uint32_t> expected;
  for (uint32_t i = 0; i < 384; ++i) expected.push_back(i * i + (i < 128 ? 1 : 2));
  DeviceArray<uint32_t> to(std::vector<uint32_t>(384));
  require(launch(one_block(384), registers_kernel, to.data()));
  finish();
  return first_difference(to.values(), expected, 384);
}

// values[i] = 2 values[i] + 1: a chain whose every grid may begin before the one before it has ended.
__global__ void dependent_kernel(uint32_t* values) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  ptx::wait_for_previous_grid();
  values[i] = 2 * values[i] + 1;
  ptx::let_next_grid_begin();
#endif
}

std::string check_dependent_launch() {
  std::vector<uint32_t> start(256), expected;
  for (uint32_t i = 0; i < 256; ++i) {
    start[i] = i;
    expected.push_back(16 * i + 15);
  }
  DeviceArray<uint32_t> values(start);
  LaunchConfig config = one_block(64);
  config.grid = dim3(4);
  config.overlaps_previous = true;
  for (int i = 0; i < 4; ++i) require(launch(config, dependent_kernel, values.data()));
  finish();
  return first_difference(values.values(), expected, 256);
}

}  // namespace

void add_barrier_checks(std::vector<Check>& checks) {
  checks.push_back({"mbarrier", 90, 0, check_mbarrier<false>});
  checks.push_back({"mbarrier.cp_async", 90, 1, check_mbarrier<true>});
  checks.push_back({"stmatrix.x4.transposed", 90, 0, check_stmatrix<4, true>});
  checks.push_back({"stmatrix.x4", 90, 1, check_stmatrix<4, false>});
  checks.push_back({"stmatrix.x2", 90, 2, check_stmatrix<2, false>});
  checks.push_back({"stmatrix.x2.transposed", 90, 2, check_stmatrix<2, true>});
  checks.push_back({"stmatrix.x1", 90, 3, check_stmatrix<1, false>});
  checks.push_back({"stmatrix.x1.transposed", 90, 3, check_stmatrix<1, true>});
  checks.push_back({"registers", 90, 0, check_registers});
  checks.push_back({"cluster", 90, 1, check_cluster});
  checks.push_back({"dependent_launch", 90, 2, check_dependent_launch});
}

}  // namespace sparsecore::conformance

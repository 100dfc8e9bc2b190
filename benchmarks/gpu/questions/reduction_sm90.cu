// What does it cost to add up the parts of a sum that several blocks hold? Eight blocks have 32 tokens x 128 channels
// each, as matmul_small's would have of split inputs. Added up
//   cluster      by the blocks themselves, out of each other's shared memory
//   second       by a second kernel, out of global memory
//   overlapped   the same, begun before the first has ended
// and, for comparison, not at all. All add in the order of the parts.
#include "cuda/common/cluster.h"
#include "cuda/common/dependent_launch.h"
#include "cuda/common/shared_memory.h"
#include "question.h"

namespace sparsecore::questions {
namespace {

constexpr int kParts = 8, kSums = 32 * 128, kThreads = 128;

SC_DEVICE float part_of(int tile, int part, int i) { return static_cast<float>((tile * 5 + part * 3 + i) % 7 - 3); }

// y [tiles, kSums]. Grid: tiles x kParts blocks, clusters of kParts.
__global__ void __launch_bounds__(kThreads) add_in_cluster(float* y) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  float* const own = reinterpret_cast<float*>(ptx::smem());
  const int part = ptx::cluster_rank(), tile = blockIdx.x / kParts;
  for (int i = threadIdx.x; i < kSums; i += kThreads) own[i] = part_of(tile, part, i);
  ptx::cluster_sync();
  constexpr int kShare = kSums / kParts;
  for (int i = part * kShare + 4 * threadIdx.x; i < (part + 1) * kShare; i += 4 * kThreads) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int other = 0; other < kParts; ++other) {
      const uint4 bits = ptx::load_cluster_16(ptx::cluster_address(own + i, other));
      sum.x += __uint_as_float(bits.x);
      sum.y += __uint_as_float(bits.y);
      sum.z += __uint_as_float(bits.z);
      sum.w += __uint_as_float(bits.w);
    }
    *reinterpret_cast<float4*>(y + static_cast<int64_t>(tile) * kSums + i) = sum;
  }
  ptx::cluster_sync();  // nobody exits while its memory is read
#endif
}

// parts [tiles, kParts, kSums]
__global__ void __launch_bounds__(kThreads) write_parts(float* parts) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  const int part = blockIdx.x % kParts, tile = blockIdx.x / kParts;
  ptx::wait_for_previous_grid();
  for (int i = threadIdx.x; i < kSums; i += kThreads)
    parts[static_cast<int64_t>(blockIdx.x) * kSums + i] = part_of(tile, part, i);
  ptx::let_next_grid_begin();
#endif
}

// Grid: tiles x kParts blocks, each a share of a tile's sums.
__global__ void __launch_bounds__(kThreads) add_parts(const float* parts, float* y) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  constexpr int kShare = kSums / kParts;
  const int share = blockIdx.x % kParts, tile = blockIdx.x / kParts;
  ptx::wait_for_previous_grid();
  for (int i = share * kShare + 4 * threadIdx.x; i < (share + 1) * kShare; i += 4 * kThreads) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const float4 more =
          *reinterpret_cast<const float4*>(parts + (static_cast<int64_t>(tile) * kParts + part) * kSums + i);
      sum.x += more.x;
      sum.y += more.y;
      sum.z += more.z;
      sum.w += more.w;
    }
    *reinterpret_cast<float4*>(y + static_cast<int64_t>(tile) * kSums + i) = sum;
  }
  ptx::let_next_grid_begin();
#endif
}

enum class Way { kCluster, kSecond, kOverlapped, kNone };

template <Way kWay>
Answer ask_reduction() {
  const int tiles = scaled(16, 2);
  DeviceArray<float> y(std::vector<float>(static_cast<size_t>(tiles) * kSums));
  DeviceArray<float> parts(std::vector<float>(static_cast<size_t>(tiles) * kParts * kSums));
  LaunchConfig config;
  config.grid = dim3(tiles * kParts);
  config.block = dim3(kThreads);
  LaunchConfig in_cluster = config, overlapped = config;
  in_cluster.cluster = dim3(kParts);
  in_cluster.shared_bytes = kSums * 4;
  overlapped.overlaps_previous = true;
  const auto run = [&] {
    if (kWay == Way::kCluster) {
      require(launch(in_cluster, add_in_cluster, y.data()));
    } else {
      require(launch(kWay == Way::kOverlapped ? overlapped : config, write_parts, parts.data()));
      if (kWay != Way::kNone) {
        require(launch(kWay == Way::kOverlapped ? overlapped : config, add_parts, parts.data(), y.data()));
      }
    }
  };
  Answer answer;
  run();
  finish();
  std::vector<float> expected;
  for (int tile = 0; tile < tiles; ++tile) {
    for (int i = 0; i < kSums; ++i) {
      float sum = 0;
      for (int part = 0; part < kParts; ++part) sum += static_cast<float>((tile * 5 + part * 3 + i) % 7 - 3);
      expected.push_back(sum);
    }
  }
  if (kWay != Way::kNone) answer.wrong = first_difference(y.values(), expected, kSums);
  // Many at a time, so that launching is not what is measured.
  const int repetitions = scaled(200, 1);
  answer.seconds = seconds_of([&] {
                     for (int i = 0; i < repetitions; ++i) run();
                   }) /
                   repetitions;
  return answer;
}

}  // namespace

void add_reduction_questions(std::vector<Question>& questions) {
  questions.push_back({"reduction.cluster", 90, 2, ask_reduction<Way::kCluster>});
  questions.push_back({"reduction.second_kernel", 90, 2, ask_reduction<Way::kSecond>});
  questions.push_back({"reduction.overlapped_kernel", 90, 2, ask_reduction<Way::kOverlapped>});
  questions.push_back({"reduction.none", 90, 2, ask_reduction<Way::kNone>});
}

}  // namespace sparsecore::questions

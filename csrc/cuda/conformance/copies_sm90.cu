// The copy engine: runs of bytes, boxes of tensors with every rank and swizzle, multicast, stores, reductions.
#include "cuda/common/bulk_copy.h"
#include "cuda/common/cache_hints.h"
#include "cuda/common/cluster.h"
#include "cuda/common/fence.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/shared_memory.h"
#include "cuda/conformance/check.h"

namespace sparsecore::conformance {
namespace {

// 512 bytes to shared memory and back, by plain or hinted copies; `sums` gets them added.
template <bool kHinted>
__global__ void bulk_kernel(const float* from, float* to, float* sums) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(shared + 512);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(barrier, 1);
    ptx::fence_mbarrier_init();
    ptx::bulk_prefetch_l2(from, 512);
    ptx::mbarrier_arrive_expect_bytes(barrier, 512);
    if constexpr (kHinted) {
      ptx::bulk_load_hinted(shared, from, 512, barrier, ptx::policy_evict_first());
    } else {
      ptx::bulk_load(shared, from, 512, barrier);
    }
  }
  __syncthreads();
  ptx::mbarrier_wait(barrier, 0);
  reinterpret_cast<float*>(shared)[threadIdx.x] += 1;
  ptx::fence_proxy_async_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    if constexpr (kHinted) {
      ptx::bulk_store_hinted(to, shared, 512, ptx::policy_evict_last());
    } else {
      ptx::bulk_store(to, shared, 512);
    }
    ptx::bulk_commit();
    ptx::bulk_add_float(sums, reinterpret_cast<const float*>(shared), 512);
    ptx::bulk_commit();
    ptx::bulk_wait<1>();
    ptx::bulk_wait_read<0>();
    ptx::bulk_wait<0>();
  }
#endif
}

template <bool kHinted>
std::string check_bulk() {
  std::vector<float> from(128), stored(128), start(128), added(128);
  for (int i = 0; i < 128; ++i) {
    from[i] = static_cast<float>(i * 7 % 31);
    stored[i] = from[i] + 1;
    start[i] = static_cast<float>(i);
    added[i] = start[i] + stored[i];
  }
  DeviceArray<float> device_from(from), to(std::vector<float>(128)), sums(start);
  require(launch(one_block(128, 520), bulk_kernel<kHinted>, device_from.data(), to.data(), sums.data()));
  finish();
  const std::string difference = first_difference(to.values(), stored, 128);
  return difference.empty() ? first_difference(sums.values(), added, 128) : difference;
}

// Two blocks. Block 0 sends 256 bytes of `from` to both, and block 1 then copies the first 128 of them over the last
// 128 of block 0. to [2 blocks, 64].
__global__ void bulk_cluster_kernel(const uint32_t* from, uint32_t* to) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(shared + 256);
  const uint32_t rank = ptx::cluster_rank();
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_init(barrier + 1, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_bytes(barrier, 256);
    if (rank == 0) ptx::mbarrier_arrive_expect_bytes(barrier + 1, 128);
  }
  ptx::cluster_sync();
  if (rank == 0 && threadIdx.x == 0) ptx::bulk_load_multicast(shared, from, 256, barrier, 3);
  ptx::mbarrier_wait(barrier, 0);
  ptx::cluster_sync();
  if (rank == 1 && threadIdx.x == 0) {
    ptx::bulk_copy_to_block(ptx::cluster_address(shared + 128, 0), shared, 128, ptx::cluster_address(barrier + 1, 0));
  }
  if (rank == 0) ptx::mbarrier_wait(barrier + 1, 0);
  to[64 * rank + threadIdx.x] = reinterpret_cast<const uint32_t*>(shared)[threadIdx.x];
  ptx::cluster_sync();
#endif
}

std::string check_bulk_cluster() {
  std::vector<uint32_t> from(64), expected(128);
  for (uint32_t i = 0; i < 64; ++i) from[i] = i * i;
  for (uint32_t i = 0; i < 64; ++i) {
    expected[i] = from[i % 32];
    expected[64 + i] = from[i];
  }
  DeviceArray<uint32_t> device_from(from), to(std::vector<uint32_t>(128));
  LaunchConfig config = one_block(64, 272);
  config.grid = dim3(2);
  config.cluster = dim3(2);
  require(launch(config, bulk_cluster_kernel, device_from.data(), to.data()));
  finish();
  return first_difference(to.values(), expected, 64);
}

// Boxes of a tensor of 16-bit (loads, stores) or float (sums) elements.
template <class T, int kRank, Swizzle kSwizzle>
struct Tensor {
  int64_t sizes[kRank], box[kRank], at[kRank];
  std::vector<T> elements;

  Tensor() {
    constexpr int per_row = (kSwizzle == Swizzle::kNone ? 64 : row_bytes(kSwizzle)) / static_cast<int>(sizeof(T));
    // The box starts before the tensor in the last dimension, and ends after it in dimension 1.
    constexpr int64_t all_sizes[5] = {3 * per_row, 21, 5, 4, 3}, all_boxes[5] = {per_row, 16, 2, 2, 2};
    constexpr int64_t all_starts[5] = {per_row + 8, 11, 1, 1, 1};
    int64_t count = 1;
    for (int i = 0; i < kRank; ++i) {
      sizes[i] = all_sizes[i];
      box[i] = all_boxes[i];
      at[i] = i == kRank - 1 && i > 1 ? -1 : all_starts[i];
      count *= sizes[i];
    }
    for (int64_t i = 0; i < count; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        elements.push_back(static_cast<float>(i % 1000));
      } else {
        elements.push_back(static_cast<T>(i * 7 + 1));
      }
    }
  }
  int64_t box_count() const {
    int64_t count = 1;
    for (int i = 0; i < kRank; ++i) count *= box[i];
    return count;
  }
  // The position in `elements` of box element `i`, or -1 outside of the tensor.
  int64_t position(int64_t i) const {
    int64_t result = 0, stride = 1;
    bool inside = true;
    for (int d = 0; d < kRank; ++d) {
      const int64_t index = at[d] + i % box[d];
      i /= box[d];
      inside = inside && index >= 0 && index < sizes[d];
      result += index * stride;
      stride *= sizes[d];
    }
    return inside ? result : -1;
  }
  // Where box element `i` lies in shared memory.
  int64_t shared_position(int64_t i) const {
    return swizzled<kSwizzle>(static_cast<uint32_t>(i * sizeof(T))) / sizeof(T);
  }
  TensorMap map(DType dtype, const void* address) const {
    TensorShape shape;
    shape.address = address;
    shape.dtype = dtype;
    shape.rank = kRank;
    shape.swizzle = kSwizzle;
    uint64_t stride = sizeof(T);
    for (int i = 0; i < kRank; ++i) {
      shape.sizes[i] = static_cast<uint64_t>(sizes[i]);
      shape.box[i] = static_cast<uint32_t>(box[i]);
      shape.strides[i] = stride;
      stride *= shape.sizes[i];
    }
    TensorMap result;
    if (!make_tensor_map(shape, &result)) throw std::runtime_error("the driver refuses the tensor map");
    return result;
  }
};

template <int kRank>
struct Coordinates {
  int32_t at[kRank];
};
template <class T, int kRank, Swizzle kSwizzle>
Coordinates<kRank> start(const Tensor<T, kRank, kSwizzle>& tensor) {
  Coordinates<kRank> result;
  for (int i = 0; i < kRank; ++i) result.at[i] = static_cast<int32_t>(tensor.at[i]);
  return result;
}

constexpr uint32_t kBarrierAt = 64 * 1024;

// The box as it lies in shared memory, of each block. Multicast: block 0 loads for both.
enum class Load { kPlain, kHinted, kMulticast };
template <int kRank, Load kLoad>
__global__ void tensor_load_kernel(const __grid_constant__ TensorMap map, Coordinates<kRank> coordinates, uint16_t* to,
                                   int count) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(shared + kBarrierAt);
  const uint32_t rank = kLoad == Load::kMulticast ? ptx::cluster_rank() : 0;
  if (threadIdx.x == 0) {
    ptx::tensor_prefetch_map(&map);
    ptx::mbarrier_init(barrier, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_bytes(barrier, 2 * count);
  }
  if constexpr (kLoad == Load::kMulticast) ptx::cluster_sync();
  if (threadIdx.x == 0 && rank == 0) {
    const auto& at = coordinates.at;
    if constexpr (kLoad == Load::kPlain) {
      ptx::tensor_load(shared, &map, at, barrier);
    } else if constexpr (kLoad == Load::kHinted) {
      ptx::tensor_load_hinted(shared, &map, at, barrier, ptx::policy_evict_last());
    } else {
      ptx::tensor_load_multicast(shared, &map, at, barrier, 3, ptx::policy_evict_last());
    }
  }
  __syncthreads();
  ptx::mbarrier_wait(barrier, 0);
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    to[rank * count + i] = reinterpret_cast<const uint16_t*>(shared)[i];
  }
  if constexpr (kLoad == Load::kMulticast) ptx::cluster_sync();
#endif
}

template <int kRank, Swizzle kSwizzle, Load kLoad>
std::string check_tensor_load() {
  const Tensor<uint16_t, kRank, kSwizzle> tensor;
  constexpr int blocks = kLoad == Load::kMulticast ? 2 : 1;
  const int64_t count = tensor.box_count();
  std::vector<uint16_t> expected(blocks * count);
  for (int64_t i = 0; i < blocks * count; ++i) {
    const int64_t position = tensor.position(i % count);
    expected[i / count * count + tensor.shared_position(i % count)] = position < 0 ? 0 : tensor.elements[position];
  }
  DeviceArray<uint16_t> from(tensor.elements), to(std::vector<uint16_t>(blocks * count));
  LaunchConfig config = one_block(128, kBarrierAt + 8);
  config.grid = dim3(blocks);
  config.cluster = dim3(blocks);
  require(launch(config, tensor_load_kernel<kRank, kLoad>, tensor.map(DType::kBFloat16, from.data()), start(tensor),
                 to.data(), static_cast<int>(count)));
  finish();
  return first_difference(to.values(), expected, static_cast<int>(tensor.box[0]));
}

// Element i of shared memory is i; the box goes to the tensor, in place of what is there or added to it.
template <int kRank, bool kAdd>
__global__ void tensor_store_kernel(const __grid_constant__ TensorMap map, Coordinates<kRank> coordinates, int count) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  float* const shared = reinterpret_cast<float*>(ptx::smem());
  for (int i = threadIdx.x; i < count; i += blockDim.x) shared[i] = static_cast<float>(i);
  ptx::fence_proxy_async_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto& at = coordinates.at;
    if constexpr (kAdd) {
      ptx::tensor_add(&map, at, shared);
    } else {
      ptx::tensor_store(&map, at, shared);
    }
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
  }
#endif
}

template <int kRank, Swizzle kSwizzle, bool kAdd>
std::string check_tensor_store() {
  const Tensor<float, kRank, kSwizzle> tensor;
  std::vector<float> expected = tensor.elements;
  for (int64_t i = 0; i < tensor.box_count(); ++i) {
    const int64_t position = tensor.position(i);
    if (position < 0) continue;
    const float value = static_cast<float>(tensor.shared_position(i));
    expected[position] = kAdd ? expected[position] + value : value;
  }
  DeviceArray<float> to(tensor.elements);
  require(launch(one_block(128, tensor.box_count() * 4), tensor_store_kernel<kRank, kAdd>,
                 tensor.map(DType::kFloat32, to.data()), start(tensor), static_cast<int>(tensor.box_count())));
  finish();
  return first_difference(to.values(), expected, static_cast<int>(tensor.sizes[0]));
}

}  // namespace

void add_copy_checks(std::vector<Check>& checks) {
  constexpr Swizzle none = Swizzle::kNone, s32 = Swizzle::k32, s64 = Swizzle::k64, s128 = Swizzle::k128;
  checks.push_back({"tensor_load.2d.swizzle128", 90, 0, check_tensor_load<2, s128, Load::kPlain>});
  checks.push_back({"tensor_load.2d.swizzle128.multicast", 90, 0, check_tensor_load<2, s128, Load::kMulticast>});
  checks.push_back({"tensor_load.2d.swizzle128.hinted", 90, 0, check_tensor_load<2, s128, Load::kHinted>});
  checks.push_back({"tensor_load.3d.swizzle128", 90, 1, check_tensor_load<3, s128, Load::kPlain>});
  checks.push_back({"tensor_load.3d.swizzle64.hinted", 90, 2, check_tensor_load<3, s64, Load::kHinted>});
  checks.push_back({"tensor_load.3d.swizzle32.multicast", 90, 2, check_tensor_load<3, s32, Load::kMulticast>});
  checks.push_back({"tensor_load.4d.swizzle64", 90, 3, check_tensor_load<4, s64, Load::kPlain>});
  checks.push_back({"tensor_load.4d.swizzle32.hinted", 90, 3, check_tensor_load<4, s32, Load::kHinted>});
  checks.push_back({"tensor_load.4d.multicast", 90, 3, check_tensor_load<4, none, Load::kMulticast>});
  checks.push_back({"tensor_load.5d", 90, 4, check_tensor_load<5, none, Load::kPlain>});
  checks.push_back({"tensor_load.5d.swizzle128.hinted", 90, 4, check_tensor_load<5, s128, Load::kHinted>});
  checks.push_back({"tensor_load.5d.swizzle64.multicast", 90, 4, check_tensor_load<5, s64, Load::kMulticast>});
  checks.push_back({"tensor_store.2d.swizzle128", 90, 0, check_tensor_store<2, s128, false>});
  checks.push_back({"tensor_store.2d", 90, 1, check_tensor_store<2, none, false>});
  checks.push_back({"tensor_store.3d.swizzle64", 90, 3, check_tensor_store<3, s64, false>});
  checks.push_back({"tensor_store.4d.swizzle32", 90, 4, check_tensor_store<4, s32, false>});
  checks.push_back({"tensor_store.5d", 90, 4, check_tensor_store<5, none, false>});
  checks.push_back({"tensor_add.2d.swizzle128", 90, 2, check_tensor_store<2, s128, true>});
  checks.push_back({"tensor_add.3d", 90, 4, check_tensor_store<3, none, true>});
  checks.push_back({"tensor_add.4d.swizzle64", 90, 4, check_tensor_store<4, s64, true>});
  checks.push_back({"tensor_add.5d.swizzle32", 90, 4, check_tensor_store<5, s32, true>});
  checks.push_back({"bulk", 90, 0, check_bulk<false>});
  checks.push_back({"bulk.hinted", 90, 1, check_bulk<true>});
  checks.push_back({"bulk.cluster", 90, 1, check_bulk_cluster});
}

}  // namespace sparsecore::conformance

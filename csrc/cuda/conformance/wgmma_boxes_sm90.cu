// wgmma on what tensor copies bring: operands whose rows are tokens, as boxes of 64 columns in the 128-byte swizzle.
//
//   d[i, j] = sum over tokens t of a[t, i] b[t, j]        both MN-major, b from n / 64 boxes that begin anywhere
//   d[i, j] = sum over inputs t of a[t, i] b[j, t]        a MN-major, b K-major, one box of n rows
//
// Boxes begin at the first row of their tensor and end behind its last.
#include <algorithm>

#include "cuda/common/bulk_copy.h"
#include "cuda/common/fragments.h"
#include "cuda/common/mbarrier.h"
#include "cuda/common/shared_memory.h"
#include "cuda/common/wgmma.h"
#include "cuda/conformance/check.h"

namespace sparsecore::conformance {
namespace {

template <class T, int kN, int kDepth, Major kOrderB>
struct Case {
  using Element = T;
  static constexpr int n = kN, depth = kDepth;
  static constexpr Major order_b = kOrderB;
  static constexpr int boxes = kOrderB == Major::kMN ? kN / 64 : 1, box_rows = kOrderB == Major::kMN ? kDepth : kN;
  static constexpr int a_bytes = kDepth * 128, box_bytes = box_rows * 128;
  static constexpr int barrier_at = a_bytes + boxes * box_bytes;
};
struct Columns {
  int32_t of_a, of_b[4];
};

// d [64, n].
template <class C>
__global__ void __launch_bounds__(128, 1)
    boxes_kernel(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, Columns columns, float* d) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  char* const shared = ptx::smem();
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(shared + C::barrier_at);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(barrier, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_bytes(barrier, C::barrier_at);
    const int32_t at_a[2] = {columns.of_a, 0};
    ptx::tensor_load(shared, &a, at_a, barrier);
    for (int box = 0; box < C::boxes; ++box) {
      const int32_t at_b[2] = {columns.of_b[box], 0};
      ptx::tensor_load(shared + C::a_bytes + box * C::box_bytes, &b, at_b, barrier);
    }
  }
  __syncthreads();
  ptx::mbarrier_wait(barrier, 0);
  constexpr bool transposed = C::order_b == Major::kMN;
  const uint64_t a_matrix = matrix_descriptor(ptx::shared_address(shared), Swizzle::k128, C::a_bytes, 1024);
  const uint32_t b_address = ptx::shared_address(shared + C::a_bytes);
  const uint64_t b_matrix = transposed ? matrix_descriptor(b_address, Swizzle::k128, C::box_bytes, 1024)
                                       : k_major_descriptor(b_address, Swizzle::k128);
  float sums[C::n / 2];
  for (int i = 0; i < C::n / 2; ++i) sums[i] = 0;
  ptx::wgmma_fence(sums);
  // 16 rows of 128 bytes, or 32 bytes of a row.
  for (int step = 0; step < C::depth / 16; ++step)
    ptx::wgmma<typename C::Element, Major::kMN, C::order_b>(sums, a_matrix + step * 128,
                                                            b_matrix + step * (transposed ? 128 : 2), true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>(sums);
  for (int i = 0; i < C::n / 2; ++i) {
    const fragments::Place at = fragments::c_place(threadIdx.x % 32, i);
    d[(threadIdx.x / 32 * 16 + at.row) * C::n + at.column] = sums[i];
  }
#endif
}

template <class T>
TensorMap map_of(const Matrix<T>& matrix, const T* data, int box_rows) {
  TensorShape shape;
  shape.address = data;
  shape.dtype = std::is_same_v<T, BFloat16> ? DType::kBFloat16 : DType::kFloat16;
  shape.sizes[0] = static_cast<uint64_t>(matrix.columns);
  shape.sizes[1] = static_cast<uint64_t>(matrix.rows);
  shape.strides[1] = static_cast<uint64_t>(2 * matrix.columns);
  shape.box[0] = 64;
  shape.box[1] = static_cast<uint32_t>(box_rows);
  TensorMap result;
  if (!make_tensor_map(shape, &result)) throw std::runtime_error("the driver refuses the tensor map");
  return result;
}

template <class C>
std::string check_boxes() {
  using T = typename C::Element;
  constexpr bool transposed = C::order_b == Major::kMN;
  std::mt19937 random(C::n + C::depth);
  constexpr int tokens = C::depth - 5;
  const Matrix<T> a(tokens, 200, random), b(transposed ? tokens : C::n - 3, transposed ? 360 : C::depth, random);
  const Columns columns = {72, {transposed ? 312 : 0, 8, 120, 56}};  // the first one of b ends behind its tensor
  const auto element = [](const Matrix<T>& matrix, int row, int column) {
    return row < matrix.rows && column < matrix.columns ? matrix.at(row, column) : 0;
  };
  std::vector<float> expected(64 * C::n);
  for (int i = 0; i < 64; ++i)
    for (int j = 0; j < C::n; ++j)
      for (int t = 0; t < C::depth; ++t) {
        const int of_b = transposed ? element(b, t, columns.of_b[j / 64] + j % 64) : element(b, j, t);
        expected[i * C::n + j] += static_cast<float>(element(a, t, columns.of_a + i) * of_b);
      }
  DeviceArray<T> device_a(a.elements), device_b(b.elements);
  DeviceArray<float> d(std::vector<float>(64 * C::n, -1.0f));
  require(launch(one_block(128, C::barrier_at + 8), boxes_kernel<C>, map_of(a, device_a.data(), C::depth),
                 map_of(b, device_b.data(), C::box_rows), columns, d.data()));
  finish();
  return first_difference(d.values(), expected, C::n);
}

}  // namespace

void add_wgmma_box_checks(std::vector<Check>& checks) {
  constexpr Major mn = Major::kMN, k = Major::kK;
  checks.push_back({"wgmma.bf16.boxes.32.n256", 90, 1, check_boxes<Case<BFloat16, 256, 32, mn>>});
  checks.push_back({"wgmma.bf16.boxes.64.n256", 90, 1, check_boxes<Case<BFloat16, 256, 64, mn>>});
  checks.push_back({"wgmma.bf16.boxes.32.n128", 90, 2, check_boxes<Case<BFloat16, 128, 32, mn>>});
  checks.push_back({"wgmma.bf16.boxes.64.n128", 90, 2, check_boxes<Case<BFloat16, 128, 64, mn>>});
  checks.push_back({"wgmma.bf16.boxes.32.n64", 90, 2, check_boxes<Case<BFloat16, 64, 32, mn>>});
  checks.push_back({"wgmma.f16.boxes.32.n256", 90, 2, check_boxes<Case<Float16, 256, 32, mn>>});
  checks.push_back({"wgmma.bf16.boxes.64.n128.a_transposed", 90, 1, check_boxes<Case<BFloat16, 128, 64, k>>});
  checks.push_back({"wgmma.f16.boxes.64.n128.a_transposed", 90, 2, check_boxes<Case<Float16, 128, 64, k>>});
}

}  // namespace sparsecore::conformance

// wgmma and wgmma.sp: every element type, number of columns, source of A, swizzle, order and selector.
//
// One warpgroup. A is 64 x k and B n x k in shared memory, stored by the formulas of matrix_descriptor.h; k is as many
// steps as fit a row of the swizzle, so that the start address moves inside the swizzled tile.
#include "cuda/common/fence.h"
#include "cuda/common/fragments.h"
#include "cuda/common/shared_memory.h"
#include "cuda/common/swizzle.h"
#include "cuda/common/wgmma.h"
#include "cuda/common/wgmma_sparse.h"
#include "cuda/conformance/mma_check.h"

namespace sparsecore::conformance {
namespace {

enum class A { kShared, kRegisters };
constexpr int kDense = -1;  // in place of a selector

template <class T, int kN, A kSource, int kSelectorOrDense = kDense, Swizzle kTile = Swizzle::k128,
          Major kOrderA = Major::kK, Major kOrderB = Major::kK>
struct Case {
  using Element = T;
  static constexpr int n = kN;
  static constexpr bool registers = kSource == A::kRegisters, sparse = kSelectorOrDense != kDense;
  static constexpr int selector = sparse ? kSelectorOrDense : 0;
  static constexpr Swizzle swizzle = kTile;
  static constexpr Major order_a = kOrderA, order_b = kOrderB;
  static constexpr int stored = fragments::kStoredColumns<T>;         // of A, per step
  static constexpr int depth = sparse ? 2 * stored : stored;          // of B, per step
  static constexpr int b_step = depth * static_cast<int>(sizeof(T));  // bytes of k
  static constexpr int steps = row_bytes(kTile) / b_step > 1 ? row_bytes(kTile) / b_step : 1;
};

// Where element (row, k) lies, and the descriptor of step s, of a matrix of `rows` rows.
template <class T, Swizzle kSwizzle, Major kOrder>
struct Layout {
  static constexpr uint32_t span = kSwizzle == Swizzle::kNone ? 16 : row_bytes(kSwizzle);
  int k_bytes;  // of a whole row

  SC_DEVICE uint32_t offset(uint32_t row, uint32_t k) const {
    const uint32_t chunks = k_bytes / 16, byte = k * sizeof(T);
    if (kOrder == Major::kK && kSwizzle == Swizzle::kNone) {
      return row / 8 * chunks * 128 + byte / 16 * 128 + row % 8 * 16 + byte % 16;
    } else if (kOrder == Major::kK) {
      return swizzled<kSwizzle>(row * span + byte);
    } else {
      const uint32_t eights = k_bytes / 16;  // groups of 8 k
      return swizzled<kSwizzle>((row * 2 / span * eights + k / 8) * 8 * span + k % 8 * span + row * 2 % span);
    }
  }
  SC_DEVICE uint64_t descriptor(uint32_t address, uint32_t first_k) const {
    const uint32_t eights = k_bytes / 16;
    if (kOrder == Major::kK && kSwizzle == Swizzle::kNone) {
      return matrix_descriptor(address + first_k * sizeof(T) / 16 * 128, kSwizzle, 128, eights * 128);
    } else if (kOrder == Major::kK) {
      return k_major_descriptor(address + first_k * sizeof(T), kSwizzle);
    } else if (kSwizzle == Swizzle::kNone) {
      return matrix_descriptor(address + first_k / 8 * 128, kSwizzle, 128, eights * 128);
    } else {
      return matrix_descriptor(address + first_k / 8 * 8 * span, kSwizzle, eights * 8 * span, 8 * span);
    }
  }
};

constexpr uint32_t kOffsetB = 16 * 1024;

// a [64, steps * stored], metadata [steps, 4 warps, 32 lanes], b [n, steps * depth], d [64, n], all row major.
template <class C>
__global__ void __launch_bounds__(128, 1)
    wgmma_kernel(const typename C::Element* a, const uint32_t* metadata, const typename C::Element* b,
                 Accumulator<typename C::Element>* d) {
#if SC_EMULATED || __CUDA_ARCH__ >= 900
  using T = typename C::Element;
  constexpr int a_width = C::steps * C::stored, b_width = C::steps * C::depth;
  const Layout<T, C::swizzle, C::order_a> a_layout{a_width * static_cast<int>(sizeof(T))};
  const Layout<T, C::swizzle, C::order_b> b_layout{b_width * static_cast<int>(sizeof(T))};
  char* const shared = ptx::smem();
  for (int i = threadIdx.x; i < 64 * a_width; i += 128) {
    *reinterpret_cast<T*>(shared + a_layout.offset(i / a_width, i % a_width)) = a[i];
  }
  for (int i = threadIdx.x; i < C::n * b_width; i += 128) {
    *reinterpret_cast<T*>(shared + kOffsetB + b_layout.offset(i / b_width, i % b_width)) = b[i];
  }
  ptx::fence_proxy_async_shared();
  __syncthreads();

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t a_registers[C::steps][4], words[C::steps];
  for (int s = 0; s < C::steps; ++s) {
    load_fragment(
        a_registers[s], [=](int r, int e) { return fragments::a_place<T>({lane, r, e}); },
        a + 16 * warp * a_width + s * C::stored, a_width, false);
    words[s] = C::sparse ? metadata[(4 * s + warp) * 32 + lane] : 0;
  }
  Accumulator<T> sums[C::n / 2];
  for (int i = 0; i < C::n / 2; ++i) {
    const fragments::Place at = fragments::c_place(lane, i);
    sums[i] = d[(16 * warp + at.row) * C::n + at.column];
  }
  ptx::wgmma_fence(sums);
  for (int s = 0; s < C::steps; ++s) ptx::wgmma_fence(a_registers[s]);
  for (int s = 0; s < C::steps; ++s) {
    const uint64_t a_matrix = a_layout.descriptor(ptx::shared_address(shared), s * C::stored);
    const uint64_t b_matrix = b_layout.descriptor(ptx::shared_address(shared + kOffsetB), s * C::depth);
    if constexpr (C::sparse && C::registers) {
      ptx::wgmma_sparse<T, C::selector, C::order_b>(sums, a_registers[s], b_matrix, words[s], true);
    } else if constexpr (C::sparse) {
      ptx::wgmma_sparse<T, C::selector, C::order_a, C::order_b>(sums, a_matrix, b_matrix, words[s], true);
    } else if constexpr (C::registers) {
      ptx::wgmma<T, C::order_b>(sums, a_registers[s], b_matrix, true);
    } else {
      ptx::wgmma<T, C::order_a, C::order_b>(sums, a_matrix, b_matrix, true);
    }
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>(sums);
  for (int i = 0; i < C::n / 2; ++i) {
    const fragments::Place at = fragments::c_place(lane, i);
    d[(16 * warp + at.row) * C::n + at.column] = sums[i];
  }
#endif
}

template <class C>
std::string check_wgmma() {
  using T = typename C::Element;
  std::mt19937 random(C::n + C::steps);
  const SparseMatrix<T> a(64, C::steps * C::stored, random);
  const Matrix<T> b(C::n, C::steps * C::depth, random);
  const auto c = small_sums<Accumulator<T>>(64 * C::n, random);
  std::vector<uint32_t> metadata;
  for (int s = 0; s < C::steps; ++s) {
    for (int warp = 0; warp < 4; ++warp) {
      const std::vector<uint32_t> words = metadata_words(a, 16 * warp, s * C::stored, C::selector);
      metadata.insert(metadata.end(), words.begin(), words.end());
    }
  }
  DeviceArray<T> device_a(a.stored.elements), device_b(b.elements);
  DeviceArray<uint32_t> device_metadata(metadata);
  DeviceArray<Accumulator<T>> device_d(c);
  const size_t shared_bytes = kOffsetB + b.elements.size() * sizeof(T);
  require(launch(one_block(128, shared_bytes), wgmma_kernel<C>, device_a.data(), device_metadata.data(),
                 device_b.data(), device_d.data()));
  finish();
  return first_difference(device_d.values(), C::sparse ? product(a, b, c) : product(a.stored, b, c), C::n);
}

template <class C>
void add(std::vector<Check>& checks, int value, const std::string& detail = "") {
  std::string name = C::sparse ? "wgmma_sparse." : "wgmma.";
  name += type_name<typename C::Element>;
  name += C::registers ? ".registers.n" : ".shared.n";
  name += std::to_string(C::n);
  if (C::sparse && sizeof(typename C::Element) == 2) name += C::selector == 0 ? ".selector0" : ".selector1";
  checks.push_back({name + detail, 90, value, check_wgmma<C>});
}

template <class T>
void add_types(std::vector<Check>& checks, int value) {
  add<Case<T, 128, A::kRegisters, 0>>(checks, value);
  add<Case<T, 64, A::kShared, 0>>(checks, value);
  add<Case<T, 128, A::kRegisters>>(checks, value);
  add<Case<T, 64, A::kShared>>(checks, value);
}

template <int kN>
void add_columns(std::vector<Check>& checks) {
  add<Case<BFloat16, kN, A::kRegisters, 1>>(checks, 1);
  add<Case<BFloat16, kN, A::kShared, 0>>(checks, 1);
  add<Case<BFloat16, kN, A::kShared>>(checks, 1);
}

}  // namespace

void add_wgmma_checks(std::vector<Check>& checks) {
  using T = BFloat16;
  add_types<T>(checks, 0);
  add_columns<256>(checks);
  add_columns<128>(checks);
  add_columns<32>(checks);
  add_columns<16>(checks);
  add_columns<8>(checks);
  add_types<Float16>(checks, 1);
  add_types<int8_t>(checks, 2);
  add_types<Float8E4M3>(checks, 2);
  add_types<Float8E5M2>(checks, 3);
  add<Case<T, 64, A::kShared, kDense, Swizzle::k64>>(checks, 3, ".swizzle64");
  add<Case<T, 64, A::kShared, kDense, Swizzle::k32>>(checks, 3, ".swizzle32");
  add<Case<T, 64, A::kShared, kDense, Swizzle::kNone>>(checks, 3, ".unswizzled");
  add<Case<T, 64, A::kShared, 1, Swizzle::kNone>>(checks, 3, ".unswizzled");
  add<Case<T, 128, A::kRegisters, 0, Swizzle::k128, Major::kK, Major::kMN>>(checks, 2, ".b_transposed");
  add<Case<T, 128, A::kShared, kDense, Swizzle::k128, Major::kMN, Major::kMN>>(checks, 2, ".both_transposed");
  add<Case<T, 256, A::kShared, kDense, Swizzle::k128, Major::kMN, Major::kMN>>(checks, 2, ".both_transposed");
  add<Case<T, 64, A::kShared, kDense, Swizzle::k128, Major::kMN, Major::kMN>>(checks, 2, ".both_transposed");
  add<Case<Float16, 256, A::kShared, kDense, Swizzle::k128, Major::kMN, Major::kMN>>(checks, 2, ".both_transposed");
  add<Case<T, 128, A::kShared, kDense, Swizzle::k128, Major::kMN, Major::kK>>(checks, 2, ".a_transposed");
  add<Case<T, 64, A::kShared, 0, Swizzle::k128, Major::kMN, Major::kK>>(checks, 3, ".a_transposed");
  add<Case<T, 64, A::kShared, kDense, Swizzle::k64, Major::kMN, Major::kMN>>(checks, 4, ".both_transposed.swizzle64");
  add<Case<T, 64, A::kShared, kDense, Swizzle::k32, Major::kMN, Major::kMN>>(checks, 4, ".both_transposed.swizzle32");
  add<Case<T, 64, A::kShared, kDense, Swizzle::kNone, Major::kMN, Major::kMN>>(checks, 4,
                                                                               ".both_transposed.unswizzled");
}

}  // namespace sparsecore::conformance

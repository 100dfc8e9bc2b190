// Our fragment, metadata, swizzle and descriptor formulas, and the emulator's reading of descriptors, against CuTe's
// layouts: somebody else's reading of the same manual, which keeps packers, kernels and emulator from sharing one
// misunderstanding. Host code only; built where the headers of CUTLASS and of the CUDA toolkit are.
#include <cstdint>
#include <cstdio>

// CuTe turns pointers into shared addresses with this, which a host compiler lacks: keep what a 256 KiB window keeps.
#define CUTE_CVTA_GENERIC_TO_SHARED_SUPPORTED 1
#define CUTE_CVTA_GENERIC_TO_SHARED_ACTIVATED 1
inline size_t __cvta_generic_to_shared(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) & 0x3ffff; }

#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <cute/atom/mma_traits_sm90_gmma_sparse.hpp>
#include <cute/swizzle.hpp>
#include <cute/tensor.hpp>

#include "cuda/common/fragments.h"
#include "cuda/common/matrix_descriptor.h"
#include "cuda/common/swizzle.h"
#include "cuda/emulation/instructions/shared_matrix.h"

namespace {

using namespace sparsecore;
namespace gmma = cute::SM90::GMMA;

int64_t compared = 0;
int failures = 0;

void expect(bool right, const char* what, int a, int b) {
  ++compared;
  if (!right && failures++ < 20) std::printf("%s differs at (%d, %d)\n", what, a, b);
}

// CuTe's layouts map (thread, value) to a column-major index; a thread's values are its registers' elements in order.
template <class T, class CuteLayout>
void check_a(const char* what, CuteLayout layout, int rows) {
  constexpr int per_register = fragments::kPerRegister<T>;
  for (int thread = 0; thread < 2 * rows; ++thread) {
    for (int value = 0; value < 4 * per_register; ++value) {
      const fragments::Place at = fragments::a_place<T>({thread % 32, value / per_register, value % per_register});
      expect(layout(thread, value) == at.row + 16 * (thread / 32) + rows * at.column, what, thread, value);
      const fragments::Slot slot = fragments::a_slot<T>(at);
      expect(slot.lane == thread % 32 && slot.reg == value / per_register && slot.element == value % per_register, what,
             thread, value);
    }
  }
}

template <class T, class CuteLayout>
void check_b(const char* what, CuteLayout layout) {
  constexpr int per_register = fragments::kPerRegister<T>;
  for (int lane = 0; lane < 32; ++lane) {
    for (int value = 0; value < 2 * per_register; ++value) {
      const fragments::Place at = fragments::b_place<T>({lane, value / per_register, value % per_register});
      expect(layout(lane, value) == at.column + 8 * at.row, what, lane, value);
      const fragments::Slot slot = fragments::b_slot<T>(at);
      expect(slot.lane == lane && slot.reg == value / per_register && slot.element == value % per_register, what, lane,
             value);
    }
  }
}

template <class CuteLayout>
void check_c(const char* what, CuteLayout layout, int rows, int columns) {
  for (int thread = 0; thread < 2 * rows; ++thread) {
    for (int value = 0; value < columns / 2; ++value) {
      const fragments::Place at = fragments::c_place(thread % 32, value);
      expect(layout(thread, value) == at.row + 16 * (thread / 32) + rows * at.column, what, thread, value);
      const fragments::Slot slot = fragments::c_slot(at);
      expect(slot.lane == thread % 32 && slot.reg == value, what, thread, value);
    }
  }
}

// CuTe's metadata layouts map (thread, value) to the logical element that a word covers, four logical elements to four
// bits. A thread that the selector does not name covers what its partner two lanes away does.
template <class T, class CuteLayout>
void check_metadata(const char* what, CuteLayout layout) {
  constexpr int logical = fragments::kLogicalColumns<T>, stored = fragments::kStoredColumns<T>;
  constexpr int selectors = sizeof(T) == 2 ? 2 : 1;
  for (int row = 0; row < 64; ++row) {
    for (int s = 0; s < stored; ++s) {
      for (int selector = 0; selector < selectors; ++selector) {
        const fragments::MetadataSlot slot = fragments::metadata_slot<T>(row % 16, s, selector);
        expect(fragments::metadata_lane<T>(slot.lane, selector), what, row, s);
        const int thread = slot.lane + 32 * (row / 16);
        const int value = slot.shift / 4 * 4;  // the first logical element of the four that these bits are about
        const int group = s / 2 * 4;
        expect(layout(thread, value) == row + 64 * group, what, row, s);
        expect(slot.shift % 4 == 2 * (s % 2), what, row, s);
      }
    }
  }
  expect(cute::size<1>(layout) == 32 && cute::size<0>(layout) == 128 && logical == 2 * stored, what, 0, 0);
}

template <Swizzle kSwizzle, class CuteSwizzle>
void check_swizzle(const char* what, CuteSwizzle swizzle) {
  for (uint32_t offset = 0; offset < 8192; ++offset) {
    expect(swizzled<kSwizzle>(offset) == static_cast<uint32_t>(swizzle(offset)), what, static_cast<int>(offset), 0);
    expect(cuda_emulation::swizzled_address(offset, kSwizzle == Swizzle::kNone ? 16 : row_bytes(kSwizzle)) ==
               static_cast<uint32_t>(swizzle(offset)),
           what, static_cast<int>(offset), 1);
  }
}

alignas(1024) unsigned char memory[64 * 1024];

// One instruction's operand after another along k. `ours(step)` is our descriptor of it, of which the bits that
// `matter` are CuTe's too. CuTe's tensor says where each element lies, and its descriptor is decoded by the emulator.
template <class T, cute::SM90::GMMA::Major kMajor, int kRows, int kStep, int kSteps, class Atom, class Order,
          class Ours>
void check_descriptor(const char* what, Atom atom, Order order, Ours ours, uint64_t matter = ~uint64_t{0}) {
  using namespace cute;
  const auto layout = tile_to_shape(atom, Shape<Int<kRows>, Int<kStep * kSteps>>{}, order);
  const auto tensor = make_tensor(make_smem_ptr(reinterpret_cast<T*>(memory)), layout);
  for_each(make_int_sequence<kSteps>{}, [&](auto step) {
    const auto operand = local_tile(tensor, Shape<Int<kRows>, Int<kStep>>{}, make_coord(Int<0>{}, step));
    const uint64_t theirs = gmma::make_gmma_desc<kMajor>(operand).desc_;
    const uint32_t base = static_cast<uint32_t>(__cvta_generic_to_shared(memory));
    expect(((theirs ^ ours(base, static_cast<int>(step))) & matter) == 0, what, static_cast<int>(step), -1);
    const cuda_emulation::MatrixDescriptor decoded = cuda_emulation::decode_descriptor(theirs, what);
    for (int row = 0; row < kRows; ++row) {
      for (int k = 0; k < kStep; ++k) {
        const uint32_t expected = static_cast<uint32_t>(__cvta_generic_to_shared(&operand(row, k)));
        const uint32_t got = kMajor == gmma::Major::K ? cuda_emulation::k_major_address(decoded, row, k * sizeof(T))
                                                      : cuda_emulation::mn_major_address(decoded, row, k);
        expect(got == expected, what, row, k);
      }
    }
  });
}

using KFirst = cute::Step<cute::_2, cute::_1>;

template <class T, int kStep>
void check_k_major(const char* what) {
  constexpr int bytes = kStep * static_cast<int>(sizeof(T));
  const auto swizzled_rows = [](Swizzle swizzle) {
    return [=](uint32_t base, int step) { return k_major_descriptor(base + step * bytes, swizzle); };
  };
  check_descriptor<T, gmma::Major::K, 64, kStep, 128 / bytes>(what, gmma::Layout_K_SW128_Atom<T>{}, KFirst{},
                                                              swizzled_rows(Swizzle::k128));
  if constexpr (bytes <= 64) {
    check_descriptor<T, gmma::Major::K, 64, kStep, 64 / bytes>(what, gmma::Layout_K_SW64_Atom<T>{}, KFirst{},
                                                               swizzled_rows(Swizzle::k64));
  }
  if constexpr (bytes <= 32) {
    check_descriptor<T, gmma::Major::K, 64, kStep, 1>(what, gmma::Layout_K_SW32_Atom<T>{}, KFirst{},
                                                      swizzled_rows(Swizzle::k32));
  }
  check_descriptor<T, gmma::Major::K, 64, kStep, 2>(
      what, gmma::Layout_K_INTER_Atom<T>{}, KFirst{}, [](uint32_t base, int step) {
        return matrix_descriptor(base + step * bytes / 16 * 128, Swizzle::kNone, 128, 2 * bytes / 16 * 128);
      });
}

template <class T, int kStep>
void check_mn_major(const char* what) {
  constexpr int steps = 2;
  const auto blocks = [](Swizzle swizzle) {
    return [=](uint32_t base, int step) {
      const uint32_t block = 8 * row_bytes(swizzle);  // 8 k of one line each
      return matrix_descriptor(base + step * kStep / 8 * block, swizzle, steps * kStep / 8 * block, block);
    };
  };
  check_descriptor<T, gmma::Major::MN, 128, kStep, steps>(what, gmma::Layout_MN_SW128_Atom<T>{}, KFirst{},
                                                          blocks(Swizzle::k128));
  check_descriptor<T, gmma::Major::MN, 128, kStep, steps>(what, gmma::Layout_MN_SW64_Atom<T>{}, KFirst{},
                                                          blocks(Swizzle::k64));
  check_descriptor<T, gmma::Major::MN, 128, kStep, steps>(what, gmma::Layout_MN_SW32_Atom<T>{}, KFirst{},
                                                          blocks(Swizzle::k32));
  check_descriptor<T, gmma::Major::MN, 128, kStep, steps>(
      what, gmma::Layout_MN_INTER_Atom<T>{}, KFirst{}, [](uint32_t base, int step) {
        return matrix_descriptor(base + step * kStep / 8 * 128, Swizzle::kNone, 128, steps * kStep / 8 * 128);
      });
}

// Boxes of a tensor copy as an MN-major operand: kTokens rows of 64 columns in the 128-byte swizzle, the boxes of the
// next 64 columns behind it. Where the copy engine leaves an element is where CuTe's tensor has it, and descriptors say
// so. Those of a single box have no use for the distance to the next one, for which CuTe writes zero.
template <int kColumns, int kTokens>
void check_boxes(const char* what) {
  using T = cute::bfloat16_t;
  constexpr int box = kTokens * row_bytes(Swizzle::k128), steps = kTokens / 16;
  const auto ours = [](uint32_t base, int step) {
    return matrix_descriptor(base + step * 2048, Swizzle::k128, box, 1024);
  };
  const uint64_t leading = uint64_t{0x3fff} << 16;
  check_descriptor<T, gmma::Major::MN, kColumns, 16, steps>(what, gmma::Layout_MN_SW128_Atom<T>{}, KFirst{}, ours,
                                                            kColumns > 64 ? ~uint64_t{0} : ~leading);
  const auto layout = cute::tile_to_shape(gmma::Layout_MN_SW128_Atom<T>{},
                                          cute::Shape<cute::Int<kColumns>, cute::Int<kTokens>>{}, KFirst{});
  const auto tensor = cute::make_tensor(cute::make_smem_ptr(reinterpret_cast<T*>(memory)), layout);
  for (int column = 0; column < kColumns; ++column)
    for (int token = 0; token < kTokens; ++token)
      expect(reinterpret_cast<const unsigned char*>(&tensor(column, token)) ==
                 memory + column / 64 * box + swizzled<Swizzle::k128>(token, column % 64 * 2),
             what, column, token);
}

}  // namespace

int main() {
  using cute::MMA_Traits;
  using Bf16Mma = MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;
  using Int8Mma = MMA_Traits<cute::SM80_16x8x32_S32S8S8S32_TN>;
  using Tf32Mma = MMA_Traits<cute::SM80_16x8x8_F32TF32TF32F32_TN>;
  check_a<uint16_t>("A of mma, 16 bits", Bf16Mma::ALayout{}, 16);
  check_a<uint8_t>("A of mma, 8 bits", Int8Mma::ALayout{}, 16);
  check_a<uint32_t>("A of mma, 32 bits", Tf32Mma::ALayout{}, 16);
  check_b<uint16_t>("B of mma, 16 bits", Bf16Mma::BLayout{});
  check_b<uint8_t>("B of mma, 8 bits", Int8Mma::BLayout{});
  check_b<uint32_t>("B of mma, 32 bits", Tf32Mma::BLayout{});
  check_c("C of mma", Bf16Mma::CLayout{}, 16, 8);
  check_c("C of mma, 8 bits", Int8Mma::CLayout{}, 16, 8);
  check_a<uint16_t>("A of wgmma, 16 bits", gmma::ALayout_64x16{}, 64);
  check_a<uint8_t>("A of wgmma, 8 bits", gmma::ALayout_64x32{}, 64);
  check_a<uint32_t>("A of wgmma, 32 bits", gmma::ALayout_64x8{}, 64);
  check_c("D of wgmma, n = 8", gmma::CLayout_64x8{}, 64, 8);
  check_c("D of wgmma, n = 256", gmma::CLayout_64x256{}, 64, 256);
  check_metadata<uint16_t>("metadata, 16 bits", gmma::ELayout_64x32{});
  check_metadata<uint8_t>("metadata, 8 bits", gmma::ELayout_64x64{});
  check_swizzle<Swizzle::k128>("128-byte swizzle", cute::Swizzle<3, 4, 3>{});
  check_swizzle<Swizzle::k64>("64-byte swizzle", cute::Swizzle<2, 4, 3>{});
  check_swizzle<Swizzle::k32>("32-byte swizzle", cute::Swizzle<1, 4, 3>{});
  check_swizzle<Swizzle::kNone>("no swizzle", cute::Swizzle<0, 4, 3>{});
  check_k_major<cute::bfloat16_t, 16>("K-major operand, 16 bits");
  check_k_major<cute::bfloat16_t, 32>("K-major B of a sparse product, 16 bits");
  check_k_major<int8_t, 32>("K-major operand, 8 bits");
  check_k_major<int8_t, 64>("K-major B of a sparse product, 8 bits");
  check_mn_major<cute::bfloat16_t, 16>("MN-major operand");
  check_mn_major<cute::bfloat16_t, 32>("MN-major B of a sparse product");
  check_boxes<64, 32>("one box of 32 tokens");
  check_boxes<128, 32>("two boxes of 32 tokens");
  check_boxes<256, 32>("four boxes of 32 tokens");
  check_boxes<64, 64>("one box of 64 tokens");
  check_boxes<128, 64>("two boxes of 64 tokens");
  check_boxes<256, 64>("four boxes of 64 tokens");
  std::printf("%lld comparisons with CuTe, %d differ\n", static_cast<long long>(compared), failures);
  return failures > 0;
}

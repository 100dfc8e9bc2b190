#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cpu/arch.h"
#include "sparsecore/cpu.h"

#if defined(SPARSECORE_X86)
#include <cpuid.h>
#elif defined(SPARSECORE_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace sparsecore {
namespace {

struct Level {
  Isa isa;
  const char* name;
};

constexpr Level kLevels[] = {
    {Isa::kScalar, "scalar"},
    {Isa::kAvx2, "avx2"},
    {Isa::kAvx512, "avx512"},
    {Isa::kAvx512Vnni, "avx512_vnni"},
    {Isa::kAvx512Bf16, "avx512_bf16"},
    {Isa::kAvx512Fp16, "avx512_fp16"},
    {Isa::kNeon, "neon"},
    {Isa::kNeonDot, "neon_dot"},
    {Isa::kNeonI8mm, "neon_i8mm"},
    {Isa::kWasmSimd, "wasm"},
    {Isa::kWasmRelaxed, "wasm_relaxed"},
};

// Levels are numbered in tens per architecture; level 0 belongs to all.
int architecture(Isa isa) { return static_cast<int>(isa) / 10; }

bool included(Isa wanted, Isa best) {
  return wanted == Isa::kScalar || (architecture(wanted) == architecture(best) && wanted <= best);
}

#if defined(SPARSECORE_X86)
uint64_t extended_control_register() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

Isa detect() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::kScalar;
  const bool fma = c & bit_FMA, f16c = c & bit_F16C, saves_state = c & bit_OSXSAVE;
  if (!fma || !f16c || !saves_state) return Isa::kScalar;
  const uint64_t state = extended_control_register();
  if ((state & 0x6) != 0x6) return Isa::kScalar;  // xmm and ymm are saved by the system
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return Isa::kScalar;
  const uint32_t foundation = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
  if ((state & 0xe6) != 0xe6 || (b & foundation) != foundation) return Isa::kAvx2;
  if (!(c & bit_AVX512VNNI) || !(c & bit_AVX512VBMI)) return Isa::kAvx512;
  const bool fp16 = d & (1u << 23);
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & (1u << 5))) return Isa::kAvx512Vnni;
  return fp16 ? Isa::kAvx512Fp16 : Isa::kAvx512Bf16;
}
#elif defined(SPARSECORE_ARM)
Isa detect() {
#if defined(__linux__)
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  const bool dot = (first >> 20) & 1, half = (first >> 10) & 1;
  const bool i8mm = (second >> 13) & 1, bf16 = (second >> 14) & 1;
  if (!dot || !half) return Isa::kNeon;
  return i8mm && bf16 ? Isa::kNeonI8mm : Isa::kNeonDot;
#elif defined(__APPLE__)
  return Isa::kNeonDot;  // every Apple core that runs 64-bit macOS has it
#else
  return Isa::kNeon;
#endif
}
#elif defined(SPARSECORE_WASM)
Isa detect() {
#if defined(SPARSECORE_WASM_RELAXED)
  return Isa::kWasmRelaxed;  // a module with relaxed SIMD does not validate where it is missing
#else
  return Isa::kWasmSimd;
#endif
}
#else
Isa detect() { return Isa::kScalar; }
#endif

Isa initial_cap() {
  Isa wanted;
  const char* name = std::getenv("SPARSECORE_ISA");
  if (name && parse_isa(name, &wanted) && included(wanted, detected_isa())) return wanted;
  return detected_isa();
}

std::atomic<Isa>& cap() {
  static std::atomic<Isa> value{initial_cap()};
  return value;
}

}  // namespace

Isa detected_isa() {
  static const Isa isa = detect();
  return isa;
}

Isa current_isa() { return cap().load(std::memory_order_relaxed); }

bool set_isa_cap(Isa isa) {
  if (!included(isa, detected_isa())) return false;
  cap().store(isa, std::memory_order_relaxed);
  return true;
}

bool isa_enabled(Isa isa) { return included(isa, current_isa()); }

const char* isa_name(Isa isa) {
  for (const Level& level : kLevels)
    if (level.isa == isa) return level.name;
  return "unknown";
}

bool parse_isa(const char* name, Isa* isa) {
  for (const Level& level : kLevels)
    if (!std::strcmp(level.name, name)) {
      *isa = level.isa;
      return true;
    }
  return false;
}

int available_isas(Isa* out, int capacity) {
  int count = 0;
  for (const Level& level : kLevels)
    if (included(level.isa, detected_isa())) {
      if (count < capacity) out[count] = level.isa;
      ++count;
    }
  return count;
}

bool fast_bf16_dot() {
#if defined(SPARSECORE_X86)
  static const bool amd = [] {
    uint32_t a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx && d == signature_AMD_edx;
  }();
  return amd;
#else
  return true;
#endif
}

}  // namespace sparsecore

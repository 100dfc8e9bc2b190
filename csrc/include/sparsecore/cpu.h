// What this machine has, and the cap a user sets.
#pragma once

#include "sparsecore/types.h"

namespace sparsecore {

// The best level the hardware and the operating system offer. Detected once.
SPARSECORE_API Isa detected_isa();

// detected_isa(), lowered by SPARSECORE_ISA from the environment or by set_isa_cap().
SPARSECORE_API Isa current_isa();

// Caps every later call in the process. False, and nothing changes, where the machine lacks `isa`.
SPARSECORE_API bool set_isa_cap(Isa isa);

// True where kernels compiled for `isa` may run under current_isa().
SPARSECORE_API bool isa_enabled(Isa isa);

// "avx512_bf16" and so on; parse_isa returns false for a name it does not know.
SPARSECORE_API const char* isa_name(Isa isa);
SPARSECORE_API bool parse_isa(const char* name, Isa* isa);

// Levels this machine can run, scalar first. Returns how many there are; writes at most `capacity`.
SPARSECORE_API int available_isas(Isa* out, int capacity);

// True where the bfloat16 dot product runs at twice the float32 rate (AMD Zen 4 and later). On Intel cores
// without matrix tiles it runs at half of it, and widening to float32 is faster.
SPARSECORE_API bool fast_bf16_dot();

}  // namespace sparsecore

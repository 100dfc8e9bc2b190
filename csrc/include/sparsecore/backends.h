// The dispatch tables of all families as one list, for people and for tests.
#pragma once

#include "sparsecore/types.h"

namespace sparsecore {

struct Backend {
  const char* op;      // "row_lists_linear"
  const char* kernel;  // "avx512::row_lists_f32"
  Isa isa;
  const char* weights;  // storage types it takes: "float32 bfloat16 float16 int8"
};

// Every kernel in this library, whether this machine can run it or not: usable means isa_enabled(backend.isa).
// Returns how many there are; writes at most `capacity`.
SPARSECORE_API int backends(Backend* out, int capacity);

}  // namespace sparsecore

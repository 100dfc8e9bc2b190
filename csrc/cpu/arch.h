// Which architecture this compilation is for; dispatch tables list only rows that exist there.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define SPARSECORE_X86 1
#elif defined(__aarch64__)
#define SPARSECORE_ARM 1
#elif defined(__wasm__)
#define SPARSECORE_WASM 1
#endif

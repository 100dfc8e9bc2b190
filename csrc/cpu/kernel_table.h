// What the dispatch.cpp of a family asks its table of kernels. A table holds pointers, best first and the scalar kernel
// last.
#pragma once

#include <iterator>

#include "cpu/backend_lists.h"
#include "sparsecore/cpu.h"

namespace sparsecore {

template <typename Kernel, size_t kCount>
const Kernel& best_kernel(const Kernel* const (&table)[kCount]) {
  for (const Kernel* kernel : table)
    if (isa_enabled(kernel->isa)) return *kernel;
  return *table[kCount - 1];
}

// The table in the list of all kernels; every kernel takes the same storage types.
template <const auto& kTable>
BackendList backends_of(const char* op, const char* weights) {
  static Backend rows[std::size(kTable)];
  static const int count = [&] {
    int filled = 0;
    for (const auto* kernel : kTable) rows[filled++] = {op, kernel->name, kernel->isa, weights};
    return filled;
  }();
  return {rows, count};
}

}  // namespace sparsecore

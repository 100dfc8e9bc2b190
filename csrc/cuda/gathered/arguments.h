// Products whose weights keep whole columns for a run of V channels: the kept inputs of such a run are gathered once
// and multiplied as if they were dense. What the kernels of these formats are given, and how they count.
//
//   xt         [k, pitch] 16 bits: x transposed, so that an input of all tokens is a row and gathering copies rows;
//              pitch = m rounded up to 8, the padding zero
//   list       the kept columns of one run of channels
//   turn       what one stage of shared memory holds: kDepth columns of the list
//   workspace  partial sums (linear/arguments.h), then xt
#pragma once

#include "cuda/linear/arguments.h"

namespace sparsecore::gathered {

using cuda_linear::ceil_div;

constexpr int64_t pitch_of(int64_t tokens) { return ceil_div(tokens, 8) * 8; }
constexpr int64_t transposed_bytes(int64_t rows, int64_t columns) { return columns * pitch_of(rows) * 2; }

// A list in global memory. Whatever it holds, nothing outside of x is read: a column past k counts as zeros.
struct List {
  const uint16_t* columns;
  int64_t length, k;

  SC_DEVICE int32_t column(int64_t i) const {
    if (i >= length) return -1;
    const int32_t found = columns[i];
    return found < k ? found : -1;
  }
};

// The dense side of a product. A format's arguments derive from it.
struct Arguments {
  cuda_linear::Arguments linear;
  const uint16_t* xt = nullptr;
  int64_t pitch = 0;
};

struct TransposeArguments {
  const uint16_t* x = nullptr;  // [rows, columns], columns dense
  uint16_t* xt = nullptr;       // [columns, pitch_of(rows)]
  int64_t rows = 0, columns = 0, row_stride = 0;
  bool vectors = false;  // every row of x begins at a multiple of 16 bytes
};

// Enqueues the transposition of 16-bit elements.
Status transpose(const char* function, const TransposeArguments& args, void* stream);

struct Plan {
  enum class Kernel : int32_t { kSmallSm80, kTiledSm80, kWgmmaSm90, kPickedSm90 };
  Kernel kernel = Kernel::kTiledSm80;
  int32_t tokens = 128;  // of a tile
  int32_t splits = 1;    // of each list; more than one sums through the workspace
  int32_t cluster = 1;   // blocks of neighbouring channels that share tokens: 1, 2 or 4; kPickedSm90 only
};

// The plan for a kernel: a function of the tokens, of the runs of channels and of the turns that an average list takes.
// Up to 32 tokens reading W is what costs; above, 128 tokens to a tile where there are enough of them to fill the
// device, since they gather for the most products; of wgmma 256, or 128. What picks from whole tiles of x has one size
// of tiles, and shares x among as many blocks as divide the tiles of channels, or leave at most one of eight without
// work.
Plan plan_for(Plan::Kernel kernel, int64_t m, int64_t channel_tiles, int64_t turns);
constexpr int64_t workspace_bytes(const Plan& plan, int64_t m, int64_t n, int64_t k) {
  return cuda_linear::partial_sum_bytes(plan.splits, m, n) + transposed_bytes(m, k);
}

// Checks the workspace, fills the arguments and enqueues the transposition of x.
Status prepare(const char* function, const Plan& plan, const DeviceLinear& params, Arguments* args, void* stream);

}  // namespace sparsecore::gathered

// What the kernels of group lists share: arguments, plans, and the units they count in.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "cuda/common/elements.h"
#include "cuda/linear/arguments.h"
#include "cuda/linear/capabilities.h"
#include "sparsecore/group_lists_cuda.h"

namespace sparsecore::group_lists_cuda {

using cuda_linear::ceil_div;

constexpr int kTileChannels = 64, kSmallTileChannels = 32;
// What the kernel for few tokens has in shared memory: 32 KB of x, which with 8 tokens are 2048 columns, and tables of
// where lists are, 8 KB. Panels longer than that are for the other kernel.
constexpr int kSpanBytes = 32 << 10, kSpanPanels = 32, kLongestPanel = kSpanBytes / (2 * 8);
constexpr int span_columns(int tokens) { return kSpanBytes / (2 * tokens); }
// A power of two, as many as there are panels for, up to 8: fewer and longer lists are shared instead. A function of
// the shape, so that sums have one order.
constexpr int32_t panel_shares(int64_t panels, int32_t splits, int32_t span_panels) {
  const int64_t at_a_time = panels / splits < span_panels ? panels / splits : span_panels;
  return at_a_time >= 8 ? 8 : at_a_time >= 4 ? 4 : at_a_time >= 2 ? 2 : 1;
}

// What there is for products, gradients of values and validation.
enum Kernel : int32_t { kSmall, kExpanding, kGrad, kValidate };
const cuda_linear::Capabilities& capabilities();

struct Plan {
  Kernel kernel = kExpanding;
  int32_t tokens = 128;  // of a tile
  int32_t splits = 1;    // of the panels
};

// The lists, and what follows from their shape.
struct Lists {
  GroupLists weight;
  int32_t groups = 0, panels = 0, panel_turns = 0;
  int32_t row_bits = 0, column_bits = 0;  // 2 to their power are weight.rows and weight.cols
  bool wide = false;                      // indices of 16 bits
};
inline Lists lists_of(const GroupLists& weight, int64_t n, int64_t k) {
  Lists lists;
  lists.weight = weight;
  lists.panels = static_cast<int32_t>(ceil_div(k, weight.depth));
  lists.groups = lists.panels > 0 ? static_cast<int32_t>(ceil_div(n, weight.rows)) : 0;
  lists.panel_turns = static_cast<int32_t>(ceil_div(weight.depth, 64));
  lists.row_bits = std::countr_zero(static_cast<uint32_t>(weight.rows));
  lists.column_bits = std::countr_zero(static_cast<uint32_t>(weight.cols));
  lists.wide = group_lists_index_bytes(weight.cols, weight.depth) == 2;
  return lists;
}

// Whether records are whole vectors of 16 bytes of one channel.
inline bool has_row_vectors(const GroupLists& weight) {
  return weight.rows == 1 && weight.cols >= 8 && reinterpret_cast<uintptr_t>(weight.values) % 16 == 0;
}

struct LinearArguments : cuda_linear::Arguments {
  Lists lists;
  bool row_vectors = false;  // for tiles that are made dense: copied as vectors
  // For few tokens: whether values and indices begin at multiples of 16 bytes, the panels of a span, and how many
  // threads share them; the others share lists.
  bool value_vectors = false, index_vectors = false;
  int32_t span_panels = 1, panel_shares = 1;
};

struct GradArguments {
  GroupListsGradParams p;
  Lists lists;
  bool grad_y_vectors = false, x_vectors = false;  // every row begins at a multiple of 16 bytes
};

// Of the weight its shape: sides and number of its groups, depth of its panels.
Plan choose_plan(int64_t m, int64_t n, int64_t k, const GroupLists& weight);
// With a plan given, as the tests do. Checks the parameters first.
Status run_plan(const Plan& plan, const GroupListsParams& params, void* stream);

}  // namespace sparsecore::group_lists_cuda

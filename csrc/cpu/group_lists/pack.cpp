// Dense -> group lists and back, the transposed matrix, checks. Portable and exact: only bytes are moved.
#include <algorithm>
#include <cstring>

#include "cpu/group_lists/group_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace group_lists {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool one_of(int32_t value) {
  return value == 1 || value == 2 || value == 4 || value == 8 || value == 16 || value == 32;
}

uint32_t index_at(const void* index, bool wide, int64_t i) {
  return wide ? static_cast<const uint16_t*>(index)[i] : static_cast<const uint8_t*>(index)[i];
}

void put_index(void* index, bool wide, int64_t i, int64_t block) {
  if (wide)
    static_cast<uint16_t*>(index)[i] = static_cast<uint16_t>(block);
  else
    static_cast<uint8_t*>(index)[i] = static_cast<uint8_t>(block);
}

// order [groups] of one panel from the length of every group's list: inside each window longest first, else as they
// are.
template <typename Length>
void sort_windows(int64_t groups, int32_t window, const Length& length, uint8_t* order) {
  for (int64_t first = 0; first < groups; first += window) {
    const int64_t count = std::min<int64_t>(window, groups - first);
    uint8_t* places = order + first;
    for (int64_t i = 0; i < count; ++i) places[i] = static_cast<uint8_t>(i);
    std::sort(places, places + count, [&](uint8_t a, uint8_t b) {
      const int64_t of_a = length(first + a), of_b = length(first + b);
      return of_a != of_b ? of_a > of_b : a < b;
    });
  }
}

int64_t group_at(const uint8_t* order, int32_t window, int64_t place) { return place / window * window + order[place]; }

template <typename T>
void pack_block(const T* dense, int64_t n, int64_t k, int64_t row, int64_t column, int32_t rows, int32_t cols, T* to) {
  for (int32_t j = 0; j < cols; ++j)
    for (int32_t r = 0; r < rows; ++r, ++to)
      *to = row + r < n && column + j < k ? dense[(row + r) * k + column + j] : T{0};
}

template <typename T>
void unpack_block(const T* from, int64_t n, int64_t k, int64_t row, int64_t column, int32_t rows, int32_t cols,
                  T* dense) {
  for (int32_t j = 0; j < cols; ++j)
    for (int32_t r = 0; r < rows; ++r, ++from)
      if (row + r < n && column + j < k) dense[(row + r) * k + column + j] = *from;
}

// Calls visit(record, group, block), block counted from column 0, for every record.
template <typename Visit>
void walk(const GroupLists& weight, const Layout& layout, Visit&& visit) {
  for (int64_t p = 0; p < layout.panels; ++p) {
    const Panel panel = panel_of(weight, layout, p);
    for (int64_t place = 0; place < layout.groups; ++place)
      for (int64_t i = panel.starts[place]; i < panel.starts[place + 1]; ++i)
        visit(i, group_at(panel.order, weight.window, place),
              panel.first_column / weight.cols + index_at(weight.index, layout.wide_index, i));
  }
}

Status check_lists(const GroupLists& weight, int64_t n, int64_t k) {
  if (!good_shape(n, k)) return Status::kBadShape;
  if (!good_pattern(weight.rows, weight.cols, weight.depth, weight.window)) return Status::kBadPattern;
  if (weight.records < 0 || weight.records > INT32_MAX) return Status::kBadPointers;
  const Layout layout(weight, n, k);
  if (layout.panels == 0) return weight.records == 0 ? Status::kOk : Status::kBadPointers;
  if (!weight.starts || !weight.values || !weight.index || (layout.groups && !weight.order))
    return Status::kNullPointer;
  if (weight.starts[0] != 0) return Status::kBadPointers;
  for (int64_t p = 0; p < layout.panels; ++p) {
    const Panel panel = panel_of(weight, layout, p);
    // The top bit of `offence`: a start below 0, a list of negative length or one longer than the panel. Without
    // branches, so that compilers use vectors.
    uint32_t offence = 0;
    for (int64_t i = 0; i < layout.groups; ++i) {
      const uint32_t begin = static_cast<uint32_t>(panel.starts[i]),
                     length = static_cast<uint32_t>(panel.starts[i + 1]) - begin;
      offence |= begin | length | (static_cast<uint32_t>(panel.blocks) - length);
    }
    if (offence >> 31) return Status::kBadPointers;
    if (panel.starts[layout.groups] != (p + 1 < layout.panels ? panel.starts[layout.groups + 1] : weight.records))
      return Status::kBadPointers;
    for (int64_t first = 0; first < layout.groups; first += weight.window) {
      const int64_t count = std::min<int64_t>(weight.window, layout.groups - first);
      uint8_t largest = 0;
      for (int64_t i = 0; i < count; ++i) largest = std::max(largest, panel.order[first + i]);
      if (largest >= count) return Status::kBadIndex;
    }
  }
  return Status::kOk;
}

}  // namespace

Layout::Layout(const GroupLists& weight, int64_t n, int64_t k)
    : n(n),
      k(k),
      groups(ceil_div(n, weight.rows)),
      panels(ceil_div(k, weight.depth)),
      windows(ceil_div(groups, weight.window)),
      wide_index(group_lists_index_bytes(weight.cols, weight.depth) == 2) {}

Panel panel_of(const GroupLists& weight, const Layout& layout, int64_t panel) {
  const int64_t first = panel * weight.depth, columns = std::min<int64_t>(weight.depth, layout.k - first);
  return {first, static_cast<int>(columns), static_cast<int>(ceil_div(columns, weight.cols)),
          weight.starts + panel * (layout.groups + 1), weight.order + panel * layout.groups};
}

bool good_pattern(int32_t rows, int32_t cols, int32_t depth, int32_t window) {
  return one_of(rows) && one_of(cols) && depth >= 16 && depth <= 65536 && depth % 16 == 0 && depth % cols == 0 &&
         window >= 1 && window <= 256;
}

bool good_shape(int64_t n, int64_t k) { return n >= 0 && n <= INT32_MAX && k >= 0 && k <= INT32_MAX; }

bool indices_inside(const GroupLists& weight, const Layout& layout, int64_t window_begin, int64_t window_end) {
  const int64_t first = window_begin * weight.window, end = std::min(layout.groups, window_end * weight.window);
  for (int64_t p = 0; p < layout.panels; ++p) {
    const Panel panel = panel_of(weight, layout, p);
    const int64_t from = panel.starts[first], to = panel.starts[end];
    uint16_t largest = 0;
    if (layout.wide_index) {
      const uint16_t* index = static_cast<const uint16_t*>(weight.index);
      for (int64_t i = from; i < to; ++i) largest = std::max(largest, index[i]);
    } else {
      const uint8_t* index = static_cast<const uint8_t*>(weight.index);
      uint8_t of_bytes = 0;
      for (int64_t i = from; i < to; ++i) of_bytes = std::max(of_bytes, index[i]);
      largest = of_bytes;
    }
    if (to > from && largest >= panel.blocks) return false;
  }
  return true;
}

int64_t first_window(const GroupLists& weight, const Layout& layout, int64_t part, int64_t parts) {
  if (part <= 0) return 0;
  if (part >= parts) return layout.windows;
  // A group costs its records, and in every panel about three more for its sums.
  const auto cost = [&](int64_t window) {
    const int64_t group = std::min(layout.groups, window * weight.window);
    int64_t total = 3 * layout.panels * group;
    for (int64_t p = 0; p < layout.panels; ++p) {
      const Panel panel = panel_of(weight, layout, p);
      total += (panel.starts[group] - panel.starts[0]) * int64_t{weight.cols};
    }
    return total;
  };
  // The boundary that is nearest to the wanted share.
  const int64_t wanted = cost(layout.windows) / parts * part;
  int64_t window = 0;
  while (window < layout.windows && cost(window + 1) <= wanted) ++window;
  if (window < layout.windows && cost(window + 1) - wanted < wanted - cost(window)) ++window;
  return window;
}

}  // namespace group_lists

using namespace group_lists;

Status group_lists_check(const GroupLists& weight, int64_t n, int64_t k) { return check_lists(weight, n, k); }

Status group_lists_validate(const GroupLists& weight, int64_t n, int64_t k, int64_t* where) {
  if (where) *where = 0;
  const Status status = check_lists(weight, n, k);
  if (status != Status::kOk) return status;
  const Layout layout(weight, n, k);
  const auto report = [&](int64_t place, Status offence) {
    if (where) *where = place;
    return offence;
  };
  for (int64_t p = 0; p < layout.panels; ++p) {
    const Panel panel = panel_of(weight, layout, p);
    for (int64_t first = 0; first < layout.groups; first += weight.window) {
      bool seen[256] = {};
      for (int64_t place = first; place < std::min(layout.groups, first + weight.window); ++place) {
        if (seen[panel.order[place]]) return report(place, Status::kBadIndex);
        seen[panel.order[place]] = true;
      }
    }
    for (int64_t place = 0; place < layout.groups; ++place) {
      int64_t last = -1;
      for (int64_t i = panel.starts[place]; i < panel.starts[place + 1]; ++i) {
        const int64_t block = index_at(weight.index, layout.wide_index, i);
        if (block >= panel.blocks) return report(i, Status::kBadIndex);
        if (block <= last) return report(i, Status::kUnsorted);
        last = block;
      }
    }
  }
  if (layout.panels && index_at(weight.index, layout.wide_index, weight.records) != 0)
    return report(weight.records, Status::kBadIndex);
  return Status::kOk;
}

int64_t group_lists_count(const uint8_t* mask, int64_t groups, int64_t blocks) {
  int64_t count = 0;
  for (int64_t i = 0; i < groups * blocks; ++i) count += mask[i] != 0;
  return count;
}

Status group_lists_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k, int32_t rows,
                        int32_t cols, int32_t depth, int32_t window, void* values, void* index, uint8_t* order,
                        int32_t* starts) {
  if (!good_shape(n, k)) return Status::kBadShape;
  if (!good_pattern(rows, cols, depth, window)) return Status::kBadPattern;
  GroupLists weight;
  weight.rows = rows, weight.cols = cols, weight.depth = depth, weight.window = window;
  const Layout layout(weight, n, k);
  if (!values || !index) return Status::kNullPointer;
  if (layout.panels && (!starts || (layout.groups && (!order || !dense || !mask)))) return Status::kNullPointer;
  const int64_t blocks = ceil_div(k, cols), count = group_lists_count(mask, layout.groups, blocks);
  if (count >= INT32_MAX) return Status::kBadShape;
  const int64_t record_bytes = rows * cols * size_of(dtype);
  const auto put_block = [&](int64_t i, int64_t row, int64_t column) {
    switch (size_of(dtype)) {
      case 1:
        return pack_block(static_cast<const uint8_t*>(dense), n, k, row, column, rows, cols,
                          static_cast<uint8_t*>(values) + i * rows * cols);
      case 2:
        return pack_block(static_cast<const uint16_t*>(dense), n, k, row, column, rows, cols,
                          static_cast<uint16_t*>(values) + i * rows * cols);
      default:
        return pack_block(static_cast<const uint32_t*>(dense), n, k, row, column, rows, cols,
                          static_cast<uint32_t*>(values) + i * rows * cols);
    }
  };
  int64_t record = 0;
  for (int64_t p = 0; p < layout.panels; ++p, order += layout.groups) {
    const int64_t first = p * depth / cols, end = std::min(blocks, (p + 1) * depth / cols);
    const auto length = [&](int64_t g) { return group_lists_count(mask + g * blocks + first, 1, end - first); };
    sort_windows(layout.groups, window, length, order);
    for (int64_t place = 0; place < layout.groups; ++place) {
      *starts++ = static_cast<int32_t>(record);
      const int64_t g = group_at(order, window, place);
      for (int64_t b = first; b < end; ++b) {
        if (!mask[g * blocks + b]) continue;
        put_block(record, g * rows, b * cols);
        put_index(index, layout.wide_index, record++, b - first);
      }
    }
    *starts++ = static_cast<int32_t>(record);
  }
  std::memset(static_cast<char*>(values) + record * record_bytes, 0, record_bytes);
  put_index(index, layout.wide_index, record, 0);
  return Status::kOk;
}

Status group_lists_unpack(const GroupLists& weight, DType dtype, int64_t n, int64_t k, void* dense) {
  const Status status = group_lists_validate(weight, n, k, nullptr);
  if (status != Status::kOk || n == 0 || k == 0) return status;
  if (!dense) return Status::kNullPointer;
  std::memset(dense, 0, n * k * size_of(dtype));
  const int32_t rows = weight.rows, cols = weight.cols;
  const auto unpack_as = [&](auto* to) {
    const auto* values = static_cast<decltype(to)>(const_cast<void*>(weight.values));
    walk(weight, Layout(weight, n, k), [&](int64_t i, int64_t group, int64_t block) {
      unpack_block(values + i * rows * cols, n, k, group * rows, block * cols, rows, cols, to);
    });
  };
  switch (size_of(dtype)) {
    case 1: unpack_as(static_cast<uint8_t*>(dense)); break;
    case 2: unpack_as(static_cast<uint16_t*>(dense)); break;
    default: unpack_as(static_cast<uint32_t*>(dense));
  }
  return Status::kOk;
}

// A counting sort by (panel, group) of the transposed matrix: first lengths, then the order of every window, then the
// records. Lists are walked so that the new ones ascend: by panel, and inside it by group.
Status group_lists_transpose(const GroupLists& weight, int64_t n, int64_t k, int32_t depth_t, int32_t window_t,
                             void* index_t, uint8_t* order_t, int32_t* starts_t, int32_t* source) {
  GroupLists lists = weight;
  if (!lists.values) lists.values = lists.index;  // only places are moved
  const Status status = group_lists_validate(lists, n, k, nullptr);
  if (status != Status::kOk) return status;
  GroupLists turned;
  turned.rows = weight.cols, turned.cols = weight.rows, turned.depth = depth_t, turned.window = window_t;
  if (!good_pattern(turned.rows, turned.cols, turned.depth, turned.window)) return Status::kBadPattern;
  const Layout layout(weight, n, k), layout_t(turned, k, n);
  if (!index_t || (layout_t.panels && (!starts_t || (layout_t.groups && !order_t))) || (weight.records && !source))
    return Status::kNullPointer;
  const int64_t width = layout_t.groups, blocks_t = depth_t / turned.cols;
  // Length, then next free record, of every list by its group.
  int32_t* lengths = static_cast<int32_t*>(scratch(Scratch::kSums, layout_t.panels * width * sizeof(int32_t)));
  // The place of every group of the weight in a panel, so that groups can be visited in their own order.
  int32_t* places = static_cast<int32_t*>(scratch(Scratch::kPanel, layout.groups * sizeof(int32_t)));
  if ((!lengths && layout_t.panels && width) || (!places && layout.groups)) return Status::kOutOfMemory;
  std::fill(lengths, lengths + layout_t.panels * width, 0);
  walk(lists, layout, [&](int64_t, int64_t group, int64_t block) { ++lengths[group / blocks_t * width + block]; });
  int32_t total = 0;
  for (int64_t p = 0; p < layout_t.panels; ++p) {
    int32_t *of_panel = lengths + p * width, *starts = starts_t + p * (width + 1);
    uint8_t* order = order_t + p * width;
    sort_windows(width, window_t, [&](int64_t g) { return of_panel[g]; }, order);
    for (int64_t place = 0; place < width; ++place) {
      int32_t& cursor = of_panel[group_at(order, window_t, place)];
      starts[place] = total;
      total += cursor;
      cursor = starts[place];
    }
    starts[width] = total;
  }
  for (int64_t p = 0; p < layout.panels; ++p) {
    const Panel panel = panel_of(lists, layout, p);
    for (int64_t place = 0; place < layout.groups; ++place)
      places[group_at(panel.order, weight.window, place)] = static_cast<int32_t>(place);
    for (int64_t g = 0; g < layout.groups; ++g)
      for (int32_t i = panel.starts[places[g]]; i < panel.starts[places[g] + 1]; ++i) {
        const int64_t block = panel.first_column / weight.cols + index_at(weight.index, layout.wide_index, i);
        int32_t& cursor = lengths[g / blocks_t * width + block];
        put_index(index_t, layout_t.wide_index, cursor, g % blocks_t);
        source[cursor++] = i;
      }
  }
  put_index(index_t, layout_t.wide_index, weight.records, 0);
  return Status::kOk;
}

}  // namespace sparsecore

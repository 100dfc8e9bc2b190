// A product with a weight of group lists and the gradient of its values, with answers in float64, for the tests.
#pragma once

#include <algorithm>
#include <limits>
#include <numeric>

#include "cuda/group_lists/group_lists.h"
#include "cuda/tests/linear_problem.h"

namespace sparsecore {

struct GroupOptions : LinearOptions {
  int64_t list_offset = 0;  // elements in front of values and indices
  double density = 0.3;
  int64_t of_panel = 0;  // where not 0, every group keeps so many blocks of every panel
};

struct GroupProblem : LinearProblem<GroupOptions> {
  static constexpr size_t kBehind = 4096;  // bytes behind the gradient, which nobody may touch
  int32_t rows, cols, depth, window;
  std::vector<uint8_t> mask;
  int64_t groups, panels, records;
  DeviceMatrix grad_y;
  cuda_emulation::GlobalBuffer<char> values, index;
  cuda_emulation::GlobalBuffer<uint8_t> order;
  cuda_emulation::GlobalBuffer<int32_t> starts;
  cuda_emulation::GlobalBuffer<float> out;

  static std::vector<uint8_t> draw(int64_t groups, int64_t blocks, int64_t panel_blocks, const GroupOptions& o) {
    std::mt19937 random(o.seed + 100);
    std::vector<uint8_t> mask(groups * blocks);
    if (o.of_panel > 0) {
      for (auto panel = mask.begin(); panel != mask.end(); panel += panel_blocks) {
        std::fill(panel, panel + o.of_panel, 1);
        std::shuffle(panel, panel + panel_blocks, random);
      }
      return mask;
    }
    // The densities of groups differ, and one keeps nothing.
    for (int64_t group = 0; group < groups; ++group) {
      const double density = group == 1 ? 0.0 : std::min(1.0, o.density * (0.3 + random() % 100 / 60.0));
      for (int64_t block = 0; block < blocks; ++block) mask[group * blocks + block] = random() % 1000 < 1000 * density;
    }
    return mask;
  }

  GroupProblem(int64_t m, int64_t n, int64_t k, int32_t rows, int32_t cols, int32_t depth, int32_t window,
               const GroupOptions& o)
      : LinearProblem(m, n, k, o),
        rows(rows),
        cols(cols),
        depth(depth),
        window(window),
        mask(draw(cuda_linear::ceil_div(n, rows), cuda_linear::ceil_div(k, cols), depth / cols, o)),
        groups(cuda_linear::ceil_div(n, rows)),
        panels(cuda_linear::ceil_div(k, depth)),
        records(std::count(mask.begin(), mask.end(), 1)),
        grad_y(o.dtype, m, n, cuda_linear::ceil_div(n, 8) * 8 + o.x_pad, o.x_offset),
        values((records + 1) * rows * cols * 2 + o.list_offset * 2),
        index((records + 1 + o.list_offset) * group_lists_index_bytes(cols, depth)),
        order(panels * groups),
        starts(panels * (groups + 1)),
        out((records + 1) * rows * cols + kBehind / 4) {
    Numbers numbers(o.seed + 200);
    grad_y.fill(numbers);
    std::vector<char> narrow(n * k * 2);
    std::vector<float> dense(n * k);
    std::vector<uint8_t> kept(n * k);
    const int64_t blocks = cuda_linear::ceil_div(k, cols);
    for (int64_t i = 0; i < n * k; ++i) {
      encode(numbers(), o.dtype, narrow.data() + 2 * i);
      dense[i] = decode(narrow.data() + 2 * i, o.dtype);
      kept[i] = mask[i / k / rows * blocks + i % k / cols];
    }
    pack(narrow);
    expect(dense, kept);
  }

  char* first_value() { return values.data() + options.list_offset * 2; }
  char* first_index() { return index.data() + options.list_offset * group_lists_index_bytes(cols, depth); }
  // As sparsecore/group_lists.h has it.
  void pack(const std::vector<char>& narrow) {
    const int64_t blocks = cuda_linear::ceil_div(k, cols), panel_blocks = depth / cols;
    int32_t record = 0;
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t first = panel * panel_blocks, last = std::min(first + panel_blocks, blocks);
      const auto length = [&](int64_t group) {
        return std::count(mask.begin() + group * blocks + first, mask.begin() + group * blocks + last, 1);
      };
      std::vector<int64_t> places(groups);
      std::iota(places.begin(), places.end(), 0);
      for (int64_t begin = 0; begin < groups; begin += window)
        std::stable_sort(places.begin() + begin, places.begin() + std::min<int64_t>(begin + window, groups),
                         [&](int64_t a, int64_t b) { return length(a) > length(b); });
      for (int64_t at = 0; at < groups; ++at) {
        order[panel * groups + at] = static_cast<uint8_t>(places[at] % window);
        starts[panel * (groups + 1) + at] = record;
        for (int64_t block = first; block < last; ++block) {
          if (!mask[places[at] * blocks + block]) continue;
          if (group_lists_index_bytes(cols, depth) == 1) {
            reinterpret_cast<uint8_t*>(first_index())[record] = static_cast<uint8_t>(block - first);
          } else {
            reinterpret_cast<uint16_t*>(first_index())[record] = static_cast<uint16_t>(block - first);
          }
          for (int64_t c = 0; c < cols; ++c)
            for (int64_t r = 0; r < rows; ++r) {
              const int64_t channel = places[at] * rows + r, input = block * cols + c;
              char* to = first_value() + ((record * cols + c) * rows + r) * 2;
              if (channel < n && input < k) {
                std::memcpy(to, narrow.data() + 2 * (channel * k + input), 2);
              } else {
                std::memset(to, 0, 2);
              }
            }
          ++record;
        }
      }
      starts[panel * (groups + 1) + groups] = record;
    }
    std::memset(first_value() + static_cast<int64_t>(record) * rows * cols * 2, 0, rows * cols * 2);
  }

  // The index of the padding record, which no kernel may look at, as the format wants it.
  void end_index() {
    const int64_t bytes = group_lists_index_bytes(cols, depth);
    std::memset(first_index() + records * bytes, 0, bytes);
  }
  GroupLists weight() {
    GroupLists w;
    w.values = first_value();
    w.index = first_index();
    w.order = order.data();
    w.starts = starts.data();
    w.records = records;
    w.rows = rows;
    w.cols = cols;
    w.depth = depth;
    w.window = window;
    return w;
  }
  GroupListsParams params(int splits) {
    forget();
    GroupListsParams p;
    fill(p, cuda_linear::partial_sum_bytes(splits, m, n));
    p.weight = weight();
    return p;
  }
  GroupListsGradParams grad_params() {
    std::memset(out.data(), 0xff, out.size() * 4);
    GroupListsGradParams p;
    p.grad_y = grad_y.data();
    p.x = x.data();
    p.out = out.data();
    p.weight = weight();
    p.m = m;
    p.n = n;
    p.k = k;
    p.grad_y_row_stride = grad_y.stride;
    p.x_row_stride = x.stride;
    p.dtype = options.dtype;
    return p;
  }

  // The last weight of the first list becomes infinite: only outputs of its group, which is returned, may notice.
  int64_t make_infinite() {
    const int64_t last = static_cast<int64_t>(starts[1]) * rows * cols - 1;
    encode(std::numeric_limits<float>::infinity(), options.dtype, first_value() + 2 * last);
    return order[0];
  }
  int64_t first_wrong_but_for(int64_t group) {
    return first_wrong(0, [&](int64_t channel) { return channel / rows == group; });
  }
  bool strayed_behind_gradient() {
    for (size_t i = static_cast<size_t>(records + 1) * rows * cols; i < out.size(); ++i)
      if (out[i] == out[i]) return true;
    return false;
  }
  // Of the gradient, padding and what lies outside of the matrix included.
  int64_t first_wrong_gradient() {
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int64_t at = 0; at < groups; ++at) {
        const int64_t group = at / window * window + order[panel * groups + at];
        for (int32_t j = starts[panel * (groups + 1) + at]; j < starts[panel * (groups + 1) + at + 1]; ++j)
          for (int32_t c = 0; c < cols; ++c)
            for (int32_t r = 0; r < rows; ++r) {
              const int32_t block = group_lists_index_bytes(cols, depth) == 1
                                        ? reinterpret_cast<const uint8_t*>(first_index())[j]
                                        : reinterpret_cast<const uint16_t*>(first_index())[j];
              const int64_t channel = group * rows + r, input = panel * depth + block * cols + c;
              double sum = 0;
              if (channel < n && input < k)
                for (int64_t t = 0; t < m; ++t) sum += static_cast<double>(grad_y.get(t, channel)) * x.get(t, input);
              const int64_t place = (static_cast<int64_t>(j) * cols + c) * rows + r;
              if (!(out[place] == static_cast<float>(sum))) return place;
            }
      }
    for (int64_t i = records * rows * cols; i < (records + 1) * rows * cols; ++i)
      if (!(out[i] == 0)) return i;
    return -1;
  }
};

}  // namespace sparsecore

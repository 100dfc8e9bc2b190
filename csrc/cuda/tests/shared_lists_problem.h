// A product over shared lists with its answer in float64, and what else the tests of the family ask of such a weight.
#pragma once

#include <limits>

#include "cuda/shared_lists/shared_lists.h"
#include "cuda/tests/adversary.h"
#include "cuda/tests/linear_problem.h"

namespace sparsecore {

struct SharedListsShape {
  int64_t m, n, k;
  int vector;
  double density = 0.4;  // 0: every list is empty; lists of different lengths otherwise
};

// x and y begin `offset` elements into their buffers, rows are `pad` elements longer than they have to be.
template <class T>
LinearOptions views(int64_t offset, int64_t pad, unsigned seed) {
  LinearOptions options;
  options.dtype = std::is_same_v<T, BFloat16> ? DType::kBFloat16 : DType::kFloat16;
  options.x_offset = options.y_offset = offset;
  options.x_pad = options.y_pad = pad;
  options.residual = true;
  options.seed = seed;
  return options;
}

// No list keeps the first of several inputs, which is NaN, so that a weight that does not exist may not be multiplied
// with it either.
template <class T>
struct SharedListsProblem : LinearProblem<LinearOptions> {
  SharedListsShape shape;
  std::vector<std::vector<uint16_t>> lists;
  int64_t groups, records;
  cuda_emulation::GlobalBuffer<T> values;
  cuda_emulation::GlobalBuffer<uint16_t> columns;
  cuda_emulation::GlobalBuffer<int32_t> group_ptr;
  std::vector<float> dense;

  SharedListsProblem(const SharedListsShape& s, int64_t offset = 0, int64_t pad = 0, unsigned seed = 1)
      : LinearProblem(s.m, s.n, s.k, views<T>(offset, pad, seed)),
        shape(s),
        lists(lists_of(s, seed)),
        groups(static_cast<int64_t>(lists.size())),
        records(count(lists)),
        values(records * s.vector),
        columns(records),
        group_ptr(groups + 1),
        dense(s.n * s.k) {
    if (k > 1)
      for (int64_t t = 0; t < m; ++t) x.set(t, 0, std::numeric_limits<float>::quiet_NaN());
    Numbers numbers(seed + 200);
    std::vector<uint8_t> kept(n * k);
    int64_t record = 0;
    group_ptr[0] = 0;
    for (int64_t g = 0; g < groups; ++g) {
      for (const uint16_t column : lists[g]) {
        columns[record] = column;
        for (int v = 0; v < s.vector; ++v) {
          const int64_t channel = g * s.vector + v;
          const float weight = channel < n ? numbers() : 0.0f;
          narrow(weight, &values[record * s.vector + v]);
          if (channel >= n) continue;
          dense[channel * k + column] = weight;
          kept[channel * k + column] = 1;
        }
        ++record;
      }
      group_ptr[g + 1] = static_cast<int32_t>(record);
    }
    expect(dense, kept);
  }

  SharedListsLinearParams params(int64_t workspace_bytes) {
    SharedListsLinearParams p;
    fill(p, workspace_bytes);
    p.weight = weight();
    return p;
  }
  SharedLists weight() { return {values.data(), columns.data(), group_ptr.data(), records, shape.vector}; }

 private:
  using Lists = std::vector<std::vector<uint16_t>>;
  static Lists lists_of(const SharedListsShape& s, unsigned seed) {
    std::mt19937 random(seed + 100);
    Lists lists((s.n + s.vector - 1) / s.vector);
    for (size_t g = 0; g < lists.size(); ++g)
      for (int64_t c = s.k > 1; c < s.k; ++c)
        if (random() % 1000 < 1000 * s.density * (g % 3 == 2 ? 0.2 : 1.0)) lists[g].push_back(static_cast<uint16_t>(c));
    return lists;
  }
  static int64_t count(const Lists& lists) {
    int64_t records = 0;
    for (const auto& list : lists) records += static_cast<int64_t>(list.size());
    return records;
  }
};

}  // namespace sparsecore

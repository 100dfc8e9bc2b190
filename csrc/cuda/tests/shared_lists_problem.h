// A product over shared lists with its answer in float64, and what else the tests of the family ask of such a weight.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cpu/narrow.h"
#include "cuda/emulation/global_buffer.h"
#include "cuda/shared_lists/shared_lists.h"
#include "cuda/tests/adversary.h"

namespace sparsecore {

struct SharedListsShape {
  int64_t m, n, k;
  int vector;
  double density = 0.4;  // 0: every list is empty; lists of different lengths otherwise
};

// Small integers: every product and sum is exact. No list keeps the first of several inputs, which is NaN, so that a
// weight that does not exist may not be multiplied with it either. x and y begin `offset` elements into their buffers,
// rows are `pad` elements longer than the next multiple of 8. y is float32.
template <class T>
struct SharedListsProblem {
  SharedListsShape shape;
  int64_t groups, x_stride, y_stride, offset;
  cuda_emulation::GlobalBuffer<T> x, values;
  cuda_emulation::GlobalBuffer<uint16_t> columns;
  cuda_emulation::GlobalBuffer<int32_t> group_ptr;
  cuda_emulation::GlobalBuffer<float> y, bias;
  std::vector<float> dense, x_values;
  std::vector<double> expected;

  SharedListsProblem(const SharedListsShape& s, int64_t offset = 0, int64_t pad = 0, unsigned seed = 1)
      : SharedListsProblem(s, offset, pad, seed, lists_of(s, seed)) {}

  SharedListsLinearParams params(cuda_emulation::GlobalBuffer<char>& workspace) {
    SharedListsLinearParams p;
    p.x = x.data() + offset;
    p.weight = weight();
    p.y = y.data() + offset;
    p.bias = bias.data();
    p.m = shape.m, p.n = shape.n, p.k = shape.k;
    p.x_row_stride = x_stride, p.y_row_stride = y_stride;
    p.dtype = std::is_same_v<T, BFloat16> ? DType::kBFloat16 : DType::kFloat16;
    p.out_dtype = DType::kFloat32;
    p.workspace = workspace.data();
    p.workspace_bytes = static_cast<int64_t>(workspace.size());
    return p;
  }
  SharedLists weight() {
    return {values.data(), columns.data(), group_ptr.data(), static_cast<int64_t>(columns.size()), shape.vector};
  }
  void forget() { std::memset(y.data(), 0xff, y.size() * sizeof(float)); }
  // Place in y's buffer of the first output that is not the expected one, or of something beside y that was written;
  // -1 where there is none. NaN is never expected.
  int64_t first_wrong() {
    for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
      const int64_t place = i - offset, token = place / y_stride, channel = place % y_stride;
      if (place < 0 || channel >= shape.n) {
        uint32_t bits;
        std::memcpy(&bits, y.data() + i, 4);
        if (bits != 0xffffffffu) return i;
      } else if (!(y[i] == expected[token * shape.n + channel])) {
        return i;
      }
    }
    return -1;
  }

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
  static T encode(float value) {
    T narrowed;
    narrow(value, &narrowed);
    return narrowed;
  }

  SharedListsProblem(const SharedListsShape& s, int64_t offset, int64_t pad, unsigned seed, const Lists& lists)
      : shape(s),
        groups(static_cast<int64_t>(lists.size())),
        x_stride((s.k + 7) / 8 * 8 + pad),
        y_stride((s.n + 7) / 8 * 8 + pad),
        offset(offset),
        x(offset + std::max<int64_t>(s.m - 1, 0) * x_stride + (s.m ? s.k : 0)),
        values(count(lists) * s.vector),
        columns(count(lists)),
        group_ptr(groups + 1),
        y(offset + std::max<int64_t>(s.m - 1, 0) * y_stride + (s.m ? s.n : 0)),
        bias(s.n),
        dense(s.n * s.k),
        x_values(s.m * s.k),
        expected(s.m * s.n) {
    std::mt19937 random(seed);
    const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 9) - 4); };
    for (int64_t t = 0; t < s.m; ++t)
      for (int64_t c = 0; c < s.k; ++c)
        x[offset + t * x_stride + c] =
            encode(x_values[t * s.k + c] = c == 0 && s.k > 1 ? std::numeric_limits<float>::quiet_NaN() : draw());
    for (int64_t o = 0; o < s.n; ++o) bias[o] = draw();
    int64_t record = 0;
    group_ptr[0] = 0;
    for (int64_t g = 0; g < groups; ++g) {
      for (const uint16_t column : lists[g]) {
        columns[record] = column;
        for (int v = 0; v < s.vector; ++v) {
          const int64_t channel = g * s.vector + v;
          const float weight = channel < s.n ? draw() : 0.0f;
          values[record * s.vector + v] = encode(weight);
          if (channel < s.n) dense[channel * s.k + column] = weight;
        }
        ++record;
      }
      group_ptr[g + 1] = static_cast<int32_t>(record);
    }
    for (int64_t t = 0; t < s.m; ++t)
      for (int64_t o = 0; o < s.n; ++o) {
        double sum = bias[o];
        for (int64_t c = s.k > 1; c < s.k; ++c) sum += static_cast<double>(dense[o * s.k + c]) * x_values[t * s.k + c];
        expected[t * s.n + o] = sum;
      }
  }
};

}  // namespace sparsecore

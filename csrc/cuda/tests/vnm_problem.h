// A V:N:M product with its answer in float64.
#pragma once

#include <algorithm>
#include <numeric>

#include "cuda/tests/shared_lists_problem.h"
#include "cuda/vnm/vnm.h"

namespace sparsecore {

struct VnmShape {
  int64_t m, n, k;
  int vector;
  int64_t group;  // M
};

// Small integers: every product and sum is exact. Views as in SharedListsProblem.
template <class T>
struct VnmProblem {
  VnmShape shape;
  int64_t picked, x_stride, y_stride, offset;
  cuda_emulation::GlobalBuffer<T> x;
  cuda_emulation::GlobalBuffer<char> values;
  cuda_emulation::GlobalBuffer<uint32_t> metadata;
  cuda_emulation::GlobalBuffer<uint16_t> columns;
  cuda_emulation::GlobalBuffer<float> y;
  std::vector<double> expected;

  VnmProblem(const VnmShape& s, int64_t offset = 0, int64_t pad = 0, unsigned seed = 1)
      : shape(s),
        picked(4 * ((s.k + s.group - 1) / s.group)),
        x_stride((s.k + 7) / 8 * 8 + pad),
        y_stride((s.n + 7) / 8 * 8 + pad),
        offset(offset),
        x(offset + std::max<int64_t>(s.m - 1, 0) * x_stride + (s.m ? s.k : 0)),
        values(semi_structured_value_bytes(s.n, picked, kDType)),
        metadata(semi_structured_metadata_words(s.n, picked, kDType)),
        columns((s.n + s.vector - 1) / s.vector * picked),
        y(offset + std::max<int64_t>(s.m - 1, 0) * y_stride + (s.m ? s.n : 0)),
        expected(s.m * s.n) {
    std::mt19937 random(seed);
    const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 9) - 4); };
    std::vector<float> x_values(s.m * s.k);
    for (int64_t t = 0; t < s.m; ++t)
      for (int64_t c = 0; c < s.k; ++c) narrow(x_values[t * s.k + c] = draw(), &x[offset + t * x_stride + c]);
    for (int64_t at = 0; at < static_cast<int64_t>(columns.size()); at += 4) {
      const int64_t first = at % picked / 4 * s.group, width = std::min(s.group, s.k - first);
      std::vector<uint16_t> of_group(width);
      std::iota(of_group.begin(), of_group.end(), static_cast<uint16_t>(first));
      std::shuffle(of_group.begin(), of_group.end(), random);
      of_group.resize(4, kNoColumn);
      std::sort(of_group.begin(), of_group.end());
      std::copy(of_group.begin(), of_group.end(), columns.data() + at);
    }
    std::vector<T> dense(s.n * picked);
    std::vector<uint8_t> mask(s.n * picked);
    for (int64_t o = 0; o < s.n; ++o)
      for (int64_t j = 0; j < picked; ++j) {
        const bool exists = columns[o / s.vector * picked + j] != kNoColumn;
        narrow(exists ? draw() : 0.0f, &dense[o * picked + j]);
        // Zero, one or two of four.
        mask[o * picked + j] =
            exists && random() % 3 == 0 && std::count(&mask[o * picked + j / 4 * 4], &mask[o * picked + j], 1) < 2;
      }
    if (semi_structured_pack(dense.data(), kDType, mask.data(), s.n, picked, values.data(), metadata.data()) !=
        Status::kOk)
      throw std::runtime_error("the problem's weight could not be packed");
    for (int64_t t = 0; t < s.m; ++t)
      for (int64_t o = 0; o < s.n; ++o)
        for (int64_t j = 0; j < picked; ++j)
          if (mask[o * picked + j])
            expected[t * s.n + o] += static_cast<double>(widen(dense[o * picked + j])) *
                                     x_values[t * s.k + columns[o / s.vector * picked + j]];
  }

  VnmLinearParams params(cuda_emulation::GlobalBuffer<char>& workspace) {
    VnmLinearParams p;
    p.x = x.data() + offset;
    p.weight.packed = {values.data(), metadata.data(), static_cast<int64_t>(values.size()),
                       static_cast<int64_t>(metadata.size())};
    p.weight.columns = columns.data();
    p.weight.picked = picked;
    p.weight.vector = shape.vector;
    p.y = y.data() + offset;
    p.m = shape.m, p.n = shape.n, p.k = shape.k;
    p.x_row_stride = x_stride, p.y_row_stride = y_stride;
    p.dtype = kDType;
    p.out_dtype = DType::kFloat32;
    p.workspace = workspace.data();
    p.workspace_bytes = static_cast<int64_t>(workspace.size());
    return p;
  }
  void forget() { std::memset(y.data(), 0xff, y.size() * sizeof(float)); }
  // As SharedListsProblem::first_wrong.
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
  static constexpr DType kDType = std::is_same_v<T, BFloat16> ? DType::kBFloat16 : DType::kFloat16;
};

}  // namespace sparsecore

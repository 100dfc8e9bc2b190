// A V:N:M product with its answer in float64.
#pragma once

#include <numeric>
#include <stdexcept>

#include "cuda/tests/shared_lists_problem.h"
#include "cuda/vnm/vnm.h"

namespace sparsecore {

struct VnmShape {
  int64_t m, n, k;
  int vector;
  int64_t group;  // M
};

// Views as in SharedListsProblem.
template <class T>
struct VnmProblem : LinearProblem<LinearOptions> {
  VnmShape shape;
  int64_t picked;
  cuda_emulation::GlobalBuffer<char> values;
  cuda_emulation::GlobalBuffer<uint32_t> metadata;
  cuda_emulation::GlobalBuffer<uint16_t> columns;

  VnmProblem(const VnmShape& s, int64_t offset = 0, int64_t pad = 0, unsigned seed = 1)
      : LinearProblem(s.m, s.n, s.k, views<T>(offset, pad, seed)),
        shape(s),
        picked(4 * ((s.k + s.group - 1) / s.group)),
        values(semi_structured_value_bytes(s.n, picked, options.dtype)),
        metadata(semi_structured_metadata_words(s.n, picked, options.dtype)),
        columns((s.n + s.vector - 1) / s.vector * picked) {
    Numbers numbers(seed + 200);
    std::mt19937& random = numbers.random;
    for (int64_t at = 0; at < static_cast<int64_t>(columns.size()); at += 4) {
      const int64_t first = at % picked / 4 * s.group, width = std::min(s.group, k - first);
      std::vector<uint16_t> of_group(width);
      std::iota(of_group.begin(), of_group.end(), static_cast<uint16_t>(first));
      std::shuffle(of_group.begin(), of_group.end(), random);
      of_group.resize(4, kNoColumn);
      std::sort(of_group.begin(), of_group.end());
      std::copy(of_group.begin(), of_group.end(), columns.data() + at);
    }
    std::vector<T> of_picked(n * picked);
    std::vector<uint8_t> mask(n * picked), kept(n * k);
    std::vector<float> dense(n * k);
    for (int64_t o = 0; o < n; ++o)
      for (int64_t j = 0; j < picked; ++j) {
        const uint16_t column = columns[o / s.vector * picked + j];
        const bool exists = column != kNoColumn;
        const float weight = exists ? numbers() : 0.0f;
        narrow(weight, &of_picked[o * picked + j]);
        // Zero, one or two of four.
        mask[o * picked + j] =
            exists && random() % 3 == 0 && std::count(&mask[o * picked + j / 4 * 4], &mask[o * picked + j], 1) < 2;
        if (!mask[o * picked + j]) continue;
        dense[o * k + column] = weight;
        kept[o * k + column] = 1;
      }
    if (semi_structured_pack(of_picked.data(), options.dtype, mask.data(), n, picked, values.data(), metadata.data()) !=
        Status::kOk)
      throw std::runtime_error("the problem's weight could not be packed");
    expect(dense, kept);
  }

  VnmWeight weight() {
    VnmWeight w;
    w.packed = {values.data(), metadata.data(), static_cast<int64_t>(values.size()),
                static_cast<int64_t>(metadata.size())};
    w.columns = columns.data();
    w.picked = picked;
    w.vector = shape.vector;
    return w;
  }
  VnmLinearParams params(int64_t workspace_bytes) {
    VnmLinearParams p;
    fill(p, workspace_bytes);
    p.weight = weight();
    return p;
  }
};

}  // namespace sparsecore

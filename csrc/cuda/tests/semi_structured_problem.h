// A 2:4 product with its answer in float64, for the tests of every kernel of the family.
#pragma once

#include <stdexcept>

#include "cuda/semi_structured/matmul.h"
#include "cuda/tests/linear_problem.h"
#include "sparsecore/window_lift.h"

namespace sparsecore {

struct ProblemOptions : LinearOptions {
  int32_t group = 4;  // of which all but two may be kept
};

struct MatmulProblem : LinearProblem<ProblemOptions> {
  cuda_emulation::GlobalBuffer<char> values;
  cuda_emulation::GlobalBuffer<uint32_t> metadata;
  std::vector<char> dense;
  std::vector<uint8_t> mask;

  MatmulProblem(int64_t m, int64_t n, int64_t k, const ProblemOptions& o)
      : LinearProblem(m, n, k, o),
        values(semi_structured_value_bytes(n, lifted_inputs(k, o.group), o.dtype)),
        metadata(semi_structured_metadata_words(n, lifted_inputs(k, o.group), o.dtype)),
        dense(n * k * size_of(o.dtype)),
        mask(n * k) {
    Numbers numbers(o.seed + 100, o.integers);
    const int64_t bytes = size_of(o.dtype);
    std::vector<float> weight(n * k);
    for (int64_t i = 0; i < n * k; ++i) {
      encode(numbers(o.dtype), o.dtype, dense.data() + i * bytes);
      weight[i] = decode(dense.data() + i * bytes, o.dtype);
    }
    for (int64_t row = 0; row < n; ++row)
      for (int64_t i = 0; i < k; i += o.group)
        for (int pick = 0; pick < o.group - 2; ++pick) {
          // Full groups too, which picks at random hardly ever make of long ones.
          const int64_t place =
              o.group > 4 && row % 2 ? i + (row + pick) % o.group : i + numbers.random() % (o.group + 1);
          if (place < std::min(i + o.group, k)) mask[row * k + place] = 1;
        }
    if (window_lift_pack(dense.data(), o.dtype, mask.data(), n, k, o.group, values.data(), metadata.data()) !=
        Status::kOk)
      throw std::runtime_error("the problem's weight could not be packed");
    expect(weight, mask);
  }

  SemiStructuredMatmulParams params(int64_t workspace_bytes) {
    SemiStructuredMatmulParams p;
    fill(p, workspace_bytes);
    p.weight = {values.data(), metadata.data(), static_cast<int64_t>(values.size()),
                static_cast<int64_t>(metadata.size())};
    p.group = options.group;
    return p;
  }
};

}  // namespace sparsecore

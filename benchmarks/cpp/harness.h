// What the kernel benchmarks share: layers with random weights, results checked before they are timed, rates beside the
// machine's limits. Kernels are reached by capping the instruction set, so a new row of a dispatch table is measured
// without a word here.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <vector>

#include "shapes.h"
#include "sparsecore/linear.h"
#include "sparsecore/types.h"

namespace bench {

using sparsecore::Compute;
using sparsecore::DType;
using sparsecore::Isa;
using sparsecore::LinearIo;
using sparsecore::Status;

// The linear operator on copy i of a packed weight.
using Call = std::function<Status(const LinearIo&, int64_t copy)>;

// How a weight is kept: `kept` of every `group` columns, at random places chosen once for `shared` rows.
struct Pattern {
  int kept, group, shared;
  bool operator==(const Pattern&) const = default;
};

struct Weight {
  int64_t n, k;
  Pattern pattern;
  DType dtype;
  std::vector<char> dense;    // [n, k] of dtype
  std::vector<uint8_t> mask;  // [n, k]

  Weight(const Shape& shape, DType dtype, Pattern pattern);
  int64_t kept_weights() const { return n * ((k / pattern.group) * pattern.kept); }
};

// The dense side of a call; x and the results are its own.
struct Layer {
  std::vector<char> x, y;
  std::vector<float> scale;
  LinearIo io;

  Layer(const Weight& weight, int64_t tokens, Compute compute);
  // The largest error of y against loops in double precision over some outputs, relative to the largest exact value.
  double error(const Weight& weight) const;
};

// One benchmark. Its weight is made when it runs, and kept for the next if that has the same.
struct Case {
  std::string name;  // "shared_lists/v64/2:4/float32"
  Isa isa;
  int threads;
  const char* roof;  // the product it is limited by, a name of roof.h
  Shape shape;
  DType dtype;
  Pattern pattern;
  int64_t tokens;
  Compute compute;
  int64_t (*bytes)(const Weight&);  // of the packed weight
  bool from_memory;                 // copies of the weight take turns, so that each is read from memory
  Call (*pack)(const Weight&, int64_t copies);
};

// Registers a case under name/isa/shape/M/threads.
void add(Case benchmark);

// The levels at which an operator has a kernel of its own for a weight type and this machine can run it, from the
// dispatch tables; scalar only where there is nothing else. And the numbers of threads: 1 and 2 where there are two.
std::vector<Isa> levels(const std::string& op, DType weights);
const std::vector<int>& thread_counts();

const char* name_of(DType dtype);

// Initialises Google Benchmark, runs what was added.
int run(int argc, char** argv);

}  // namespace bench

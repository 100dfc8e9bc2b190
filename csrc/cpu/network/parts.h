// A chain on several threads: each part of its rows in buffers of its own (bands.h).
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/network/plan.h"
#include "cpu/network/run.h"

namespace sparsecore::network {

class ChainParts {
 public:
  // Parts for so many threads; what was made before is kept where it serves. False where memory cannot be had.
  bool prepare(const Graph& graph, const Chain& chain, int threads);
  // `places` of all values. One part works in the arena's buffers, each of its steps on all threads; several have their
  // own. `seconds` of each step of the graph grow by the time it took, where they are wanted: one part only.
  Status run(const Graph& graph, const Chain& chain, const std::vector<Place>& places, double* seconds);

 private:
  struct Part {
    Bands bands;
    std::vector<Place> places;
  };
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  Status run_part(const Graph& graph, const Chain& chain, Part* part, double* seconds) const;

  int threads_ = 0;
  std::vector<Part> parts_;
  std::vector<int64_t> roofs_;  // as of the chain, for the largest part
  std::unique_ptr<float, Free> buffers_;
  int64_t part_elements_ = 0;  // of buffers_
};

}  // namespace sparsecore::network

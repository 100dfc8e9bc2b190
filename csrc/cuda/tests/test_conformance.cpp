// Every PTX wrapper against scalar code, under every adversary.
#include <doctest/doctest.h>

#include "cuda/conformance/check.h"
#include "emulation.h"

using namespace sparsecore::conformance;

TEST_CASE("wrappers conform") {
  for (const Check& check : all_checks()) {
    for (const cuda_emulation::Options& options : cuda_emulation::adversaries(check.capability, 2)) {
      const cuda_emulation::ScopedOptions scoped(options);
      INFO(check.name, ", seed ", options.seed);
      CHECK(check.run() == "");
    }
  }
}

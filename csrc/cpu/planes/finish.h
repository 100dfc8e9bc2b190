// Activations at the end of a sum. Those that clamp are two instructions while the sum is in a register. The others are
// a second pass over the outputs while these are in the level 1 cache: inside the loops they would take the registers
// of weights and sums.
#pragma once

#include <limits>

#include "sparsecore/types.h"

namespace sparsecore::planes {
namespace {

// The first `count` lanes, all where there are more.
template <typename V>
inline void store_up_to(float* p, typename V::F value, int64_t count) {
  if (count >= V::kLanes) {
    V::store(p, value);
  } else {
    V::store_some(p, value, count);
  }
}

template <typename V>
class Finish {
  using F = typename V::F;

 public:
  explicit Finish(Activation activation)
      : low_(V::splat(activation == Activation::kRelu || activation == Activation::kRelu6 ? 0.0f : -kInfinity)),
        high_(V::splat(activation == Activation::kRelu6 ? 6.0f : kInfinity)),
        activation_(activation),
        clamps_(activation == Activation::kNone || activation == Activation::kRelu ||
                activation == Activation::kRelu6) {}

  bool clamps() const { return clamps_; }
  F clamp(F x) const { return V::max(low_, V::min(high_, x)); }

  // To be called once for every output, after clamp().
  void activate(float* y, int64_t count) const {
    if (!clamps_) pass(y, count, activation_);
  }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  __attribute__((noinline)) static void pass(float* y, int64_t count, Activation activation) {
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) V::store(y + i, V::activate(V::load(y + i), activation));
    if (i < count) V::store_some(y + i, V::activate(V::load_some(y + i, count - i), activation), count - i);
  }

  F low_, high_;
  Activation activation_;
  bool clamps_;
};

}  // namespace
}  // namespace sparsecore::planes

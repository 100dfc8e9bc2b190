// Activations at the end of a sum that is still in registers: those that clamp take two instructions, the others a
// call.
#pragma once

#include <limits>

#include "sparsecore/types.h"

namespace sparsecore::planes {
namespace {

template <typename V>
class Finish {
  using F = typename V::F;

 public:
  explicit Finish(Activation activation)
      : low_(V::splat(activation == Activation::kNone ? -kInfinity : 0.0f)),
        high_(V::splat(activation == Activation::kRelu6 ? 6.0f : kInfinity)),
        activation_(activation),
        clamps_(activation == Activation::kNone || activation == Activation::kRelu ||
                activation == Activation::kRelu6) {}

  F operator()(F x) const {
    return __builtin_expect(clamps_, 1) ? V::max(low_, V::min(high_, x)) : smooth(x, activation_);
  }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  __attribute__((noinline)) static F smooth(F x, Activation activation) { return V::activate(x, activation); }

  F low_, high_;
  Activation activation_;
  bool clamps_;
};

// The first `count` lanes, all where there are more.
template <typename V>
inline void store_up_to(float* p, typename V::F value, int64_t count) {
  if (count >= V::kLanes) {
    V::store(p, value);
  } else {
    V::store_some(p, value, count);
  }
}

}  // namespace
}  // namespace sparsecore::planes

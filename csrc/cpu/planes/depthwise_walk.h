// The sums of a strip of outputs, K x K taps of stride S: the strip walks down the rows of x. A row is loaded once and
// added to all output rows that reach it, kept in registers meanwhile: M = ceil(K / S) of them.
//
// Step u takes rows S u .. S u + S - 1, counted from the first that output 0 reaches, and adds row S u + s to output
// u - m through kernel row S m + s, for each m < M. After it output u - (M - 1) is complete. An output gathers its taps
// in their order, whatever the strip.
#pragma once

#include "cpu/each.h"

namespace sparsecore::planes {
namespace {

// Strip: load(i) gives what tap<j>(loaded) takes apart into tap j of row i; store(sum) is called for one output row
// after the other.
template <typename V, int K, int S, typename Strip>
class Walk {
  using F = typename V::F;
  static constexpr int kSums = (K + S - 1) / S;

 public:
  __attribute__((always_inline)) static inline void run(Strip& strip, int64_t outputs, const F (&weight)[K * K],
                                                        F bias) {
    F sums[kSums];
    each<kSums>([&]<size_t m>() { sums[m] = bias; });
    // The first steps reach no earlier outputs than 0, the last no later ones than there are.
    each<kSums - 1>([&]<size_t u>() {
      step<0, static_cast<int>(u)>(strip, u, weight, sums);
      advance(sums, bias);
    });
    for (int64_t u = kSums - 1; u < outputs; ++u) {
      step<0, kSums - 1>(strip, u, weight, sums);
      strip.store(sums[kSums - 1]);
      advance(sums, bias);
    }
    each<kSums - 1>([&]<size_t i>() {
      constexpr int kFirst = static_cast<int>(i) + 1;
      if (outputs + kFirst < kSums) return;
      step<kFirst, kSums - 1>(strip, outputs + kFirst - 1, weight, sums);
      strip.store(sums[kSums - 1]);
      advance(sums, bias);
    });
  }

 private:
  // Step u for the sums kFirst .. kLast.
  template <int kFirst, int kLast>
  __attribute__((always_inline)) static inline void step(const Strip& strip, int64_t u, const F (&weight)[K * K],
                                                         F (&sums)[kSums]) {
    each<S>([&]<size_t s>() {
      if constexpr (kFirst * S + static_cast<int>(s) < K) {
        const auto loaded = strip.load(u * S + static_cast<int64_t>(s));
        each<K>([&]<size_t j>() {
          const F tap = strip.template tap<j>(loaded);
          each<kLast - kFirst + 1>([&]<size_t i>() {
            constexpr int kSum = kFirst + static_cast<int>(i), kRow = kSum * S + static_cast<int>(s);
            if constexpr (kRow < K) sums[kSum] = V::madd(tap, weight[kRow * K + static_cast<int>(j)], sums[kSum]);
          });
        });
      }
    });
  }

  __attribute__((always_inline)) static inline void advance(F (&sums)[kSums], F bias) {
    each<kSums - 1>([&]<size_t m>() { sums[kSums - 1 - m] = sums[kSums - 2 - m]; });
    sums[0] = bias;
  }
};

}  // namespace
}  // namespace sparsecore::planes

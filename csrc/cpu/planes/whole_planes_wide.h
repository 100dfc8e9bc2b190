// Sums, lines and small dense layers over wide lanes. The order of a sum depends on its length alone.
#pragma once

#include <algorithm>

#include "cpu/each.h"
#include "cpu/planes/finish.h"
#include "cpu/planes/planes.h"

namespace sparsecore::planes {
namespace {

template <typename V>
struct WholePlanes {
  using F = typename V::F;
  static constexpr int kSums = 4;  // hide the latency of additions

  static float sum(const float* x, int64_t count) {
    F sums[kSums];
    each<kSums>([&]<size_t s>() { sums[s] = V::splat(0.0f); });
    int64_t i = 0;
    for (; i + kSums * V::kLanes <= count; i += kSums * V::kLanes)
      each<kSums>([&]<size_t s>() { sums[s] = V::add(sums[s], V::load(x + i + static_cast<int64_t>(s) * V::kLanes)); });
    for (; i + V::kLanes <= count; i += V::kLanes) sums[0] = V::add(sums[0], V::load(x + i));
    if (i < count) sums[1] = V::add(sums[1], V::load_some(x + i, count - i));
    return V::sum(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
  }

  static void line(const Line& a) {
    const Finish<V> finish(a.activation);
    const auto end = [&](F x) { return finish.clamps() ? finish.clamp(x) : V::activate(x, a.activation); };
    const F factor = V::splat(a.factor);
    int64_t i = 0;
    for (; i + V::kLanes <= a.count; i += V::kLanes) {
      const F x = V::load(a.x + i);
      V::store(a.y + i, end(a.addend ? V::madd(x, factor, V::load(a.addend + i)) : V::mul(x, factor)));
    }
    if (i == a.count) return;
    const int64_t rest = a.count - i;
    const F x = V::load_some(a.x + i, rest);
    const F y = a.addend ? V::madd(x, factor, V::load_some(a.addend + i, rest)) : V::mul(x, factor);
    V::store_some(a.y + i, end(y), rest);
  }

  static float dot(const float* a, const float* b, int64_t count) {
    F sums[kSums];
    each<kSums>([&]<size_t s>() { sums[s] = V::splat(0.0f); });
    int64_t i = 0;
    for (; i + kSums * V::kLanes <= count; i += kSums * V::kLanes)
      each<kSums>([&]<size_t s>() {
        const int64_t at = i + static_cast<int64_t>(s) * V::kLanes;
        sums[s] = V::madd(V::load(a + at), V::load(b + at), sums[s]);
      });
    for (; i + V::kLanes <= count; i += V::kLanes) sums[0] = V::madd(V::load(a + i), V::load(b + i), sums[0]);
    if (i < count) sums[1] = V::madd(V::load_some(a + i, count - i), V::load_some(b + i, count - i), sums[1]);
    return V::sum(V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3])));
  }

  static void dense(const DenseRows& a) {
    for (int64_t o = 0; o < a.n; ++o) a.y[o] = dot(a.weight + o * a.k, a.x, a.k) + (a.bias ? a.bias[o] : 0.0f);
    line({a.y, nullptr, 1.0f, a.y, a.n, a.activation});
  }
};

}  // namespace
}  // namespace sparsecore::planes

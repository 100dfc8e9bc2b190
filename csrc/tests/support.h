// What test files share: arrays whose element type is chosen at run time, the levels of this machine, and threads.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>
#if !defined(__wasm__)
#include <thread>
#endif

#include "cpu/narrow.h"
#include "sparsecore/backends.h"
#include "sparsecore/cpu.h"
#include "sparsecore/parallel.h"

namespace sparsecore::testing {

using Bytes = std::vector<uint8_t>;

// Element i of an array of `dtype`; int8 takes whole numbers.
inline void put(Bytes& array, DType dtype, int64_t i, float value) {
  const auto store = [&](auto out) {
    narrow(value, &out);
    std::memcpy(&array[i * sizeof(out)], &out, sizeof(out));
  };
  switch (dtype) {
    case DType::kInt8: array[i] = static_cast<uint8_t>(static_cast<int8_t>(value)); break;
    case DType::kBFloat16: return store(BFloat16{});
    case DType::kFloat16: return store(Float16{});
    default: return store(float{});
  }
}

inline float get(const Bytes& array, DType dtype, int64_t i) {
  const auto load = [&](auto value) {
    std::memcpy(&value, &array[i * sizeof(value)], sizeof(value));
    return widen(value);
  };
  switch (dtype) {
    case DType::kInt8: return load(int8_t{});
    case DType::kBFloat16: return load(BFloat16{});
    case DType::kFloat16: return load(Float16{});
    default: return load(float{});
  }
}

// All of `array` as floats: what a reference reads in its inner loop.
inline std::vector<float> widened(const Bytes& array, DType dtype) {
  std::vector<float> values(array.size() / size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) values[i] = get(array, dtype, static_cast<int64_t>(i));
  return values;
}

// The value as its type holds it.
inline float rounded(DType dtype, float value) {
  Bytes one(4);
  put(one, dtype, 0, value);
  return get(one, dtype, 0);
}

inline std::string name_of(DType dtype) {
  static const char* const kNames[] = {"float32", "bfloat16", "float16", "int8"};
  return kNames[static_cast<int>(dtype)];
}

// Linear without bias and scale, [m, n], and the sums of magnitudes that bound the error of float32 sums.
struct ExactSums {
  std::vector<double> sums, magnitudes;
};

// x [m, x_stride], weight [n, k], of which keeps(o, c) says what counts.
template <typename Keeps>
ExactSums exact_linear(int64_t m, int64_t n, int64_t k, const std::vector<float>& x, int64_t x_stride,
                       const std::vector<float>& weight, Keeps keeps) {
  ExactSums exact = {std::vector<double>(m * n), std::vector<double>(m * n)};
  for (int64_t o = 0; o < n; ++o)
    for (int64_t c = 0; c < k; ++c) {
      if (!keeps(o, c)) continue;
      for (int64_t t = 0; t < m; ++t) {
        const double term = static_cast<double>(weight[o * k + c]) * x[t * x_stride + c];
        exact.sums[t * n + o] += term;
        exact.magnitudes[t * n + o] += std::fabs(term);
      }
    }
  return exact;
}

// Scalar first.
inline std::vector<Isa> levels() {
  std::vector<Isa> found(available_isas(nullptr, 0));
  available_isas(found.data(), static_cast<int>(found.size()));
  return found;
}

// The levels at which an operator has a kernel of its own that this machine can run: kernels of floats, or those that
// take int8 alone.
inline std::vector<Isa> levels_of(const std::string& op, bool int8_alone = false) {
  std::vector<Backend> rows(backends(nullptr, 0));
  backends(rows.data(), static_cast<int>(rows.size()));
  std::vector<Isa> found;
  for (const Backend& row : rows)
    if (op == row.op && (std::string("int8") == row.weights) == int8_alone && isa_enabled(row.isa))
      found.push_back(row.isa);
  return found;
}

struct CapRestored {
  Isa before = current_isa();
  ~CapRestored() { set_isa_cap(before); }
};

// References do not depend on the level: compute them outside.
template <typename Body>
void on_every_level(Body&& body) {
  const CapRestored restored;
  for (const Isa isa : levels()) {
    REQUIRE(set_isa_cap(isa));
    CAPTURE(isa_name(isa));
    body(isa);
  }
}

// Work cut as for so many threads, on two of them (without threads on one), the last task first. Test cases that use
// them stand in the suite "threads", the one that the thread sanitizer runs.
class Threads {
 public:
  explicit Threads(int count) {
    wanted = count;
    set_parallel_host({run, [] { return wanted; }});
  }
  ~Threads() { set_parallel_host({nullptr, nullptr}); }

 private:
  static inline int wanted = 1;

  static void run(int64_t count, Task task, void* context) {
#if defined(__wasm__)
    for (int64_t i = count; i-- > 0;) task(context, i);
#else
    const auto every_second = [=](int64_t last) {
      for (int64_t i = last; i >= 0; i -= 2) task(context, i);
    };
    std::thread other(every_second, count - 2);
    every_second(count - 1);
    other.join();
#endif
  }
};

}  // namespace sparsecore::testing

// Variable N:16 on every level this machine has: integer inputs, so results must be exact.
#include <algorithm>
#include <cstring>
#include <random>

#include "sparsecore/variable_nm.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

struct Problem {
  int64_t m, n, k;
  std::vector<uint8_t> codes, mask;
  std::vector<float> weight, x, bias, exact;
};

// Small integers: every sum is exact in float32, whatever its order, and every weight in the narrow types.
Problem make_problem(int64_t m, int64_t n, int64_t k, const std::vector<int>& kinds, unsigned seed) {
  std::mt19937 random(seed);
  Problem p{m, n, k, {}, std::vector<uint8_t>(n * k, 0), {}, {}, {}, {}};
  const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 9) - 4); };
  for (int64_t i = 0; i < n * k / 256; ++i) p.codes.push_back(static_cast<uint8_t>(kinds[random() % kinds.size()]));
  for (int64_t i = 0; i < n * k; ++i) p.weight.push_back(draw());
  for (int64_t i = 0; i < m * k; ++i) p.x.push_back(draw());
  for (int64_t i = 0; i < n; ++i) p.bias.push_back(draw());
  for (int64_t row = 0; row < n; ++row)
    for (int64_t b = 0; b < k / 16; ++b) {
      const int code = p.codes[row / 16 * (k / 16) + b];
      for (int i = 0; i < code; ++i) p.mask[row * k + b * 16 + (code == 16 ? i : random() % 16)] = 1;
    }
  for (int64_t t = 0; t < m; ++t)
    for (int64_t o = 0; o < n; ++o) {
      double sum = p.bias[o];
      for (int64_t c = 0; c < k; ++c)
        if (p.mask[o * k + c]) sum += static_cast<double>(p.weight[o * k + c]) * p.x[t * k + c];
      p.exact.push_back(static_cast<float>(sum));
    }
  return p;
}

template <typename T>
struct Packed {
  std::vector<T> dense, values;
  std::vector<uint8_t> indices;
  VariableNM weight;
};

// Arrays exactly as long as they may be read: the sanitizer watches.
template <typename T>
Packed<T> pack(const Problem& p, DType dtype) {
  Packed<T> packed;
  packed.dense.resize(p.weight.size());
  for (size_t i = 0; i < p.weight.size(); ++i) {
    if constexpr (std::is_same_v<T, int8_t>) {
      packed.dense[i] = static_cast<int8_t>(p.weight[i]);
    } else {
      narrow(p.weight[i], &packed.dense[i]);
    }
  }
  int64_t values = 0, indices = 0;
  REQUIRE(variable_nm_count(p.codes.data(), p.n, p.k, &values, &indices) == Status::kOk);
  packed.values.resize(values);
  packed.indices.resize(indices);
  REQUIRE(variable_nm_pack(packed.dense.data(), dtype, p.mask.data(), p.codes.data(), p.n, p.k, packed.values.data(),
                           packed.indices.data()) == Status::kOk);
  packed.weight = {packed.values.data(),
                   packed.indices.data(),
                   p.codes.data(),
                   values,
                   indices,
                   static_cast<int64_t>(p.codes.size())};
  return packed;
}

template <typename T>
void run(const Problem& p, DType dtype) {
  const Packed<T> packed = pack<T>(p, dtype);
  REQUIRE(variable_nm_validate(packed.weight, p.n, p.k, nullptr) == Status::kOk);
  std::vector<T> back(p.n * p.k + 1), kept(back.size());
  REQUIRE(variable_nm_unpack(packed.weight, dtype, p.n, p.k, back.data()) == Status::kOk);
  for (size_t i = 0; i < p.mask.size(); ++i)
    if (p.mask[i]) kept[i] = packed.dense[i];
  CHECK(std::memcmp(back.data(), kept.data(), back.size() * sizeof(T)) == 0);
  const int64_t gap = 3;  // rows of x and y may be strided
  std::vector<float> x(p.m * (p.k + gap) + 1, 1e30f), y(p.m * (p.n + gap) + 1), expected(y.size(), -77.0f);
  for (int64_t t = 0; t < p.m; ++t) {
    std::copy_n(p.x.begin() + t * p.k, p.k, x.begin() + t * (p.k + gap));
    std::copy_n(p.exact.begin() + t * p.n, p.n, expected.begin() + t * (p.n + gap));
  }
  const std::vector<float> scale(p.n + 1, 1.0f);
  LinearIo io;
  io.x = x.data();
  io.y = y.data();
  io.bias = p.bias.data();
  io.weight_scale = dtype == DType::kInt8 ? scale.data() : nullptr;
  io.m = p.m;
  io.n = p.n;
  io.k = p.k;
  io.x_row_stride = p.k + gap;
  io.y_row_stride = p.n + gap;
  io.weight_dtype = dtype;
  on_every_level([&](Isa) {
    for (const int count : {1, 3}) {
      const Threads threads(count);
      std::fill(y.begin(), y.end(), -77.0f);
      REQUIRE(variable_nm_linear(io, packed.weight) == Status::kOk);
      CHECK(y == expected);
    }
  });
}

}  // namespace

TEST_CASE("variable N:16 is exact for every mix of codes, type, shape and level" * doctest::test_suite("threads")) {
  const std::vector<std::vector<int>> mixes = {{0},  {2},           {4},           {8},
                                               {16}, {2, 4, 8, 16}, {0, 0, 2, 16}, {0, 2, 4, 8, 16}};
  const int64_t shapes[][2] = {{16, 16}, {16, 80}, {48, 16}, {112, 208}, {0, 16}, {16, 0}};
  unsigned seed = 0;
  for (const auto& mix : mixes)
    for (const auto& shape : shapes)
      for (const int64_t m : {0, 1, 2, 3, 5, 8, 9, 17}) {
        CAPTURE(shape[0]);
        CAPTURE(shape[1]);
        CAPTURE(m);
        const Problem p = make_problem(m, shape[0], shape[1], mix, ++seed);
        run<float>(p, DType::kFloat32);
        if (m % 4 == 1) {
          run<BFloat16>(p, DType::kBFloat16);
          run<Float16>(p, DType::kFloat16);
          run<int8_t>(p, DType::kInt8);
        }
      }
}

TEST_CASE("what does not fit the variable N:16 format is refused") {
  Problem p = make_problem(1, 32, 48, {2, 4, 8, 16}, 7);
  p.codes[0] = 4;
  p.mask.assign(p.mask.size(), 0);
  Packed<float> packed = pack<float>(p, DType::kFloat32);
  int64_t where = 0;
  REQUIRE(variable_nm_validate(packed.weight, 32, 48, &where) == Status::kOk);

  VariableNM weight = packed.weight;
  CHECK(variable_nm_check(weight, 32, 40) == Status::kBadShape);
  CHECK(variable_nm_check(weight, 48, 32) == Status::kOk);  // as many blocks, in another arrangement
  weight.value_count -= 16;
  CHECK(variable_nm_check(weight, 32, 48) == Status::kBadShape);
  weight = packed.weight;
  weight.index_count += 1;
  CHECK(variable_nm_check(weight, 32, 48) == Status::kBadShape);
  weight = packed.weight;
  weight.indices = nullptr;
  CHECK(variable_nm_check(weight, 32, 48) == Status::kNullPointer);
  weight = packed.weight;
  std::vector<uint8_t> codes = p.codes;
  weight.codes = codes.data();
  for (const int code : {1, 3, 5, 6, 12, 17, 255}) {
    codes[2] = static_cast<uint8_t>(code);
    CHECK(variable_nm_check(weight, 32, 48) == Status::kBadPattern);
  }

  packed.indices[5] = 0x11;  // twice the same input
  CHECK(variable_nm_validate(packed.weight, 32, 48, &where) == Status::kUnsorted);
  CHECK(where >= 0);

  const int64_t keep_too_many[] = {0, 1, 2, 3, 4};
  for (const int64_t i : keep_too_many) p.mask[i] = 1;
  CHECK(variable_nm_pack(packed.dense.data(), DType::kFloat32, p.mask.data(), p.codes.data(), 32, 48,
                         packed.values.data(), packed.indices.data()) == Status::kBadPattern);
  p.mask.assign(p.mask.size(), 0);
  p.mask[0] = 1;
  p.codes[0] = 0;
  CHECK(variable_nm_pack(packed.dense.data(), DType::kFloat32, p.mask.data(), p.codes.data(), 32, 48,
                         packed.values.data(), packed.indices.data()) == Status::kBadPattern);
}

// Every kernel of the family on every level this machine has, against loops in double precision. Integer-valued inputs
// make sums exact, so that equality is asked for, not closeness.
#include <cmath>
#include <cstring>
#include <random>

#include "sparsecore/shared_lists.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

struct Shape {
  int64_t m, n, k;
  int32_t vector;
  double density;
};

// A packed random layer with everything a call needs. Values are small integers, or normal deviates.
struct Problem {
  Shape shape;
  DType dtype, weights;
  int64_t groups, x_stride, y_stride;
  Bytes dense, x, values, y, bias;
  std::vector<uint8_t> mask;
  std::vector<uint16_t> columns;
  std::vector<int32_t> group_ptr;
  std::vector<float> scale;
  SharedLists lists;
  LinearIo io;

  Problem(Shape s, DType dtype, DType weights, bool integers, unsigned seed)
      : shape(s), dtype(dtype), weights(weights), groups((s.n + s.vector - 1) / s.vector) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto draw = [&](int range) {
      if (!integers) return normal(random);
      return static_cast<float>(static_cast<int>(random() % (2 * range + 1)) - range);
    };
    x_stride = s.k + 3;
    y_stride = s.n + 5;
    mask.resize(groups * s.k);
    for (auto& kept : mask) kept = random() % 1000 < s.density * 1000;
    if (groups > 1) std::fill(mask.begin(), mask.begin() + s.k, uint8_t{0});  // one group keeps nothing
    dense.resize(s.n * s.k * size_of(weights));
    for (int64_t o = 0; o < s.n; ++o)
      for (int64_t c = 0; c < s.k; ++c)
        if (mask[o / s.vector * s.k + c])
          put(dense, weights, o * s.k + c, weights == DType::kInt8 ? std::round(draw(3) * 9) : draw(3));
    x.resize((s.m * x_stride + 1) * size_of(dtype));
    for (int64_t i = 0; i < s.m * x_stride; ++i) put(x, dtype, i, draw(3));
    y.assign((s.m * y_stride + 1) * size_of(dtype), 0x5a);
    bias.resize(s.n * 4);
    for (int64_t o = 0; o < s.n; ++o) put(bias, DType::kFloat32, o, draw(3));
    scale.assign(s.n, 1.0f);
    if (!integers)
      for (float& value : scale) value = 0.5f + 0.25f * std::fabs(normal(random));
    const int64_t records = shared_lists_count(mask.data(), groups, s.k);
    values.resize(records * s.vector * size_of(weights));
    columns.resize(records);
    group_ptr.resize(groups + 1);
    REQUIRE(shared_lists_pack(dense.data(), weights, mask.data(), s.n, s.k, s.vector, values.data(), columns.data(),
                              group_ptr.data()) == Status::kOk);
    lists = {values.data(), columns.data(), group_ptr.data(), records, s.vector};
    io.x = x.data();
    io.y = y.data();
    io.bias = bias.data();
    io.weight_scale = scale.data();
    io.m = s.m, io.n = s.n, io.k = s.k;
    io.x_row_stride = x_stride, io.y_row_stride = y_stride;
    io.dtype = dtype;
    io.weight_dtype = weights;
  }

  ExactSums exact() const {
    return exact_linear(shape.m, shape.n, shape.k, widened(x, dtype), x_stride, widened(dense, weights),
                        [&](int64_t o, int64_t c) { return mask[o / shape.vector * shape.k + c] != 0; });
  }
};

std::string describe(const Problem& p, Isa isa) {
  return std::string(isa_name(isa)) + " m=" + std::to_string(p.shape.m) + " n=" + std::to_string(p.shape.n) +
         " k=" + std::to_string(p.shape.k) + " vector=" + std::to_string(p.shape.vector) + " x " + name_of(p.dtype) +
         " w " + name_of(p.weights);
}

// Untouched memory between the rows of y.
bool gaps_kept(const Problem& p) {
  const int64_t size = size_of(p.dtype);
  for (int64_t t = 0; t < p.shape.m; ++t)
    for (int64_t i = p.shape.n * size; i < p.y_stride * size; ++i)
      if (p.y[t * p.y_stride * size + i] != 0x5a) return false;
  return true;
}

const std::vector<Shape> kShapes = {
    {1, 64, 96, 64, 0.5},   {2, 130, 97, 64, 0.25}, {3, 7, 5, 16, 0.5},      {5, 64, 33, 64, 0.5},
    {6, 64, 64, 64, 0.1},   {7, 65, 61, 64, 0.5},   {13, 31, 64, 32, 0.5},   {14, 96, 48, 32, 0.3},
    {15, 33, 17, 32, 1.0},  {23, 48, 40, 16, 0.5},  {24, 16, 130, 16, 0.25}, {25, 50, 77, 16, 0.5},
    {29, 16, 8, 16, 0.5},   {31, 24, 19, 8, 0.5},   {33, 20, 29, 4, 0.5},    {32, 128, 64, 64, 0.5},
    {65, 70, 31, 32, 0.5},  {97, 17, 23, 16, 0.5},  {4, 64, 1200, 64, 0.9},  {49, 128, 2100, 16, 0.5},
    {200, 40, 20, 16, 0.5}, {1, 1, 1, 4, 1.0},      {0, 16, 16, 16, 0.5},    {3, 0, 16, 16, 0.5},
    {3, 40, 0, 16, 0.5},    {9, 300, 50, 64, 0.0},  {11, 200, 101, 8, 0.4},
};

}  // namespace

TEST_CASE("shared lists: pack, unpack, validate") {
  for (const Shape& shape : kShapes)
    for (const DType weights : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
      Problem p(shape, DType::kFloat32, weights, true, 1);
      Bytes back(p.dense.size(), 0xff);
      REQUIRE(shared_lists_unpack(p.lists, weights, shape.n, shape.k, back.data()) == Status::kOk);
      CHECK(back == p.dense);
      int64_t where = -1;
      CHECK(shared_lists_validate(p.lists, shape.n, shape.k, &where) == Status::kOk);
    }
}

TEST_CASE("shared lists: offences are found and never reach a kernel") {
  Problem p({3, 100, 64, 32, 0.5}, DType::kFloat32, DType::kFloat32, true, 2);
  int64_t where = -1;
  SUBCASE("column outside") {
    p.columns[70] = 64;
    CHECK(shared_lists_check(p.lists, 100, 64) == Status::kBadIndex);
    CHECK(shared_lists_validate(p.lists, 100, 64, &where) == Status::kBadIndex);
    CHECK(where == 70);
    CHECK(shared_lists_linear(p.io, p.lists) == Status::kBadIndex);
    WeightGradIo grad = {p.y.data(), p.x.data(), nullptr, 3, 100, 64, 105, 67, DType::kFloat32};
    std::vector<float> out(p.lists.records * 32);
    grad.out = out.data();
    CHECK(shared_lists_weight_grad(grad, p.lists) == Status::kBadIndex);
  }
  SUBCASE("column repeated") {
    const int64_t first = p.group_ptr[2];
    p.columns[first + 1] = p.columns[first];
    CHECK(shared_lists_check(p.lists, 100, 64) == Status::kOk);
    CHECK(shared_lists_validate(p.lists, 100, 64, &where) == Status::kUnsorted);
    CHECK(where == first + 1);
  }
  SUBCASE("list starts descending") {
    p.group_ptr[2] = p.group_ptr[3] + 1;
    CHECK(shared_lists_linear(p.io, p.lists) == Status::kBadPointers);
  }
  SUBCASE("last start is not the number of records") {
    ++p.lists.records;
    CHECK(shared_lists_check(p.lists, 100, 64) == Status::kBadPointers);
  }
  SUBCASE("vector") {
    p.lists.vector = 24;
    CHECK(shared_lists_check(p.lists, 100, 64) == Status::kBadPattern);
  }
  SUBCASE("missing arrays") {
    p.lists.columns = nullptr;
    CHECK(shared_lists_linear(p.io, p.lists) == Status::kNullPointer);
  }
  SUBCASE("too many columns") { CHECK(shared_lists_check(p.lists, 100, 65537) == Status::kBadShape); }
}

TEST_CASE("shared lists: the transpose holds the same values") {
  for (const Shape& shape : kShapes) {
    Problem p(shape, DType::kFloat32, DType::kFloat32, true, 3);
    for (const int32_t block : {16, 128, 256}) {
      const int64_t blocks = (shape.n + block - 1) / block, width = shape.k + 1;
      int64_t count = 0;
      for (int64_t o = 0; o < shape.n; ++o)
        for (int64_t c = 0; c < shape.k; ++c) count += p.mask[o / shape.vector * shape.k + c];
      std::vector<uint8_t> offsets(p.lists.records * shape.vector + 1);
      std::vector<int32_t> order(p.lists.records * shape.vector + 1), starts(blocks * width + 1, -1);
      REQUIRE(shared_lists_transpose(p.lists, shape.n, shape.k, block, offsets.data(), starts.data(), order.data()) ==
              Status::kOk);
      if (!blocks) continue;
      REQUIRE(starts[blocks * width - 1] == count);
      Bytes rebuilt(p.dense.size());
      for (int64_t b = 0; b < blocks; ++b)
        for (int64_t c = 0; c < shape.k; ++c)
          for (int32_t i = starts[b * width + c]; i < starts[b * width + c + 1]; ++i) {
            if (i > starts[b * width + c]) CHECK(offsets[i] > offsets[i - 1]);
            const int64_t channel = b * block + offsets[i];
            put(rebuilt, DType::kFloat32, channel * shape.k + c, get(p.values, DType::kFloat32, order[i]));
          }
      CHECK(rebuilt == p.dense);
    }
  }
}

TEST_CASE("shared lists: linear on integers is exact on every level, for every type") {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
      for (const DType weights : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
        Problem p(shape, dtype, weights, true, 4);
        Bytes expected(p.y.size(), 0x5a);
        const ExactSums exact = p.exact();
        for (int64_t t = 0; t < shape.m; ++t)
          for (int64_t o = 0; o < shape.n; ++o)
            put(expected, dtype, t * p.y_stride + o,
                static_cast<float>(std::fmax(exact.sums[t * shape.n + o] + get(p.bias, DType::kFloat32, o), 0)));
        p.io.activation = Activation::kRelu;
        for (const Isa isa : levels()) {
          set_isa_cap(isa);
          std::fill(p.y.begin(), p.y.end(), uint8_t{0x5a});
          REQUIRE(shared_lists_linear(p.io, p.lists) == Status::kOk);
          CHECK_MESSAGE(p.y == expected, describe(p, isa));
        }
      }
}

TEST_CASE("shared lists: linear on random values stays within the bound of float32 sums") {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType weights : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
      const DType dtype = weights == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
      Problem p(shape, dtype, weights, false, 5);
      p.io.bias = nullptr;
      const double rounding = dtype == DType::kBFloat16 ? 1.0 / 256 : 0;
      const ExactSums exact = p.exact();
      for (const Isa isa : levels()) {
        set_isa_cap(isa);
        REQUIRE(shared_lists_linear(p.io, p.lists) == Status::kOk);
        double worst = 0;
        for (int64_t t = 0; t < shape.m; ++t)
          for (int64_t o = 0; o < shape.n; ++o) {
            const double sum = exact.sums[t * shape.n + o] * p.scale[o],
                         magnitude = exact.magnitudes[t * shape.n + o] * p.scale[o];
            const double error = std::fabs(get(p.y, dtype, t * p.y_stride + o) - sum);
            const double allowed = (shape.k + 4) * 6e-8 * magnitude + rounding * std::fabs(sum) + 1e-30;
            worst = std::fmax(worst, error / allowed);
          }
        CHECK_MESSAGE(worst <= 1.0, describe(p, isa), " error / bound ", worst);
        CHECK(gaps_kept(p));
      }
    }
}

TEST_CASE("shared lists: int8 products follow the stated quantisation, with the same bits on every level") {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      Problem p(shape, dtype, DType::kInt8, false, 6);
      p.io.compute = Compute::kInt8;
      if (shape.m > 2 && shape.k > 2) {
        for (int64_t c = 0; c < shape.k; ++c) put(p.x, dtype, c, 0);  // a token of zeros
        put(p.x, dtype, p.x_stride + 1, INFINITY);                    // and one that is not finite
      }
      const std::vector<float> inputs = widened(p.x, dtype), kept = widened(p.dense, DType::kInt8);
      std::vector<float> expected;
      for (int64_t t = 0; t < shape.m; ++t) {
        float largest = 0;
        for (int64_t c = 0; c < shape.k; ++c) largest = std::fmax(largest, std::fabs(inputs[t * p.x_stride + c]));
        const bool zero = !(largest > 0 && std::isfinite(largest));
        const float token_scale = std::isfinite(largest) ? largest / 127.0f : NAN;
        for (int64_t o = 0; o < shape.n; ++o) {
          int64_t sum = 0;
          for (int64_t c = 0; c < shape.k && !zero; ++c)
            sum += static_cast<int64_t>(kept[o * shape.k + c]) *
                   static_cast<int64_t>(std::nearbyint(inputs[t * p.x_stride + c] * (127.0f / largest)));
          expected.push_back(
              rounded(dtype, static_cast<float>(sum) * token_scale * p.scale[o] + get(p.bias, DType::kFloat32, o)));
        }
      }
      for (const Isa isa : levels()) {
        set_isa_cap(isa);
        std::fill(p.y.begin(), p.y.end(), uint8_t{0x5a});
        REQUIRE(shared_lists_linear(p.io, p.lists) == Status::kOk);
        int wrong = 0;
        for (int64_t t = 0; t < shape.m; ++t)
          for (int64_t o = 0; o < shape.n; ++o) {
            const float got = get(p.y, dtype, t * p.y_stride + o), want = expected[t * shape.n + o];
            wrong += !(got == want || (std::isnan(got) && std::isnan(want)));
          }
        CHECK_MESSAGE(wrong == 0, describe(p, isa));
        CHECK(gaps_kept(p));
      }
    }
}

TEST_CASE("shared lists: the same bits for any number of threads" * doctest::test_suite("threads")) {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
      for (const Compute compute : {Compute::kFloat32, Compute::kInt8}) {
        Problem p(shape, dtype, compute == Compute::kInt8 ? DType::kInt8 : dtype, false, 7);
        p.io.compute = compute;
        p.io.activation = Activation::kGelu;
        for (const Isa isa : levels()) {
          set_isa_cap(isa);
          REQUIRE(shared_lists_linear(p.io, p.lists) == Status::kOk);
          const Bytes alone = p.y;
          for (const int count : {2, 5}) {
            const Threads threads(count);
            std::fill(p.y.begin(), p.y.end(), uint8_t{0x5a});
            REQUIRE(shared_lists_linear(p.io, p.lists) == Status::kOk);
            CHECK_MESSAGE(p.y == alone, describe(p, isa));
          }
        }
      }
}

TEST_CASE("shared lists: gradient of the values" * doctest::test_suite("threads")) {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      Problem p(shape, dtype, DType::kFloat32, true, 8);
      std::mt19937 random(9);
      Bytes grad_y((shape.m * p.y_stride + 1) * size_of(dtype));
      for (int64_t i = 0; i < shape.m * p.y_stride; ++i) put(grad_y, dtype, i, static_cast<float>(random() % 7) - 3);
      std::vector<float> expected(p.lists.records * shape.vector), out(expected.size());
      for (int64_t g = 0; g < p.groups; ++g)
        for (int64_t r = p.group_ptr[g]; r < p.group_ptr[g + 1]; ++r)
          for (int64_t v = 0; v < shape.vector && g * shape.vector + v < shape.n; ++v)
            for (int64_t t = 0; t < shape.m; ++t)
              expected[r * shape.vector + v] += get(p.x, dtype, t * p.x_stride + p.columns[r]) *
                                                get(grad_y, dtype, t * p.y_stride + g * shape.vector + v);
      const WeightGradIo io = {grad_y.data(), p.x.data(), out.data(), shape.m, shape.n,
                               shape.k,       p.y_stride, p.x_stride, dtype};
      for (const Isa isa : levels())
        for (const int count : {1, 2}) {
          set_isa_cap(isa);
          const Threads threads(count);
          std::fill(out.begin(), out.end(), -99.0f);
          REQUIRE(shared_lists_weight_grad(io, p.lists) == Status::kOk);
          CHECK_MESSAGE(out == expected, describe(p, isa));
        }
    }
}

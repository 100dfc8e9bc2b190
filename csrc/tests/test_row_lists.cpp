// Every kernel of the family on every level this machine has, against loops in double precision. Integer-valued inputs
// make sums exact, so that equality is asked for, not closeness.
#include <cmath>
#include <cstring>
#include <random>

#include "cpu/row_lists/row_lists_half.h"
#include "sparsecore/row_lists.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

struct Shape {
  int64_t m, n, k;
  int32_t block;
  double density;
};

// A packed random layer with everything a call needs. Values are small integers, or normal deviates.
struct Problem {
  Shape shape;
  DType dtype, weights;
  int64_t blocks, x_stride, y_stride;
  Bytes dense, x, values, y, bias;
  std::vector<uint8_t> mask, offsets;
  std::vector<int32_t> block_ptr;
  std::vector<float> scale;
  RowLists lists;
  LinearIo io;

  Problem(Shape s, DType dtype, DType weights, bool integers, unsigned seed)
      : shape(s), dtype(dtype), weights(weights), blocks((s.k + s.block - 1) / s.block) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto draw = [&](int range) {
      if (!integers) return normal(random);
      return static_cast<float>(static_cast<int>(random() % (2 * range + 1)) - range);
    };
    x_stride = s.k + 3;
    y_stride = s.n + 5;
    mask.resize(s.n * s.k);
    for (auto& kept : mask) kept = random() % 1000 < s.density * 1000;
    if (s.n > 1) std::fill(mask.begin(), mask.begin() + s.k, uint8_t{0});  // one channel keeps nothing
    if (s.n > 2) std::fill(mask.end() - s.k, mask.end(), uint8_t{1});      // and one everything
    dense.resize(s.n * s.k * size_of(weights));
    for (int64_t i = 0; i < s.n * s.k; ++i)
      if (mask[i]) put(dense, weights, i, weights == DType::kInt8 ? std::round(draw(3) * 9) : draw(3));
    // Exactly as long as the rows reach, so that a sanitizer sees the first element too many.
    x.resize(s.m ? ((s.m - 1) * x_stride + s.k) * size_of(dtype) : 0);
    for (int64_t i = 0; i < static_cast<int64_t>(x.size()) / size_of(dtype); ++i)
      put(x, dtype, i, i % x_stride < s.k ? draw(3) : NAN);
    y.assign((s.m * y_stride + 1) * size_of(dtype), 0x5a);
    bias.resize(s.n * 4);
    for (int64_t o = 0; o < s.n; ++o) put(bias, DType::kFloat32, o, draw(3));
    scale.assign(s.n, 1.0f);
    if (!integers)
      for (float& value : scale) value = 0.5f + 0.25f * std::fabs(normal(random));
    const int64_t count = row_lists_count(mask.data(), s.n, s.k);
    values.resize(count * size_of(weights));
    offsets.resize(count);
    block_ptr.assign(blocks * (s.n + 1), -1);
    REQUIRE(row_lists_pack(dense.data(), weights, mask.data(), s.n, s.k, s.block, values.data(), offsets.data(),
                           block_ptr.data()) == Status::kOk);
    lists = {values.data(), offsets.data(), block_ptr.data(), count, s.block};
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
                        [&](int64_t o, int64_t c) { return mask[o * shape.k + c] != 0; });
  }
};

std::string describe(const Problem& p, Isa isa) {
  return std::string(isa_name(isa)) + " m=" + std::to_string(p.shape.m) + " n=" + std::to_string(p.shape.n) +
         " k=" + std::to_string(p.shape.k) + " block=" + std::to_string(p.shape.block) + " x " + name_of(p.dtype) +
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
    {1, 64, 96, 16, 0.5},   {1, 37, 300, 128, 0.3},  {2, 33, 97, 32, 0.25},  {3, 7, 5, 16, 0.5},
    {4, 64, 129, 64, 0.5},  {5, 40, 256, 256, 0.1},  {7, 65, 61, 48, 0.5},   {8, 31, 257, 256, 0.9},
    {9, 96, 48, 32, 0.3},   {15, 33, 17, 16, 1.0},   {16, 48, 40, 16, 0.5},  {17, 16, 130, 64, 0.2},
    {31, 24, 190, 48, 0.5}, {32, 130, 70, 64, 0.5},  {33, 20, 29, 16, 0.5},  {47, 70, 31, 16, 0.5},
    {48, 17, 131, 128, .4}, {64, 5, 256, 128, 0.5},  {65, 19, 300, 256, .1}, {97, 21, 23, 16, 0.5},
    {129, 40, 20, 32, 0.5}, {200, 11, 513, 256, .2}, {1, 1, 1, 16, 1.0},     {0, 16, 16, 16, 0.5},
    {3, 0, 16, 16, 0.5},    {3, 40, 0, 16, 0.5},     {40, 9, 0, 16, 0.5},    {9, 300, 50, 64, 0.0},
    {11, 140, 101, 80, .4},
};

}  // namespace

TEST_CASE("row lists: pack, unpack, validate") {
  for (const Shape& shape : kShapes)
    for (const DType weights : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
      Problem p(shape, DType::kFloat32, weights, true, 1);
      Bytes back(p.dense.size(), 0xff);
      REQUIRE(row_lists_unpack(p.lists, weights, shape.n, shape.k, back.data()) == Status::kOk);
      CHECK(back == p.dense);
      int64_t where = -1;
      CHECK(row_lists_validate(p.lists, shape.n, shape.k, &where) == Status::kOk);
      int64_t kept = 0;
      for (const uint8_t one : p.mask) kept += one;
      CHECK(p.lists.nnz == kept);
    }
}

TEST_CASE("row lists: the default block is one the format allows") {
  for (const double density : {0.0, 0.01, 0.05, 0.1, 0.125, 0.25, 0.3, 0.5, 1.0}) {
    const int32_t block = row_lists_block(density);
    CHECK((block >= 16 && block <= 256 && block % 16 == 0));
  }
}

TEST_CASE("row lists: offences are found and never reach a kernel") {
  Problem p({3, 100, 200, 64, 0.5}, DType::kFloat32, DType::kFloat32, true, 2);
  int64_t where = -1;
  SUBCASE("offset outside the last, shorter block") {
    const int64_t last = p.lists.nnz - 1;
    p.offsets[last] = 8;
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kOk);
    CHECK(row_lists_validate(p.lists, 100, 200, &where) == Status::kBadIndex);
    CHECK(where == last);
    CHECK(row_lists_unpack(p.lists, DType::kFloat32, 100, 200, p.dense.data()) == Status::kBadIndex);
  }
  SUBCASE("offset repeated") {
    const int64_t first = p.block_ptr[2];
    p.offsets[first + 1] = p.offsets[first];
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kOk);
    CHECK(row_lists_validate(p.lists, 100, 200, &where) == Status::kUnsorted);
    CHECK(where == first + 1);
  }
  SUBCASE("list starts descending") {
    p.block_ptr[5] = p.block_ptr[6] + 1;
    CHECK(row_lists_linear(p.io, p.lists) == Status::kBadPointers);
  }
  SUBCASE("a negative start") {
    p.block_ptr[1] = -4;
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kBadPointers);
  }
  SUBCASE("a start that wraps around") {
    p.block_ptr[1] = INT32_MIN;
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kBadPointers);
  }
  SUBCASE("first start") {
    p.block_ptr[0] = 1;
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kBadPointers);
  }
  SUBCASE("a list longer than its block") {
    for (int64_t o = 1; o <= 3; ++o) p.block_ptr[o] = 0;
    for (int64_t o = 4; o < 100; ++o) p.block_ptr[o] = p.block_ptr[100];
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kBadPointers);
  }
  SUBCASE("a block that does not start where the one before ends") {
    p.block_ptr[101] += 1;
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kBadPointers);
  }
  SUBCASE("last start is not the number of values") {
    ++p.lists.nnz;
    CHECK(row_lists_check(p.lists, 100, 200) == Status::kBadPointers);
  }
  SUBCASE("block") {
    for (const int32_t block : {0, -16, 24, 272}) {
      p.lists.block = block;
      CHECK(row_lists_check(p.lists, 100, 200) == Status::kBadPattern);
    }
  }
  SUBCASE("missing arrays") {
    p.lists.offsets = nullptr;
    CHECK(row_lists_linear(p.io, p.lists) == Status::kNullPointer);
  }
  SUBCASE("int8 products") {
    Problem quantised({3, 100, 200, 64, 0.5}, DType::kFloat32, DType::kInt8, true, 2);
    quantised.io.compute = Compute::kInt8;
    CHECK(row_lists_linear(quantised.io, quantised.lists) == Status::kUnsupportedDType);
  }
}

TEST_CASE("row lists: any offsets stay inside the arrays") {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType weights : {DType::kFloat32, DType::kInt8}) {
      Problem p(shape, DType::kFloat32, weights, true, 10);
      std::mt19937 random(11);
      for (uint8_t& offset : p.offsets) offset = random() % 4 ? 255 : static_cast<uint8_t>(random());
      std::vector<float> out(p.lists.nnz);
      const WeightGradIo grad = {p.y.data(), p.x.data(), out.data(), shape.m,        shape.n,
                                 shape.k,    p.y_stride, p.x_stride, DType::kFloat32};
      for (const Isa isa : levels()) {
        set_isa_cap(isa);
        CHECK(row_lists_linear(p.io, p.lists) == Status::kOk);
        CHECK(gaps_kept(p));
        CHECK(row_lists_weight_grad(grad, p.lists) == Status::kOk);
      }
    }
}

TEST_CASE("row lists: the transpose holds the same values") {
  for (const Shape& shape : kShapes) {
    Problem p(shape, DType::kFloat32, DType::kFloat32, true, 3);
    for (const int32_t block : {16, 128, 256}) {
      const int64_t blocks = (shape.n + block - 1) / block;
      std::vector<uint8_t> offsets(p.lists.nnz);
      std::vector<int32_t> order(p.lists.nnz), starts(blocks * (shape.k + 1), -1);
      REQUIRE(row_lists_transpose(p.lists, shape.n, shape.k, block, offsets.data(), starts.data(), order.data()) ==
              Status::kOk);
      Bytes values(p.values.size()), dense(p.dense.size(), 0xff);
      for (int64_t i = 0; i < p.lists.nnz; ++i) std::memcpy(&values[i * 4], &p.values[order[i] * 4], 4);
      const RowLists transposed = {values.data(), offsets.data(), starts.data(), p.lists.nnz, block};
      int64_t where = -1;
      CHECK(row_lists_validate(transposed, shape.k, shape.n, &where) == Status::kOk);
      REQUIRE(row_lists_unpack(transposed, DType::kFloat32, shape.k, shape.n, dense.data()) == Status::kOk);
      int wrong = 0;
      for (int64_t o = 0; o < shape.n; ++o)
        for (int64_t c = 0; c < shape.k; ++c)
          wrong += get(dense, DType::kFloat32, c * shape.n + o) != get(p.dense, DType::kFloat32, o * shape.k + c);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("row lists: linear on integers is exact on every level, for every type") {
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
          REQUIRE(row_lists_linear(p.io, p.lists) == Status::kOk);
          CHECK_MESSAGE(p.y == expected, describe(p, isa));
        }
      }
}

TEST_CASE("row lists: linear on random values stays within the bound of float32 sums") {
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
        REQUIRE(row_lists_linear(p.io, p.lists) == Status::kOk);
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

TEST_CASE("row lists: infinities and NaN stay with their token and the channels that keep their column") {
  CapRestored restored;
  for (const int64_t m : {1, 2, 5, 33}) {
    Problem p({m, 30, 140, 64, 0.4}, DType::kFloat32, DType::kFloat32, true, 6);
    const int64_t column = 70;
    put(p.x, DType::kFloat32, (m - 1) * p.x_stride + column, INFINITY);
    for (const Isa isa : levels()) {
      set_isa_cap(isa);
      REQUIRE(row_lists_linear(p.io, p.lists) == Status::kOk);
      int wrong = 0;
      for (int64_t t = 0; t < m; ++t)
        for (int64_t o = 0; o < 30; ++o) {
          const bool kept = p.mask[o * 140 + column] && t == m - 1;
          wrong += std::isfinite(get(p.y, DType::kFloat32, t * p.y_stride + o)) == kept;
        }
      CHECK_MESSAGE(wrong == 0, describe(p, isa));
    }
  }
}

TEST_CASE("row lists: the same bits for any number of threads" * doctest::test_suite("threads")) {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
      for (const Compute compute : {Compute::kFloat32, Compute::kFloat16}) {
        Problem p(shape, dtype, dtype, false, 7);
        p.io.compute = compute;
        p.io.activation = Activation::kGelu;
        for (const Isa isa : levels()) {
          set_isa_cap(isa);
          REQUIRE(row_lists_linear(p.io, p.lists) == Status::kOk);
          const Bytes alone = p.y;
          for (const int count : {2, 5}) {
            const Threads threads(count);
            std::fill(p.y.begin(), p.y.end(), uint8_t{0x5a});
            REQUIRE(row_lists_linear(p.io, p.lists) == Status::kOk);
            CHECK_MESSAGE(p.y == alone, describe(p, isa));
          }
        }
      }
}

// Tiles of every width meet: a token's outputs are the same whatever tokens stand beside it.
TEST_CASE("row lists: the same bits wherever a token stands") {
  CapRestored restored;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    Problem p({203, 50, 300, 128, 0.4}, dtype, dtype, false, 12);
    const int64_t row = p.y_stride * size_of(dtype);
    for (const Isa isa : levels()) {
      set_isa_cap(isa);
      REQUIRE(row_lists_linear(p.io, p.lists) == Status::kOk);
      const Bytes all = p.y;
      for (const int64_t m : {17, 33, 50, 79, 96, 101, 127}) {
        const int64_t first = 203 - m;
        LinearIo part = p.io;
        part.m = m;
        part.x = p.x.data() + first * p.x_stride * size_of(dtype);
        part.y = p.y.data() + first * row;
        for (int64_t t = first; t < 203; ++t) std::memset(&p.y[t * row], 0x5a, 50 * size_of(dtype));
        REQUIRE(row_lists_linear(part, p.lists) == Status::kOk);
        CHECK_MESSAGE(p.y == all, describe(p, isa), " part ", m);
      }
    }
  }
}

TEST_CASE("row lists: float16 products stay within 1.5e-3") {
  CapRestored restored;
  for (const Shape& shape : {Shape{33, 50, 768, 128, 0.5}, Shape{130, 40, 1000, 256, 0.1}, Shape{5, 60, 512, 64, 0.25}})
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      Problem p(shape, dtype, dtype, false, 13);
      p.io.compute = Compute::kFloat16;
      p.io.bias = nullptr;
      const ExactSums exact = p.exact();
      for (const Isa isa : levels()) {
        set_isa_cap(isa);
        REQUIRE(row_lists_linear(p.io, p.lists) == Status::kOk);
        double error = 0, norm = 0;
        for (int64_t t = 0; t < shape.m; ++t)
          for (int64_t o = 0; o < shape.n; ++o) {
            const double sum = exact.sums[t * shape.n + o] * p.scale[o];
            error += std::pow(get(p.y, dtype, t * p.y_stride + o) - sum, 2);
            norm += sum * sum;
          }
        const double allowed = dtype == DType::kBFloat16 ? 4e-3 : 1.5e-3;
        CHECK_MESSAGE(std::sqrt(error / norm) <= allowed, describe(p, isa));
      }
    }
}

// The loops of the float16 kernels with arithmetic in software: correctly rounded from double, four lanes.
struct SoftwareHalf {
  static constexpr int kLanes = 4;
  struct Vec {
    Float16 lanes[kLanes];
  };
  struct Four {
    uint32_t pairs[4];
  };
  static Vec zero() { return {}; }
  static Vec load(const uint16_t* p) {
    Vec result;
    std::memcpy(&result, p, sizeof(result));
    return result;
  }
  static Vec add(Vec a, Vec b) { return madd({{{0x3c00}, {0x3c00}, {0x3c00}, {0x3c00}}}, a, b); }
  static Vec madd(Vec a, Vec b, Vec c) {
    Vec result;
    for (int i = 0; i < kLanes; ++i) {
      const double product = static_cast<double>(widen(a.lanes[i])) * widen(b.lanes[i]);
      sparsecore::narrow(static_cast<float>(product + widen(c.lanes[i])), &result.lanes[i]);
    }
    return result;
  }
  static Four four(const uint32_t* pairs) { return {{pairs[0], pairs[1], pairs[2], pairs[3]}}; }
  template <int I>
  static Vec pick(Four four) {
    const Float16 value = {static_cast<uint16_t>(four.pairs[I])};
    return {{value, value, value, value}};
  }
  static void add_widened(Vec a, float* sums, bool accumulate) {
    for (int i = 0; i < kLanes; ++i) sums[i] = (accumulate ? sums[i] : 0) + widen(a.lanes[i]);
  }
  template <typename T>
  static void narrow(const T* values, int64_t count, uint32_t* pairs) {
    for (int64_t i = 0; i < count; ++i) {
      Float16 half;
      sparsecore::narrow(widen(values[i]), &half);
      pairs[i] = half.bits | static_cast<uint32_t>(half.bits) << 16;
    }
  }
};

TEST_CASE("row lists: float16 loops, integers exact and the error bound kept") {
  constexpr int kWidth = 2 * SoftwareHalf::kLanes;
  for (const bool integers : {true, false})
    for (const Shape& shape : {Shape{kWidth, 30, 513, 256, 0.5}, Shape{kWidth, 21, 512, 128, 0.5},
                               Shape{kWidth, 25, 300, 64, 0.25}, Shape{kWidth, 40, 768, 256, 0.1}})
      for (const DType weights : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
        Problem p(shape, DType::kFloat32, weights, integers, 14);
        std::vector<Float16> panel(row_lists::kPanelRows * kWidth);
        std::vector<float> sums(shape.n * kWidth, NAN);
        for (int64_t b = 0; b < p.blocks; ++b) {
          for (int64_t c = b * shape.block; c < std::min<int64_t>(shape.k, (b + 1) * shape.block); ++c)
            for (int64_t t = 0; t < kWidth; ++t)
              narrow(get(p.x, DType::kFloat32, t * p.x_stride + c), &panel[(c - b * shape.block) * kWidth + t]);
          row_lists::Tile tile = {};
          tile.lists = {p.values.data(), weights, p.offsets.data(), p.block_ptr.data() + b * (shape.n + 1), shape.n};
          tile.panel = panel.data();
          tile.lanes = kWidth;
          tile.sums = sums.data();
          tile.accumulate = b > 0;
          row_lists::HalfLoop<SoftwareHalf, 2>::run(tile);
        }
        const ExactSums exact = p.exact();
        double error = 0, norm = 0;
        for (int64_t t = 0; t < kWidth; ++t)
          for (int64_t o = 0; o < shape.n; ++o) {
            const double sum = exact.sums[t * shape.n + o];
            error += std::pow(sums[o * kWidth + t] - sum, 2);
            norm += sum * sum;
          }
        CAPTURE(describe(p, Isa::kScalar));
        CHECK(std::sqrt(error / norm) <= (integers ? 0.0 : 1.5e-3));
      }
}

TEST_CASE("row lists: gradient of the values" * doctest::test_suite("threads")) {
  CapRestored restored;
  for (const Shape& shape : kShapes)
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      Problem p(shape, dtype, DType::kFloat32, true, 8);
      std::mt19937 random(9);
      Bytes grad_y(shape.m ? ((shape.m - 1) * p.y_stride + shape.n) * size_of(dtype) : 0);
      for (int64_t i = 0; i < static_cast<int64_t>(grad_y.size()) / size_of(dtype); ++i)
        put(grad_y, dtype, i, static_cast<float>(random() % 7) - 3);
      std::vector<float> expected(p.lists.nnz), out(expected.size());
      for (int64_t b = 0; b < p.blocks; ++b)
        for (int64_t o = 0; o < shape.n; ++o)
          for (int64_t i = p.block_ptr[b * (shape.n + 1) + o]; i < p.block_ptr[b * (shape.n + 1) + o + 1]; ++i)
            for (int64_t t = 0; t < shape.m; ++t)
              expected[i] += get(p.x, dtype, t * p.x_stride + b * shape.block + p.offsets[i]) *
                             get(grad_y, dtype, t * p.y_stride + o);
      const WeightGradIo io = {grad_y.data(), p.x.data(), out.data(), shape.m, shape.n,
                               shape.k,       p.y_stride, p.x_stride, dtype};
      for (const Isa isa : levels())
        for (const int count : {1, 2}) {
          set_isa_cap(isa);
          const Threads threads(count);
          std::fill(out.begin(), out.end(), -99.0f);
          REQUIRE(row_lists_weight_grad(io, p.lists) == Status::kOk);
          CHECK_MESSAGE(out == expected, describe(p, isa));
        }
    }
}

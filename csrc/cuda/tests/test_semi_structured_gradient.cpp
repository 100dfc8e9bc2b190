// Gradients of 2:4 weights on the emulator against plain loops over the dense matrix. Small integers: sums are exact.
#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <vector>

#include "cuda/common/convert.h"
#include "cuda/tests/adversary.h"
#include "sparsecore/semi_structured_cuda.h"

using namespace sparsecore;
using cuda_emulation::GlobalBuffer;

namespace {

constexpr DType kTypes[] = {DType::kBFloat16, DType::kFloat16};
constexpr int64_t kSizes[][2] = {{1, 1}, {64, 64}, {65, 130}, {70, 259}, {130, 72}, {3, 200}};

uint16_t encode(DType dtype, float value) {
  return dtype == DType::kBFloat16 ? ptx::from_float<BFloat16>(value).bits : ptx::from_float<Float16>(value).bits;
}
float decode(DType dtype, uint16_t bits) {
  return dtype == DType::kBFloat16 ? ptx::to_float(BFloat16{bits}) : ptx::to_float(Float16{bits});
}

// [rows, columns] at any offset and stride; what lies between the rows is poison that nobody may read.
struct Matrix {
  int64_t columns, stride, offset;
  GlobalBuffer<uint16_t> memory;
  Matrix(int64_t rows, int64_t columns, int64_t offset, int64_t pad)
      : columns(columns),
        stride((columns + 7) / 8 * 8 + pad),
        offset(offset),
        memory(rows ? offset + (rows - 1) * stride + columns : 1) {}
  uint16_t* data() { return memory.data() + offset; }
  uint16_t& at(int64_t row, int64_t column) { return memory.data()[offset + row * stride + column]; }
  void fill(int64_t rows, DType dtype, std::mt19937& random, int spread = 3) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column)
        at(row, column) = encode(dtype, static_cast<float>(static_cast<int>(random() % (2 * spread + 1)) - spread));
  }
};

struct Packed {
  GlobalBuffer<char> values;
  GlobalBuffer<uint32_t> metadata;
  std::vector<uint8_t> mask;
  // Of a matrix; some groups keep fewer than two.
  Packed(Matrix& dense, int64_t n, int64_t k, DType dtype)
      : values(semi_structured_value_bytes(n, k, dtype)),
        metadata(semi_structured_metadata_words(n, k, dtype)),
        mask(n * k) {
    std::vector<uint16_t> rows(n * k);
    for (int64_t o = 0; o < n; ++o) std::memcpy(rows.data() + o * k, &dense.at(o, 0), k * 2);
    REQUIRE(semi_structured_select(rows.data(), dtype, SemiStructuredSelection::kByRow, n, k, mask.data()) ==
            Status::kOk);
    for (size_t i = 0; i < mask.size(); i += 5) mask[i] = 0;
    REQUIRE(semi_structured_pack(rows.data(), dtype, mask.data(), n, k, values.data(), metadata.data()) == Status::kOk);
  }
  SemiStructured view() {
    return {values.data(), metadata.data(), static_cast<int64_t>(values.size()), static_cast<int64_t>(metadata.size())};
  }
};

// The dense matrix at the places of a packing, by way of packing every place: ones tell which places there are.
std::vector<char> gathered(Packed& packed, const std::vector<uint16_t>& dense, int64_t n, int64_t k, DType dtype) {
  std::vector<uint16_t> places(n * k);
  GlobalBuffer<char> ones(packed.values.size());
  for (size_t i = 0; i < ones.size() / 2; ++i) reinterpret_cast<uint16_t*>(ones.data())[i] = encode(dtype, 1);
  SemiStructured view = packed.view();
  view.values = ones.data();
  REQUIRE(semi_structured_unpack(view, dtype, n, k, places.data()) == Status::kOk);
  std::vector<uint8_t> mask(n * k);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = places[i] != 0;
  std::vector<char> values(packed.values.size());
  std::vector<uint32_t> metadata(packed.metadata.size());
  REQUIRE(semi_structured_pack(dense.data(), dtype, mask.data(), n, k, values.data(), metadata.data()) == Status::kOk);
  return values;
}

}  // namespace

TEST_CASE("2:4 gradients: a dense gradient at the stored places") {
  std::mt19937 random(11);
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : kSizes)
      for (const auto& [offset, pad] : {std::pair{0, 0}, std::pair{1, 1}, std::pair{4, 4}}) {
        CAPTURE(n);
        CAPTURE(k);
        CAPTURE(offset);
        Matrix dense(n, k, offset, pad);
        dense.fill(n, dtype, random);
        Packed packed(dense, n, k, dtype);
        std::vector<uint16_t> rows(n * k);
        dense.fill(n, dtype, random);
        for (int64_t o = 0; o < n; ++o) std::memcpy(rows.data() + o * k, &dense.at(o, 0), k * 2);
        GlobalBuffer<char> values(packed.values.size());
        SemiStructuredGatherParams p;
        p.dense = dense.data();
        p.metadata = packed.metadata.data();
        p.values = values.data();
        p.n = n;
        p.k = k;
        p.row_stride = dense.stride;
        p.metadata_words = static_cast<int64_t>(packed.metadata.size());
        p.dtype = dtype;
        const cuda_emulation::ScopedOptions scoped(next_adversary(80));
        REQUIRE(semi_structured_gather(p, nullptr) == Status::kOk);
        CHECK(values.to_vector() == gathered(packed, rows, n, k, dtype));
      }
}

TEST_CASE("2:4 gradients: sampled products are those of the dense gradient") {
  std::mt19937 random(12);
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : kSizes)
      for (const int64_t m : {0, 1, 33, 161})
        for (const auto& [offset, pad] : {std::pair{0, 0}, std::pair{1, 1}}) {
          CAPTURE(n);
          CAPTURE(k);
          CAPTURE(m);
          CAPTURE(offset);
          Matrix weight(n, k, 0, 0), grad(m, n, offset, pad), x(m, k, offset, pad);
          weight.fill(n, dtype, random);
          grad.fill(m, dtype, random, 1);
          x.fill(m, dtype, random, 1);
          Packed packed(weight, n, k, dtype);
          std::vector<uint16_t> product(n * k);
          std::vector<float> gs(m * n), xs(m * k);
          for (int64_t t = 0; t < m; ++t) {
            for (int64_t o = 0; o < n; ++o) gs[t * n + o] = decode(dtype, grad.at(t, o));
            for (int64_t i = 0; i < k; ++i) xs[t * k + i] = decode(dtype, x.at(t, i));
          }
          for (int64_t o = 0; o < n; ++o)
            for (int64_t i = 0; i < k; ++i) {
              float sum = 0;
              for (int64_t t = 0; t < m; ++t) sum += gs[t * n + o] * xs[t * k + i];
              product[o * k + i] = encode(dtype, sum);
            }
          GlobalBuffer<char> values(packed.values.size());
          SemiStructuredSampledParams p;
          p.grad = grad.data();
          p.x = x.data();
          p.metadata = packed.metadata.data();
          p.values = values.data();
          p.m = m;
          p.n = n;
          p.k = k;
          p.grad_row_stride = grad.stride;
          p.x_row_stride = x.stride;
          p.metadata_words = static_cast<int64_t>(packed.metadata.size());
          p.dtype = dtype;
          const cuda_emulation::ScopedOptions scoped(next_adversary(80));
          REQUIRE(semi_structured_sampled(p, nullptr) == Status::kOk);
          CHECK(values.to_vector() == gathered(packed, product, n, k, dtype));
        }
}

TEST_CASE("2:4 gradients: straight through, with a decay of what was left out") {
  std::mt19937 random(13);
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : kSizes)
      for (const auto& [offset, pad] : {std::pair{0, 0}, std::pair{1, 1}, std::pair{4, 4}})
        for (const bool in_place : {false, true}) {
          CAPTURE(n);
          CAPTURE(k);
          CAPTURE(offset);
          Matrix dense(n, k, offset, pad), grad(n, k, offset, pad), out(n, k, offset, pad);
          dense.fill(n, dtype, random);
          grad.fill(n, dtype, random, 20);
          Packed packed(dense, n, k, dtype);
          std::vector<float> expected(n * k);
          for (int64_t o = 0; o < n; ++o)
            for (int64_t i = 0; i < k; ++i)
              expected[o * k + i] =
                  decode(dtype, grad.at(o, i)) + (packed.mask[o * k + i] ? 0.0f : 0.5f * decode(dtype, dense.at(o, i)));
          Matrix& to = in_place ? grad : out;
          SemiStructuredStraightThroughParams p;
          p.grad = grad.data();
          p.dense = dense.data();
          p.weight = packed.view();
          p.out = to.data();
          p.n = n;
          p.k = k;
          p.grad_row_stride = grad.stride;
          p.dense_row_stride = dense.stride;
          p.out_row_stride = to.stride;
          p.decay = 0.5f;
          p.dtype = dtype;
          const cuda_emulation::ScopedOptions scoped(next_adversary(80));
          REQUIRE(semi_structured_straight_through(p, nullptr) == Status::kOk);
          bool same = true;
          for (int64_t o = 0; o < n; ++o)
            for (int64_t i = 0; i < k; ++i) same &= decode(dtype, to.at(o, i)) == expected[o * k + i];
          CHECK(same);
        }
}

TEST_CASE("2:4 gradients: what does not fit is refused in words") {
  std::mt19937 random(14);
  Matrix dense(64, 64, 0, 0);
  dense.fill(64, DType::kBFloat16, random);
  Packed packed(dense, 64, 64, DType::kBFloat16);
  SemiStructuredGatherParams p;
  p.dense = dense.data();
  p.metadata = packed.metadata.data();
  p.values = packed.values.data();
  p.n = p.k = p.row_stride = 64;
  p.metadata_words = static_cast<int64_t>(packed.metadata.size());
  const auto says = [](const char* part) { return std::string(cuda_message()).find(part) != std::string::npos; };
  p.dtype = DType::kInt8;
  CHECK(semi_structured_gather(p, nullptr) == Status::kUnsupportedDType);
  CHECK(says("no kernel for int8"));
  p.dtype = DType::kBFloat16;
  p.metadata_words -= 1;
  CHECK(semi_structured_gather(p, nullptr) == Status::kBadShape);
  CHECK(says("128 words of metadata"));
  p.metadata_words += 1;
  p.row_stride = -1;
  CHECK(semi_structured_gather(p, nullptr) == Status::kBadShape);
  CHECK(says("needs a row stride of at least 0 for dense [n, k], got -1"));
  p.row_stride = 64;
  p.dense = nullptr;
  CHECK(semi_structured_gather(p, nullptr) == Status::kNullPointer);
  SemiStructuredSampledParams s;
  s.m = -1;
  CHECK(semi_structured_sampled(s, nullptr) == Status::kBadShape);
  CHECK(says("needs m >= 0, got -1"));
}

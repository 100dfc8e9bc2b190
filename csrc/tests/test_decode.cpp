// N:M decode and bitmap decode, on every level this machine has: integer inputs, so results must be exact.
#include <cstring>
#include <random>

#include "sparsecore/bitmap_decode.h"
#include "sparsecore/nm_decode.h"
#include "sparsecore/row_lists.h"
#include "support.h"

using namespace sparsecore;
using namespace sparsecore::testing;

namespace {

struct Problem {
  int64_t m, n, k;
  std::vector<uint8_t> mask;
  std::vector<float> weight, x, bias, exact;
};

// Small integers: every sum is exact in float32, whatever its order, and every weight in the narrow types.
Problem make_problem(int64_t m, int64_t n, int64_t k, int kept, int group, unsigned seed) {
  std::mt19937 random(seed);
  Problem p{m, n, k, std::vector<uint8_t>(n * k, 0), {}, {}, {}, {}};
  const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 9) - 4); };
  for (int64_t i = 0; i < n * k; ++i) p.weight.push_back(draw());
  for (int64_t i = 0; i < m * k; ++i) p.x.push_back(draw());
  for (int64_t i = 0; i < n; ++i) p.bias.push_back(draw());
  for (int64_t row = 0; row < n; ++row)
    for (int64_t start = 0; start < k; start += group) {
      const int64_t width = std::min<int64_t>(group, k - start);
      for (int i = 0; i < kept; ++i) p.mask[row * k + start + random() % width] = 1;
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
std::vector<T> narrowed(const std::vector<float>& values) {
  std::vector<T> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<T, int8_t>) {
      out[i] = static_cast<int8_t>(values[i]);
    } else {
      narrow(values[i], &out[i]);
    }
  }
  return out;
}

LinearIo io_of(const Problem& p, DType weight, const std::vector<float>& scale, std::vector<float>* y) {
  LinearIo io;
  y->assign(p.m * p.n + 1, -77.0f);
  io.x = p.x.data();
  io.y = y->data();
  io.bias = p.bias.data();
  io.weight_scale = weight == DType::kInt8 ? scale.data() : nullptr;
  io.m = p.m;
  io.n = p.n;
  io.k = p.k;
  io.x_row_stride = p.k;
  io.y_row_stride = p.n;
  io.weight_dtype = weight;
  return io;
}

template <typename T>
void check_unpacked(const Problem& p, const std::vector<T>& dense, const std::vector<T>& back) {
  std::vector<T> expected(back.size());
  for (size_t i = 0; i < p.mask.size(); ++i)
    if (p.mask[i]) expected[i] = dense[i];
  CHECK(std::memcmp(back.data(), expected.data(), back.size() * sizeof(T)) == 0);
}

// Exact on every level, alone and with the tasks of several threads, and not an element too many.
template <typename Run>
void check_linear(const Problem& p, DType dtype, const Run& run) {
  std::vector<float> y, expected = p.exact;
  expected.push_back(-77.0f);
  const std::vector<float> scale(p.n + 1, 1.0f);
  on_every_level([&](Isa) {
    for (const int count : {1, 3}) {
      const Threads threads(count);
      REQUIRE(run(io_of(p, dtype, scale, &y)) == Status::kOk);
      CHECK(y == expected);
    }
  });
}

template <typename T>
void run_nm(const Problem& p, DType dtype, int kept, int group) {
  const std::vector<T> dense = narrowed<T>(p.weight);
  NMDecode weight;
  weight.n_kept = kept;
  weight.m = group;
  int bits = 1;
  while ((1 << bits) < group) ++bits;
  const int64_t tiles = (p.n + 15) / 16, slots = (p.k + group - 1) / group * kept, per_word = 32 / bits;
  std::vector<T> values(tiles * slots * 16 + 1);
  std::vector<uint32_t> codes(tiles * ((slots + per_word - 1) / per_word) * 16 + 1);
  REQUIRE(nm_decode_pack(dense.data(), dtype, p.mask.data(), p.n, p.k, kept, group, values.data(), codes.data()) ==
          Status::kOk);
  weight.values = values.data();
  weight.codes = codes.data();
  weight.value_count = static_cast<int64_t>(values.size()) - 1;
  weight.code_count = static_cast<int64_t>(codes.size()) - 1;
  REQUIRE(nm_decode_validate(weight, dtype, p.n, p.k, nullptr) == Status::kOk);
  std::vector<T> back(p.n * p.k + 1);
  REQUIRE(nm_decode_unpack(weight, dtype, p.n, p.k, back.data()) == Status::kOk);
  check_unpacked(p, dense, back);
  check_linear(p, dtype, [&](const LinearIo& io) { return nm_decode_linear(io, weight); });
}

template <typename T>
void run_bitmap(const Problem& p, DType dtype) {
  const std::vector<T> dense = narrowed<T>(p.weight);
  const int64_t nnz = row_lists_count(p.mask.data(), p.n, p.k), words = (p.k + 63) / 64;
  std::vector<T> values(nnz);  // exactly as long as it may be read: the sanitizer watches
  std::vector<uint64_t> bitmap(p.n * words + 1);
  std::vector<int32_t> row_ptr(p.n + 1);
  REQUIRE(bitmap_decode_pack(dense.data(), dtype, p.mask.data(), p.n, p.k, values.data(), bitmap.data(),
                             row_ptr.data()) == Status::kOk);
  const BitmapDecode weight{values.data(), bitmap.data(), row_ptr.data(), nnz};
  std::vector<T> back(p.n * p.k + 1);
  REQUIRE(bitmap_decode_unpack(weight, dtype, p.n, p.k, back.data()) == Status::kOk);
  check_unpacked(p, dense, back);
  check_linear(p, dtype, [&](const LinearIo& io) { return bitmap_decode_linear(io, weight); });
}

}  // namespace

TEST_CASE("N:M decode is exact for every pattern, type, shape and level" * doctest::test_suite("threads")) {
  const int patterns[][2] = {{2, 4}, {1, 4}, {2, 8}, {1, 8}, {4, 8},  {1, 16},
                             {6, 8}, {3, 4}, {1, 2}, {3, 5}, {5, 27}, {31, 32}};
  const int64_t shapes[][3] = {{1, 16, 64},  {1, 1, 1},   {2, 17, 33},  {3, 15, 31},
                               {5, 48, 127}, {8, 16, 96}, {9, 31, 200}, {17, 3, 50}};
  for (const auto& pattern : patterns)
    for (const auto& shape : shapes) {
      CAPTURE(pattern[0]);
      CAPTURE(pattern[1]);
      CAPTURE(shape[2]);
      const Problem p = make_problem(shape[0], shape[1], shape[2], pattern[0], pattern[1], 7);
      run_nm<float>(p, DType::kFloat32, pattern[0], pattern[1]);
      run_nm<BFloat16>(p, DType::kBFloat16, pattern[0], pattern[1]);
      run_nm<Float16>(p, DType::kFloat16, pattern[0], pattern[1]);
      run_nm<int8_t>(p, DType::kInt8, pattern[0], pattern[1]);
    }
}

TEST_CASE("bitmap decode is exact for every density, type, shape and level" * doctest::test_suite("threads")) {
  const int densities[][2] = {{1, 2}, {1, 20}, {3, 4}, {1, 300}};
  const int64_t shapes[][3] = {{1, 16, 64},  {1, 1, 1},   {2, 17, 63},  {3, 15, 65},
                               {5, 48, 128}, {8, 16, 97}, {9, 31, 200}, {17, 3, 50}};
  for (const auto& density : densities)
    for (const auto& shape : shapes) {
      CAPTURE(density[1]);
      CAPTURE(shape[2]);
      const Problem p = make_problem(shape[0], shape[1], shape[2], density[0], density[1], 11);
      run_bitmap<float>(p, DType::kFloat32);
      run_bitmap<BFloat16>(p, DType::kBFloat16);
      run_bitmap<Float16>(p, DType::kFloat16);
      run_bitmap<int8_t>(p, DType::kInt8);
    }
}

TEST_CASE("empty decode problems run and touch nothing") {
  for (const auto& shape : {std::vector<int64_t>{0, 4, 8}, {4, 0, 8}, {4, 4, 0}}) {
    const Problem p = make_problem(shape[0], shape[1], std::max<int64_t>(shape[2], 0), 0, 4, 3);
    run_nm<float>(p, DType::kFloat32, 2, 4);
    run_bitmap<float>(p, DType::kFloat32);
  }
}

TEST_CASE("damaged decode weights are refused") {
  std::vector<float> values(16 * 4, 1.0f);
  std::vector<uint32_t> codes(16, 0x44);  // slots 0, 1 of both groups at 0 and 1 of 4
  NMDecode nm{values.data(), codes.data(), 64, 16, 2, 4};
  int64_t where = 0;
  CHECK(nm_decode_validate(nm, DType::kFloat32, 16, 8, &where) == Status::kOk);
  codes[3] = 0x41;  // 1, 0: descending
  CHECK(nm_decode_validate(nm, DType::kFloat32, 16, 8, &where) == Status::kUnsorted);
  CHECK(where == 16 + 3);
  codes[3] = 0x1000044;  // a bit past the last slot
  CHECK(nm_decode_validate(nm, DType::kFloat32, 16, 8, &where) == Status::kBadIndex);
  nm.value_count = 63;
  CHECK(nm_decode_check(nm, 16, 8) == Status::kBadShape);
  nm.m = 33;
  CHECK(nm_decode_check(nm, 16, 8) == Status::kBadPattern);

  std::vector<uint64_t> bitmap = {0x3, 0x8};
  std::vector<int32_t> row_ptr = {0, 2, 3};
  const BitmapDecode bits{values.data(), bitmap.data(), row_ptr.data(), 3};
  CHECK(bitmap_decode_check(bits, 2, 4) == Status::kOk);
  CHECK(bitmap_decode_check(bits, 2, 3) == Status::kBadIndex);
  row_ptr[1] = 1;
  CHECK(bitmap_decode_check(bits, 2, 4) == Status::kBadPointers);
  row_ptr[1] = 2;
  bitmap[0] = 0x7;
  CHECK(bitmap_decode_check(bits, 2, 4) == Status::kBadPointers);
}

// Sp24 on the host: round trips, both selections, the transposed packing, what validation refuses, and the layout held
// against the fragment maps of the tensor cores.
#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <vector>

#include "cuda/common/fragments.h"
#include "sparsecore/semi_structured.h"

using namespace sparsecore;

namespace {

constexpr DType kTypes[] = {DType::kBFloat16, DType::kFloat16, DType::kInt8, kFloat8E4M3};
constexpr int64_t kSizes[][2] = {{0, 0},   {0, 5},   {3, 0},    {1, 1},    {1, 3},    {4, 4},     {7, 63},
                                 {16, 64}, {17, 65}, {64, 128}, {65, 127}, {63, 130}, {129, 257}, {200, 66}};

struct Packed {
  std::vector<char> values;
  std::vector<uint32_t> metadata;

  Packed(int64_t n, int64_t k, DType dtype)
      : values(semi_structured_value_bytes(n, k, dtype), 0x55),
        metadata(semi_structured_metadata_words(n, k, dtype), 0xffffffffu) {}
  SemiStructured view() const {
    return {values.data(), metadata.data(), static_cast<int64_t>(values.size()), static_cast<int64_t>(metadata.size())};
  }
};

std::vector<char> random_bytes(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<char> bytes(count);
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// At most two of four neighbours along the inputs; sometimes fewer.
std::vector<uint8_t> random_mask(int64_t n, int64_t k, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> mask(n * k);
  for (int64_t o = 0; o < n; ++o)
    for (int64_t i = 0; i < k; i += 4)
      for (int picks = 0; picks < 2; ++picks) {
        const int64_t place = i + random() % 5;
        if (place < std::min(i + 4, k)) mask[o * k + place] = 1;
      }
  return mask;
}

std::vector<char> masked(const std::vector<char>& dense, const std::vector<uint8_t>& mask, int64_t bytes) {
  std::vector<char> out(dense);
  for (size_t i = 0; i < mask.size(); ++i)
    if (!mask[i]) std::memset(out.data() + i * bytes, 0, bytes);
  return out;
}

template <typename Element>
std::vector<char> transposed(const std::vector<Element>& matrix, int64_t n, int64_t k, int64_t bytes) {
  std::vector<char> out(matrix.size());
  for (int64_t o = 0; o < n; ++o)
    for (int64_t i = 0; i < k; ++i)
      std::memcpy(out.data() + (i * n + o) * bytes, matrix.data() + (o * k + i) * bytes, bytes);
  return out;
}

}  // namespace

TEST_CASE("Sp24: unpacking a packed matrix gives the masked one") {
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : kSizes) {
      CAPTURE(static_cast<int>(dtype));
      CAPTURE(n);
      CAPTURE(k);
      const int64_t bytes = size_of(dtype);
      const std::vector<char> dense = random_bytes(n * k * bytes, 1);
      const std::vector<uint8_t> mask = random_mask(n, k, 2);
      Packed packed(n, k, dtype);
      REQUIRE(semi_structured_pack(dense.data(), dtype, mask.data(), n, k, packed.values.data(),
                                   packed.metadata.data()) == Status::kOk);
      CHECK(semi_structured_validate(packed.view(), dtype, n, k, nullptr) == Status::kOk);
      std::vector<char> back(n * k * bytes, 0x33);
      REQUIRE(semi_structured_unpack(packed.view(), dtype, n, k, back.data()) == Status::kOk);
      const std::vector<char> expected = masked(dense, mask, bytes);
      CHECK(back == expected);

      // A dense matrix whose zeros are the mask packs to the same bytes, unless a kept weight is zero itself.
      Packed again(n, k, dtype), from_packed(n, k, dtype);
      REQUIRE(semi_structured_pack(expected.data(), dtype, nullptr, n, k, again.values.data(), again.metadata.data()) ==
              Status::kOk);
      std::vector<char> twice(n * k * bytes, 0x33);
      REQUIRE(semi_structured_unpack(again.view(), dtype, n, k, twice.data()) == Status::kOk);
      CHECK(twice == expected);
    }
}

TEST_CASE("Sp24: both selections keep what they say, and two-way masks pack in both directions") {
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : kSizes) {
      CAPTURE(static_cast<int>(dtype));
      CAPTURE(n);
      CAPTURE(k);
      const int64_t bytes = size_of(dtype);
      const std::vector<char> dense = random_bytes(n * k * bytes, 3);
      std::vector<uint8_t> by_row(n * k, 9), two_way(n * k, 9);
      REQUIRE(semi_structured_select(dense.data(), dtype, SemiStructuredSelection::kByRow, n, k, by_row.data()) ==
              Status::kOk);
      REQUIRE(semi_structured_select(dense.data(), dtype, SemiStructuredSelection::kTwoWay, n, k, two_way.data()) ==
              Status::kOk);
      for (int64_t o = 0; o < n; ++o)
        for (int64_t i = 0; i + 4 <= k; i += 4) {
          int kept = 0;
          for (int64_t j = i; j < i + 4; ++j) kept += by_row[o * k + j];
          REQUIRE(kept == 2);
        }
      Packed packed(n, k, dtype), packed_t(k, n, dtype);
      REQUIRE(semi_structured_pack(dense.data(), dtype, two_way.data(), n, k, packed.values.data(),
                                   packed.metadata.data()) == Status::kOk);
      REQUIRE(semi_structured_pack_transposed(dense.data(), dtype, two_way.data(), n, k, packed_t.values.data(),
                                              packed_t.metadata.data()) == Status::kOk);
      std::vector<char> back_t(n * k * bytes);
      REQUIRE(semi_structured_unpack(packed_t.view(), dtype, k, n, back_t.data()) == Status::kOk);
      CHECK(back_t == transposed(masked(dense, two_way, bytes), n, k, bytes));
    }
}

TEST_CASE("Sp24: the selections on matrices done by hand") {
  const int8_t row[8] = {-128, 127, 3, 0, 5, 5, -5, 5};
  uint8_t mask[16];
  REQUIRE(semi_structured_select(row, DType::kInt8, SemiStructuredSelection::kByRow, 1, 8, mask) == Status::kOk);
  CHECK(std::vector<uint8_t>(mask, mask + 8) == std::vector<uint8_t>{1, 1, 0, 0, 1, 1, 0, 0});
  // 9 8 | 7 6 in the first row: 9 and 8 go in, 7 finds its row full. Column 0 is full after 9 and 5.
  const int8_t tile[16] = {9, 8, 7, 6, 5, 1, 1, 1, 4, 3, 2, 1, 0, 0, 0, 0};
  REQUIRE(semi_structured_select(tile, DType::kInt8, SemiStructuredSelection::kTwoWay, 4, 4, mask) == Status::kOk);
  CHECK(std::vector<uint8_t>(mask, mask + 16) == std::vector<uint8_t>{1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1});
}

TEST_CASE("Sp24: corrupted metadata, padding that holds a weight and a mask of three are refused") {
  const int64_t n = 66, k = 70;
  for (const DType dtype : kTypes) {
    const int64_t bytes = size_of(dtype);
    const std::vector<char> dense = random_bytes(n * k * bytes, 5);
    const std::vector<uint8_t> mask = random_mask(n, k, 6);
    Packed packed(n, k, dtype);
    REQUIRE(semi_structured_pack(dense.data(), dtype, mask.data(), n, k, packed.values.data(),
                                 packed.metadata.data()) == Status::kOk);
    // Every pair of bits of a few words: exchanged, and made equal.
    for (const size_t word : {size_t{0}, size_t{77}, packed.metadata.size() - 1})
      for (int pair = 0; pair < 8; ++pair) {
        const uint32_t good = packed.metadata[word], code = good >> (4 * pair) & 15;
        int64_t where = -1;
        for (const uint32_t bad : {(code >> 2 | code << 2) & 15, (code & 3) * 5}) {
          packed.metadata[word] = (good & ~(15u << (4 * pair))) | bad << (4 * pair);
          CHECK(semi_structured_validate(packed.view(), dtype, n, k, &where) == Status::kUnsorted);
          CHECK(where >= 0);
          CHECK(where < 128 * 128);
        }
        packed.metadata[word] = good;
      }
    REQUIRE(semi_structured_validate(packed.view(), dtype, n, k, nullptr) == Status::kOk);
    packed.values.back() = 1;  // channel 127
    CHECK(semi_structured_validate(packed.view(), dtype, n, k, nullptr) == Status::kBadIndex);

    std::vector<uint8_t> three(n * k, 0);
    three[0] = three[1] = three[2] = 1;
    CHECK(semi_structured_pack(dense.data(), dtype, three.data(), n, k, packed.values.data(), packed.metadata.data()) ==
          Status::kBadPattern);
    SemiStructured short_of_one = packed.view();
    --short_of_one.metadata_words;
    CHECK(semi_structured_check(short_of_one, dtype, n, k) == Status::kBadShape);
    CHECK(semi_structured_check({nullptr, nullptr, packed.view().value_bytes, packed.view().metadata_words}, dtype, n,
                                k) == Status::kNullPointer);
  }
  CHECK(semi_structured_value_bytes(n, k, DType::kFloat32) == -1);
  CHECK(semi_structured_value_bytes(-1, k, DType::kBFloat16) == -1);
  CHECK(semi_structured_check({}, DType::kFloat32, n, k) == Status::kUnsupportedDType);
}

namespace {

// One 64 x (128 / sizeof) block read back through the maps that describe the tensor cores' operands.
template <typename T>
void check_against_fragments(DType dtype) {
  constexpr int64_t kDepth = 128 / sizeof(T), kStep = kDepth / 2;
  const std::vector<char> dense = random_bytes(64 * 128, 8);
  const std::vector<uint8_t> mask = random_mask(64, kDepth, 9);
  Packed packed(64, kDepth, dtype);
  REQUIRE(semi_structured_pack(dense.data(), dtype, mask.data(), 64, kDepth, packed.values.data(),
                               packed.metadata.data()) == Status::kOk);
  std::vector<char> back(64 * 128, 0);
  for (int slice = 0; slice < 4; ++slice)
    for (int step = 0; step < 2; ++step)
      for (int lane = 0; lane < 32; ++lane)
        for (int reg = 0; reg < 4; ++reg)
          for (int element = 0; element < fragments::kPerRegister<T>; ++element) {
            const fragments::Place at = fragments::a_place<T>({lane, reg, element});
            const int selector = sizeof(T) == 2 ? step : 0, word = sizeof(T) == 2 ? 0 : step;
            const fragments::MetadataSlot bits = fragments::metadata_slot<T>(at.row, at.column, selector);
            const uint32_t metadata = packed.metadata[(slice * 32 + bits.lane) * (2 / sizeof(T)) + word];
            const int64_t input = kStep * step + 4 * (at.column / 2) + (metadata >> bits.shift & 3);
            const int64_t from = ((((slice * 2 + step) * 32 + lane) * 4 + reg) * 4) + element * sizeof(T);
            // A padding zero must not erase a weight.
            T value;
            std::memcpy(&value, packed.values.data() + from, sizeof(T));
            if (mask[(16 * slice + at.row) * kDepth + input])
              std::memcpy(back.data() + ((16 * slice + at.row) * kDepth + input) * sizeof(T), &value, sizeof(T));
          }
  CHECK(back == masked(dense, mask, sizeof(T)));
}

}  // namespace

TEST_CASE("Sp24: values and metadata stand where the lanes of a sparse instruction hold them") {
  check_against_fragments<uint16_t>(DType::kBFloat16);
  check_against_fragments<uint8_t>(DType::kInt8);
}

TEST_CASE("Sp24: packed from values with places, and from the decode layout") {
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : kSizes) {
      const int64_t bytes = size_of(dtype), slots = (k + 3) / 4 * 2;
      const std::vector<char> dense = random_bytes(n * k * bytes, 10);
      const std::vector<uint8_t> mask = random_mask(n, k, 11);
      std::vector<char> values(n * slots * bytes, 0);
      std::vector<uint8_t> places(n * slots, 0);
      for (int64_t o = 0; o < n; ++o)
        for (int64_t i = 0, slot = 0; i < k; ++i) {
          if (i % 4 == 0) slot = o * slots + i / 2;
          if (!mask[o * k + i]) continue;
          std::memcpy(values.data() + slot * bytes, dense.data() + (o * k + i) * bytes, bytes);
          places[slot++] = static_cast<uint8_t>(i % 4);
        }
      Packed expected(n, k, dtype), packed(n, k, dtype);
      REQUIRE(semi_structured_pack(dense.data(), dtype, mask.data(), n, k, expected.values.data(),
                                   expected.metadata.data()) == Status::kOk);
      REQUIRE(semi_structured_from_places(values.data(), dtype, places.data(), n, k, packed.values.data(),
                                          packed.metadata.data()) == Status::kOk);
      std::vector<char> back(n * k * bytes), back_expected(n * k * bytes);
      REQUIRE(semi_structured_unpack(packed.view(), dtype, n, k, back.data()) == Status::kOk);
      CHECK(back == masked(dense, mask, bytes));
      if (n == 0 || k == 0) continue;

      const int64_t tiles = (n + 15) / 16, words = (slots + 15) / 16;
      std::vector<char> decode_values(tiles * slots * 16 * bytes);
      std::vector<uint32_t> decode_codes(tiles * words * 16);
      REQUIRE(nm_decode_pack(dense.data(), dtype, mask.data(), n, k, 2, 4, decode_values.data(), decode_codes.data()) ==
              Status::kOk);
      const NMDecode decode{decode_values.data(), decode_codes.data(), tiles * slots * 16, tiles * words * 16, 2, 4};
      Packed from_decode(n, k, dtype);
      REQUIRE(semi_structured_from_nm_decode(decode, dtype, n, k, from_decode.values.data(),
                                             from_decode.metadata.data()) == Status::kOk);
      CHECK(from_decode.values == packed.values);
      CHECK(from_decode.metadata == packed.metadata);
      if (k >= 4) {
        places[0] = 2;
        places[1] = 1;
        CHECK(semi_structured_from_places(values.data(), dtype, places.data(), n, k, packed.values.data(),
                                          packed.metadata.data()) == Status::kUnsorted);
        places[1] = 4;
        CHECK(semi_structured_from_places(values.data(), dtype, places.data(), n, k, packed.values.data(),
                                          packed.metadata.data()) == Status::kBadIndex);
      }
    }
}

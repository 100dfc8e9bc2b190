// Compression, decompression and validation on the emulator, byte for byte what the host does.
#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <vector>

#include "cuda/common/device.h"
#include "cuda/tests/adversary.h"
#include "sparsecore/semi_structured_cuda.h"

using namespace sparsecore;
using cuda_emulation::GlobalBuffer;

namespace {

constexpr DType kTypes[] = {DType::kBFloat16, DType::kFloat16, DType::kInt8, kFloat8E4M3};
constexpr int64_t kSizes[][2] = {{1, 1}, {5, 3}, {64, 64}, {65, 130}, {70, 259}, {128, 128}, {3, 72}};
using Selection = SemiStructuredSelection;

struct Packed {
  GlobalBuffer<char> values;
  GlobalBuffer<uint32_t> metadata;
  Packed(int64_t n, int64_t k, DType dtype)
      : values(semi_structured_value_bytes(n, k, dtype)), metadata(semi_structured_metadata_words(n, k, dtype)) {}
  SemiStructured view() {
    return {values.data(), metadata.data(), static_cast<int64_t>(values.size()), static_cast<int64_t>(metadata.size())};
  }
  bool operator==(const Packed& other) const {
    return values.to_vector() == other.values.to_vector() && metadata.to_vector() == other.metadata.to_vector();
  }
};

// Few different magnitudes, so that ties are common.
std::vector<char> few_values(int64_t count, int64_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<char> out(count * bytes);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t sign = random() % 2, magnitude = random() % 6;
    const uint32_t bits = bytes == 2 ? sign << 15 | magnitude << 7 : sign ? 256 - magnitude : magnitude;
    std::memcpy(out.data() + i * bytes, &bits, bytes);
  }
  return out;
}

}  // namespace

TEST_CASE("2:4 compression: every selection and type agrees with the host, in one direction and in both") {
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : kSizes)
      for (const Selection selection : {Selection::kByRow, Selection::kTwoWay, Selection::kMask})
        for (const auto& [offset, pad] : {std::pair{0, 0}, std::pair{1, 1}}) {
          CAPTURE(static_cast<int>(dtype));
          CAPTURE(n);
          CAPTURE(k);
          CAPTURE(static_cast<int>(selection));
          CAPTURE(offset);
          const int64_t bytes = size_of(dtype), stride = (k + 15) / 16 * 16 + pad;
          const bool both = bytes == 2 && selection != Selection::kByRow;
          const std::vector<char> dense = few_values(n * k, bytes, static_cast<unsigned>(n + k));
          GlobalBuffer<char> on_device((offset + (n - 1) * stride + k) * bytes);
          for (int64_t o = 0; o < n; ++o)
            std::memcpy(on_device.data() + (offset + o * stride) * bytes, dense.data() + o * k * bytes, k * bytes);
          std::vector<uint8_t> mask(n * k);
          REQUIRE(semi_structured_select(dense.data(), dtype,
                                         selection == Selection::kMask ? Selection::kTwoWay : selection, n, k,
                                         mask.data()) == Status::kOk);
          if (selection == Selection::kMask)
            for (size_t i = 0; i < mask.size(); i += 3) mask[i] = 0;  // some groups keep fewer
          GlobalBuffer<uint8_t> mask_on_device(mask);
          Packed expected(n, k, dtype), packed(n, k, dtype), expected_t(k, n, dtype), packed_t(k, n, dtype);
          REQUIRE(semi_structured_pack(dense.data(), dtype, mask.data(), n, k, expected.values.data(),
                                       expected.metadata.data()) == Status::kOk);

          SemiStructuredCompressParams p;
          p.dense = on_device.data() + offset * bytes;
          p.mask = selection == Selection::kMask ? mask_on_device.data() : nullptr;
          p.values = packed.values.data();
          p.metadata = packed.metadata.data();
          if (both) {
            p.values_t = packed_t.values.data();
            p.metadata_t = packed_t.metadata.data();
          }
          p.n = n;
          p.k = k;
          p.row_stride = stride;
          p.dtype = dtype;
          p.selection = selection;
          const cuda_emulation::ScopedOptions scoped(next_adversary(80));
          REQUIRE(semi_structured_compress(p, nullptr) == Status::kOk);
          CHECK(packed == expected);
          if (both) {
            REQUIRE(semi_structured_pack_transposed(dense.data(), dtype, mask.data(), n, k, expected_t.values.data(),
                                                    expected_t.metadata.data()) == Status::kOk);
            CHECK(packed_t == expected_t);
          }

          GlobalBuffer<char> back((offset + (n - 1) * stride + k) * bytes);
          REQUIRE(semi_structured_decompress(packed.view(), dtype, n, k, back.data() + offset * bytes, stride,
                                             nullptr) == Status::kOk);
          std::vector<char> back_expected(n * k * bytes);
          REQUIRE(semi_structured_unpack(expected.view(), dtype, n, k, back_expected.data()) == Status::kOk);
          for (int64_t o = 0; o < n; ++o)
            REQUIRE(std::memcmp(back.data() + (offset + o * stride) * bytes, back_expected.data() + o * k * bytes,
                                k * bytes) == 0);
        }
}

TEST_CASE("2:4 compression: where a mask keeps more than two, the two largest stay") {
  const int64_t n = 4, k = 8;
  const std::vector<int8_t> dense = {1, -7, 3, 5, 9, 9, 9, 9, 0, 0, 0, 0, 1, 2, 3, 4,
                                     2, 2,  2, 2, 1, 0, 0, 1, 4, 3, 2, 1, 9, 8, 7, 6};
  const std::vector<uint8_t> mask(n * k, 1);
  std::vector<uint8_t> by_row(n * k);
  REQUIRE(semi_structured_select(dense.data(), DType::kInt8, Selection::kByRow, n, k, by_row.data()) == Status::kOk);
  Packed expected(n, k, DType::kInt8), packed(n, k, DType::kInt8);
  REQUIRE(semi_structured_pack(dense.data(), DType::kInt8, by_row.data(), n, k, expected.values.data(),
                               expected.metadata.data()) == Status::kOk);
  GlobalBuffer<int8_t> dense_on_device(dense);
  GlobalBuffer<uint8_t> mask_on_device(mask);
  SemiStructuredCompressParams p;
  p.dense = dense_on_device.data();
  p.mask = mask_on_device.data();
  p.values = packed.values.data();
  p.metadata = packed.metadata.data();
  p.n = n;
  p.k = p.row_stride = k;
  p.dtype = DType::kInt8;
  p.selection = Selection::kMask;
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  REQUIRE(semi_structured_compress(p, nullptr) == Status::kOk);
  CHECK(packed == expected);
}

TEST_CASE("2:4 validation: the first offence in dense order, as on the host") {
  std::mt19937 random(7);
  for (const DType dtype : kTypes)
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{66, 70}, {64, 128}, {130, 300}, {0, 9}}) {
      CAPTURE(static_cast<int>(dtype));
      CAPTURE(n);
      const std::vector<char> dense = few_values(n * k, size_of(dtype), 3);
      std::vector<uint8_t> mask(n * k);
      REQUIRE(semi_structured_select(dense.data(), dtype, Selection::kByRow, n, k, mask.data()) == Status::kOk);
      Packed packed(n, k, dtype);
      REQUIRE(semi_structured_pack(dense.data(), dtype, mask.data(), n, k, packed.values.data(),
                                   packed.metadata.data()) == Status::kOk);
      GlobalBuffer<int64_t> where(1);
      const auto device_says = [&] {
        const cuda_emulation::ScopedOptions scoped(next_adversary(80));
        REQUIRE(semi_structured_validate_device(packed.view(), dtype, n, k, where.data(), nullptr) == Status::kOk);
        return where[0];
      };
      CHECK(device_says() == -1);
      if (n == 0) continue;
      for (int trial = 0; trial < 3; ++trial) {
        const size_t word = random() % packed.metadata.size(), byte = random() % packed.values.size();
        const uint32_t before = packed.metadata[word];
        const char value = packed.values[byte];
        if (trial < 2) packed.metadata[word] ^= 15u << (random() % 8 * 4);
        if (trial > 0) packed.values[byte] = 1;
        int64_t expected = -2;
        semi_structured_validate(packed.view(), dtype, n, k, &expected);
        CHECK(device_says() == expected);
        packed.metadata[word] = before;
        packed.values[byte] = value;
      }
    }
}

TEST_CASE("2:4 compression: nothing to do, and what cannot be done") {
  SemiStructuredCompressParams p;
  CHECK(semi_structured_compress(p, nullptr) == Status::kOk);
  p.n = 4;
  p.k = p.row_stride = 4;
  CHECK(semi_structured_compress(p, nullptr) == Status::kNullPointer);
  p.dtype = DType::kFloat32;
  CHECK(semi_structured_compress(p, nullptr) == Status::kUnsupportedDType);
  p.dtype = DType::kBFloat16;
  alignas(16) char anything[16];
  p.dense = p.values = p.values_t = anything;
  p.metadata = p.metadata_t = reinterpret_cast<uint32_t*>(anything);
  p.selection = Selection::kByRow;
  CHECK(semi_structured_compress(p, nullptr) == Status::kBadPattern);
  CHECK(std::string(cuda_message()).find("Compress the transposed matrix") != std::string::npos);
  CHECK(semi_structured_decompress({}, DType::kFloat32, 4, 4, &p, 4, nullptr) == Status::kUnsupportedDType);
  CHECK(semi_structured_validate_device({}, DType::kInt8, 0, 4, nullptr, nullptr) == Status::kNullPointer);
}

// dense -> Sp24 and back, on the host: the specification that the CUDA kernels must agree with, byte for byte.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "sparsecore/semi_structured.h"

namespace sparsecore {
namespace {

constexpr int64_t kRows = 64, kDepthBytes = 128, kUnitBytes = 8, kUnits = kDepthBytes / kUnitBytes, kSlice = 16;
constexpr int64_t kBlockValueBytes = 4096, kBlockLanes = 128;  // lanes of the four slices

// Where the unit of a channel lies; both of the channel and the unit counted inside the whole matrix.
struct Place {
  int64_t value;  // byte of `values` with the first of the unit's two or four weights
  int64_t word;   // of `metadata`
  int shift;      // of the unit's four or eight bits inside the word
};

struct Layout {
  int64_t n, k, bytes, depth, n_blocks, k_blocks, words_per_lane;

  Layout(int64_t n, int64_t k, DType dtype)
      : n(n),
        k(k),
        bytes(size_of(dtype)),
        depth(kDepthBytes / bytes),
        n_blocks((n + kRows - 1) / kRows),
        k_blocks((k + depth - 1) / depth),
        words_per_lane(2 / bytes) {}

  int64_t value_bytes() const { return n_blocks * k_blocks * kBlockValueBytes; }
  int64_t metadata_words() const { return n_blocks * k_blocks * kBlockLanes * words_per_lane; }
  int64_t padded_channels() const { return n_blocks * kRows; }
  int64_t units() const { return k_blocks * kUnits; }  // of one channel
  int64_t groups_per_unit() const { return 2 / bytes; }

  Place place(int64_t channel, int64_t unit) const {
    const int64_t block = channel / kRows * k_blocks + unit / kUnits;
    const int64_t slice = channel % kRows / kSlice, h = channel % kSlice / 8, g = channel % 8;
    const int64_t u = unit % kUnits, s = u / 8, b = u / 4 % 2, t = u % 4;
    Place place;
    place.value = block * kBlockValueBytes + (((slice * 2 + s) * 32 + 4 * g + t) * 4 + h + 2 * b) * 4;
    const int64_t lane = 4 * g + (bytes == 2 ? 2 * s + b : h + 2 * b), word = bytes == 2 ? 0 : s;
    place.word = (block * kBlockLanes + slice * 32 + lane) * words_per_lane + word;
    place.shift = static_cast<int>(bytes == 2 ? 16 * h + 4 * t : 8 * t);
    return place;
  }
};

bool shape_fits(int64_t n, int64_t k) { return n >= 0 && k >= 0 && n <= INT32_MAX && k <= INT32_MAX; }

bool is_zero(const char* value, int64_t bytes) {
  return std::all_of(value, value + bytes, [](char byte) { return byte == 0; });
}

// kept: bit i = place i of the group; at most two. Adds the smallest free places until there are two.
std::array<int, 2> two_places(unsigned kept) {
  int count = static_cast<int>((kept & 1) + (kept >> 1 & 1) + (kept >> 2 & 1) + (kept >> 3 & 1));
  for (int i = 0; count < 2; ++i)
    if (!(kept >> i & 1)) {
      kept |= 1u << i;
      ++count;
    }
  std::array<int, 2> places{};
  for (int i = 0, out = 0; i < 4; ++i)
    if (kept >> i & 1) places[out++] = i;
  return places;
}

// weight_of(channel, input) -> pointer to the weight; kept_of(channel, input) -> bool. Both only asked inside n x k.
template <typename WeightOf, typename KeptOf>
Status pack_matrix(const Layout& layout, WeightOf weight_of, KeptOf kept_of, void* values, uint32_t* metadata) {
  char* out = static_cast<char*>(values);
  if (layout.value_bytes() == 0) return Status::kOk;
  std::memset(out, 0, layout.value_bytes());
  std::memset(metadata, 0, layout.metadata_words() * sizeof(uint32_t));
  for (int64_t channel = 0; channel < layout.padded_channels(); ++channel)
    for (int64_t unit = 0; unit < layout.units(); ++unit) {
      const Place place = layout.place(channel, unit);
      for (int64_t group = 0; group < layout.groups_per_unit(); ++group) {
        const int64_t first = unit * (kUnitBytes / layout.bytes) + group * 4;
        unsigned kept = 0;
        int count = 0;
        for (int i = 0; i < 4; ++i)
          if (channel < layout.n && first + i < layout.k && kept_of(channel, first + i)) {
            kept |= 1u << i;
            ++count;
          }
        if (count > 2) return Status::kBadPattern;
        const std::array<int, 2> places = two_places(kept);
        for (int i = 0; i < 2; ++i) {
          metadata[place.word] |= static_cast<uint32_t>(places[i]) << (place.shift + 4 * group + 2 * i);
          if (kept >> places[i] & 1)
            std::memcpy(out + place.value + (2 * group + i) * layout.bytes, weight_of(channel, first + places[i]),
                        layout.bytes);
        }
      }
    }
  return Status::kOk;
}

Status check_pack(const void* dense, DType dtype, int64_t n, int64_t k, const void* values, const void* metadata) {
  if (!semi_structured_supports(dtype)) return Status::kUnsupportedDType;
  if (!shape_fits(n, k)) return Status::kBadShape;
  if (n > 0 && k > 0 && (!dense || !values || !metadata)) return Status::kNullPointer;
  return Status::kOk;
}

// An integer that orders magnitudes.
int magnitude(const char* weight, DType dtype) {
  if (dtype == DType::kInt8) {
    const int value = static_cast<signed char>(*weight);
    return value < 0 ? -value : value;
  }
  if (dtype == kFloat8E4M3) return static_cast<unsigned char>(*weight) & 0x7f;
  uint16_t bits;
  std::memcpy(&bits, weight, 2);
  return bits & 0x7fff;
}

}  // namespace

bool semi_structured_supports(DType dtype) {
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16 || dtype == DType::kInt8 || dtype == kFloat8E4M3;
}

int64_t semi_structured_value_bytes(int64_t n, int64_t k, DType dtype) {
  return semi_structured_supports(dtype) && shape_fits(n, k) ? Layout(n, k, dtype).value_bytes() : -1;
}

int64_t semi_structured_metadata_words(int64_t n, int64_t k, DType dtype) {
  return semi_structured_supports(dtype) && shape_fits(n, k) ? Layout(n, k, dtype).metadata_words() : -1;
}

Status semi_structured_check(const SemiStructured& weight, DType dtype, int64_t n, int64_t k) {
  if (!semi_structured_supports(dtype)) return Status::kUnsupportedDType;
  if (!shape_fits(n, k)) return Status::kBadShape;
  const Layout layout(n, k, dtype);
  if (weight.value_bytes != layout.value_bytes() || weight.metadata_words != layout.metadata_words())
    return Status::kBadShape;
  if (weight.value_bytes > 0 && (!weight.values || !weight.metadata)) return Status::kNullPointer;
  return Status::kOk;
}

Status semi_structured_validate(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, int64_t* where) {
  if (where) *where = -1;
  if (const Status status = semi_structured_check(weight, dtype, n, k); status != Status::kOk) return status;
  const Layout layout(n, k, dtype);
  for (int64_t channel = 0; channel < layout.padded_channels(); ++channel)
    for (int64_t unit = 0; unit < layout.units(); ++unit) {
      const Place place = layout.place(channel, unit);
      for (int64_t group = 0; group < layout.groups_per_unit(); ++group) {
        const int64_t first = unit * (kUnitBytes / layout.bytes) + group * 4;
        const uint32_t code = weight.metadata[place.word] >> (place.shift + 4 * group);
        const int64_t places[2] = {code & 3, code >> 2 & 3};
        Status status = places[0] < places[1] ? Status::kOk : Status::kUnsorted;
        for (int i = 0; i < 2; ++i) {
          const char* value = static_cast<const char*>(weight.values) + place.value + (2 * group + i) * layout.bytes;
          if ((channel >= n || first + places[i] >= k) && !is_zero(value, layout.bytes)) status = Status::kBadIndex;
        }
        if (status == Status::kOk) continue;
        if (where) *where = channel * layout.k_blocks * layout.depth + first;
        return status;
      }
    }
  return Status::kOk;
}

Status semi_structured_pack(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k, void* values,
                            uint32_t* metadata) {
  if (const Status status = check_pack(dense, dtype, n, k, values, metadata); status != Status::kOk) return status;
  const Layout layout(n, k, dtype);
  const char* weights = static_cast<const char*>(dense);
  const auto weight_of = [&](int64_t o, int64_t i) { return weights + (o * k + i) * layout.bytes; };
  const auto kept_of = [&](int64_t o, int64_t i) {
    return mask ? mask[o * k + i] != 0 : !is_zero(weight_of(o, i), layout.bytes);
  };
  return pack_matrix(layout, weight_of, kept_of, values, metadata);
}

Status semi_structured_pack_transposed(const void* dense, DType dtype, const uint8_t* mask, int64_t n, int64_t k,
                                       void* values, uint32_t* metadata) {
  if (const Status status = check_pack(dense, dtype, n, k, values, metadata); status != Status::kOk) return status;
  const Layout layout(k, n, dtype);
  const char* weights = static_cast<const char*>(dense);
  const auto weight_of = [&](int64_t i, int64_t o) { return weights + (o * k + i) * layout.bytes; };
  const auto kept_of = [&](int64_t i, int64_t o) {
    return mask ? mask[o * k + i] != 0 : !is_zero(weight_of(i, o), layout.bytes);
  };
  return pack_matrix(layout, weight_of, kept_of, values, metadata);
}

Status semi_structured_unpack(const SemiStructured& weight, DType dtype, int64_t n, int64_t k, void* dense) {
  if (const Status status = semi_structured_check(weight, dtype, n, k); status != Status::kOk) return status;
  if (n == 0 || k == 0) return Status::kOk;
  if (!dense) return Status::kNullPointer;
  const Layout layout(n, k, dtype);
  char* out = static_cast<char*>(dense);
  std::memset(out, 0, n * k * layout.bytes);
  for (int64_t channel = 0; channel < n; ++channel)
    for (int64_t unit = 0; unit < layout.units(); ++unit) {
      const Place place = layout.place(channel, unit);
      for (int64_t i = 0; i < 2 * layout.groups_per_unit(); ++i) {
        const int64_t input =
            unit * (kUnitBytes / layout.bytes) + i / 2 * 4 + (weight.metadata[place.word] >> (place.shift + 2 * i) & 3);
        if (input < k)
          std::memcpy(out + (channel * k + input) * layout.bytes,
                      static_cast<const char*>(weight.values) + place.value + i * layout.bytes, layout.bytes);
      }
    }
  return Status::kOk;
}

Status semi_structured_select(const void* dense, DType dtype, SemiStructuredSelection selection, int64_t n, int64_t k,
                              uint8_t* mask) {
  if (const Status status = check_pack(dense, dtype, n, k, mask, mask); status != Status::kOk) return status;
  if (selection != SemiStructuredSelection::kByRow && selection != SemiStructuredSelection::kTwoWay)
    return Status::kBadPattern;
  const char* weights = static_cast<const char*>(dense);
  const int64_t bytes = size_of(dtype);
  const int rows = selection == SemiStructuredSelection::kTwoWay ? 4 : 1;
  for (int64_t o = 0; o < n; o += rows)
    for (int64_t i = 0; i < k; i += 4) {
      std::array<int, 16> keys{};
      std::vector<int> order;
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < 4; ++c) {
          order.push_back(4 * r + c);
          if (o + r < n && i + c < k) keys[4 * r + c] = magnitude(weights + ((o + r) * k + i + c) * bytes, dtype);
        }
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return keys[a] > keys[b]; });
      std::array<int, 4> in_row{}, in_column{};
      for (const int place : order) {
        const int r = place / 4, c = place % 4;
        const bool keep = in_row[r] < 2 && in_column[c] < 2;
        in_row[r] += keep;
        in_column[c] += keep;
        if (o + r < n && i + c < k) mask[(o + r) * k + i + c] = keep;
      }
    }
  return Status::kOk;
}

Status semi_structured_from_places(const void* values, DType dtype, const uint8_t* places, int64_t n, int64_t k,
                                   void* packed_values, uint32_t* metadata) {
  if (const Status status = check_pack(values, dtype, n, k, packed_values, metadata); status != Status::kOk)
    return status;
  if (n > 0 && k > 0 && !places) return Status::kNullPointer;
  const int64_t slots = (k + 3) / 4 * 2, bytes = size_of(dtype);
  const char* from = static_cast<const char*>(values);
  // Slots of a group that are used: both, unless the second place is the 0 of an empty slot.
  const auto used = [&](int64_t slot) { return places[slot + 1] > places[slot] ? 2 : 1; };
  for (int64_t slot = 0; slot < n * slots; slot += 2) {
    if (places[slot] > 3 || places[slot + 1] > 3) return Status::kBadIndex;
    if (used(slot) == 1 && (places[slot + 1] != 0 || !is_zero(from + (slot + 1) * bytes, bytes)))
      return Status::kUnsorted;
    if (slot % slots / 2 * 4 + places[slot + used(slot) - 1] >= k) return Status::kBadIndex;
  }
  const auto slot_of = [&](int64_t o, int64_t i) -> int64_t {
    const int64_t slot = o * slots + i / 4 * 2;
    for (int64_t s = slot; s < slot + used(slot); ++s)
      if (places[s] == i % 4) return s;
    return -1;
  };
  return pack_matrix(
      Layout(n, k, dtype), [&](int64_t o, int64_t i) { return from + slot_of(o, i) * bytes; },
      [&](int64_t o, int64_t i) { return slot_of(o, i) >= 0; }, packed_values, metadata);
}

Status semi_structured_from_nm_decode(const NMDecode& weight, DType dtype, int64_t n, int64_t k, void* packed_values,
                                      uint32_t* metadata) {
  if (!semi_structured_supports(dtype)) return Status::kUnsupportedDType;
  if (weight.n_kept != 2 || weight.m != 4) return Status::kBadPattern;
  if (const Status status = nm_decode_validate(weight, dtype, n, k, nullptr); status != Status::kOk) return status;
  // Tiles of 16 channels side by side, 16 codes of two bits in a word.
  constexpr int64_t kTile = 16, kPerWord = 16;
  const int64_t slots = (k + 3) / 4 * 2, bytes = size_of(dtype), words = (slots + kPerWord - 1) / kPerWord;
  std::vector<char> values(n * slots * bytes);
  std::vector<uint8_t> places(n * slots);
  for (int64_t o = 0; o < n; ++o)
    for (int64_t s = 0; s < slots; ++s) {
      const int64_t tile = o / kTile, c = o % kTile;
      std::memcpy(values.data() + (o * slots + s) * bytes,
                  static_cast<const char*>(weight.values) + ((tile * slots + s) * kTile + c) * bytes, bytes);
      places[o * slots + s] = weight.codes[(tile * words + s / kPerWord) * kTile + c] >> (2 * (s % kPerWord)) & 3;
    }
  return semi_structured_from_places(values.data(), dtype, places.data(), n, k, packed_values, metadata);
}

}  // namespace sparsecore

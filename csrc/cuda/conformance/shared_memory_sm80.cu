// ldmatrix, cp.async, conversions, where shared memory begins and accesses to it, loads and stores with cache hints,
// named barriers.
#include <cmath>

#include "cuda/common/cache_hints.h"
#include "cuda/common/convert.h"
#include "cuda/common/cp_async.h"
#include "cuda/common/ldmatrix.h"
#include "cuda/common/named_barrier.h"
#include "cuda/common/shared_memory.h"
#include "cuda/conformance/matrix_tiles.h"

namespace sparsecore::conformance {
namespace {

// tiles [kTiles, 8, 8], registers [32, kTiles].
template <int kTiles, bool kTransposed>
__global__ void ldmatrix_kernel(const uint16_t* tiles, uint32_t* registers) {
  char* const shared = ptx::smem();
  const int lane = threadIdx.x;
  for (int i = lane; i < kTiles * 64; i += 32) reinterpret_cast<uint16_t*>(shared)[i] = tiles[i];
  __syncwarp();
  uint32_t loaded[kTiles];
  const char* row = shared + 16 * (lane % (8 * kTiles));
  if constexpr (kTransposed) {
    ptx::ldmatrix_transposed(loaded, row);
  } else {
    ptx::ldmatrix(loaded, row);
  }
  for (int i = 0; i < kTiles; ++i) registers[lane * kTiles + i] = loaded[i];
}

template <int kTiles, bool kTransposed>
std::string check_ldmatrix() {
  const MatrixTiles tiles(kTiles, kTransposed);
  DeviceArray<uint16_t> device_tiles(tiles.elements);
  DeviceArray<uint32_t> device_registers(std::vector<uint32_t>(32 * kTiles));
  require(launch(one_block(32, kTiles * 128), ldmatrix_kernel<kTiles, kTransposed>, device_tiles.data(),
                 device_registers.data()));
  finish();
  return first_difference(device_registers.values(), tiles.registers, kTiles);
}

// Lane l copies kBytes from from[16 l] to shared byte 16 l, of which (with zfill) l % (kBytes + 1) are read; two
// groups, the second for the upper half of the lanes' memory. to [2, 32, 16].
enum class Variant { kPlain, kZeroFill, kHinted };
template <int kBytes, ptx::CacheAt kCache, Variant kVariant>
__global__ void cp_async_kernel(const uint8_t* from, uint8_t* to) {
  char* const shared = ptx::smem();
  const int lane = threadIdx.x;
  for (int i = 0; i < 32; ++i) shared[32 * lane + i] = 77;
  __syncwarp();
  for (int group = 0; group < 2; ++group) {
    const int at = 512 * group + 16 * lane;
    if constexpr (kVariant == Variant::kPlain) {
      ptx::cp_async<kBytes, kCache>(shared + at, from + at);
    } else if constexpr (kVariant == Variant::kZeroFill) {
      ptx::cp_async_zfill<kBytes, kCache>(shared + at, from + at, lane % (kBytes + 1));
    } else {
      ptx::cp_async_hinted(shared + at, from + at, ptx::policy_evict_last());
    }
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<1>();
  for (int i = 0; i < 16; ++i) to[16 * lane + i] = shared[16 * lane + i];
  ptx::cp_async_wait<0>();
  for (int i = 0; i < 16; ++i) to[512 + 16 * lane + i] = shared[512 + 16 * lane + i];
}

template <int kBytes, ptx::CacheAt kCache, Variant kVariant>
std::string check_cp_async() {
  std::mt19937 random(kBytes);
  std::vector<uint8_t> from(1024), expected(1024, 77);
  for (uint8_t& byte : from) byte = static_cast<uint8_t>(random());
  for (int i = 0; i < 1024; ++i) {
    const int lane = i / 16 % 32, read = kVariant == Variant::kZeroFill ? lane % (kBytes + 1) : kBytes;
    if (i % 16 < kBytes) expected[i] = i % 16 < read ? from[i] : 0;
  }
  DeviceArray<uint8_t> device_from(from), device_to(std::vector<uint8_t>(1024));
  require(launch(one_block(32, 1024), cp_async_kernel<kBytes, kCache, kVariant>, device_from.data(), device_to.data()));
  finish();
  return first_difference(device_to.values(), expected, 16);
}

// Each lane stores 16, 8 and 4 bytes, and loads what the lane before it stored, the last four also two by two.
// from [32, 7], to [32, 9].
__global__ void shared_access_kernel(const uint32_t* from, uint32_t* to) {
  char* const shared = ptx::smem();
  const int lane = threadIdx.x, before = (lane + 31) % 32;
  const uint32_t* own = from + 7 * lane;
  ptx::store_shared_16(shared + 16 * lane, make_uint4(own[0], own[1], own[2], own[3]));
  ptx::store_shared_8(shared + 512 + 8 * lane, make_uint2(own[4], own[5]));
  ptx::store_shared_4(shared + 768 + 4 * lane, own[6]);
  __syncwarp();
  const uint4 sixteen = ptx::load_shared_16(shared + 16 * before);
  const uint2 eight = ptx::load_shared_8(shared + 512 + 8 * before);
  const char* const four = shared + 768 + 4 * before;
  const uint32_t loaded[9] = {sixteen.x,
                              sixteen.y,
                              sixteen.z,
                              sixteen.w,
                              eight.x,
                              eight.y,
                              ptx::load_shared_4(four),
                              ptx::load_shared_2(four),
                              ptx::load_shared_2(four + 2)};
  for (int i = 0; i < 9; ++i) to[9 * lane + i] = loaded[i];
}

std::string check_shared_access() {
  std::vector<uint32_t> from(7 * 32), expected;
  std::mt19937 random(1);
  for (uint32_t& word : from) word = static_cast<uint32_t>(random());
  for (int lane = 0; lane < 32; ++lane) {
    const uint32_t* const before = &from[7 * ((lane + 31) % 32)];
    expected.insert(expected.end(), before, before + 7);
    expected.insert(expected.end(), {before[6] & 0xffff, before[6] >> 16});
  }
  DeviceArray<uint32_t> device_from(from), device_to(std::vector<uint32_t>(9 * 32));
  require(launch(one_block(32, 896), shared_access_kernel, device_from.data(), device_to.data()));
  finish();
  return first_difference(device_to.values(), expected, 9);
}

// Copies 64 bytes per lane through 16, 8 and 4-byte streaming loads and 16-byte stores.
__global__ void cache_hint_kernel(const uint32_t* from, uint32_t* to) {
  const int at = 16 * threadIdx.x;
  const uint64_t first = ptx::policy_evict_first(), last = ptx::policy_evict_last();
  const uint64_t normal = ptx::policy_evict_normal();
  ptx::prefetch_l2(from + at);
  const uint4 a = ptx::load_streaming_16(from + at, first);
  const uint2 b = ptx::load_streaming_8(from + at + 4, last);
  const uint32_t c = ptx::load_streaming_4(from + at + 6, first), d = ptx::load_streaming_4(from + at + 7, last);
  ptx::store_hinted_16(to + at, a, last);
  ptx::store_hinted_16(to + at + 4, make_uint4(b.x, b.y, c, d), first);
  ptx::store_hinted_16(to + at + 8, ptx::load_once_16(from + at + 8), normal);
  const uint32_t e = ptx::load_once_4(from + at + 12), f = ptx::load_once_4(from + at + 13);
  const uint2 g = ptx::load_streaming_8(from + at + 14, normal);
  ptx::store_hinted_16(to + at + 12, make_uint4(e, f, g.x, g.y), normal);
}

std::string check_cache_hints() {
  std::vector<uint32_t> from(16 * 32);
  std::mt19937 random(1);
  for (uint32_t& word : from) word = static_cast<uint32_t>(random());
  DeviceArray<uint32_t> device_from(from), device_to(std::vector<uint32_t>(16 * 32));
  require(launch(one_block(32), cache_hint_kernel, device_from.data(), device_to.data()));
  finish();
  return first_difference(device_to.values(), from, 16);
}

// Warps 1 and 2 hand warp 0 a word per lane each, in four rounds: barrier 1 says full, barrier 2 empty.
__global__ void named_barrier_kernel(uint32_t* sums) {
  uint32_t* const shared = reinterpret_cast<uint32_t*>(ptx::smem());
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t sum = 0;
  for (uint32_t round = 0; round < 4; ++round) {
    if (warp > 0) {
      if (round > 0) ptx::named_barrier_sync(2, 96);
      shared[threadIdx.x - 32] = 1000 * round + threadIdx.x;
      ptx::named_barrier_arrive(1, 96);
    } else {
      ptx::named_barrier_sync(1, 96);
      sum += shared[31 - lane] + shared[32 + lane];
      if (round < 3) ptx::named_barrier_arrive(2, 96);
    }
  }
  if (warp == 0) sums[lane] = sum;
}

std::string check_named_barrier() {
  std::vector<uint32_t> expected(32);
  for (uint32_t lane = 0; lane < 32; ++lane) expected[lane] = 2 * 6000 + 4 * (32 + 31 - lane + 64 + lane);
  DeviceArray<uint32_t> sums(std::vector<uint32_t>(32));
  require(launch(one_block(96, 256), named_barrier_kernel, sums.data()));
  finish();
  return first_difference(sums.values(), expected, 32);
}

// All 65536 codes to float, and floats to codes.
template <class T>
__global__ void convert_kernel(float* widened, const float* values, uint32_t* narrowed) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  widened[i] = ptx::unpack2<T>(i | (i ^ 0xffff) << 16).x;
  narrowed[i] = ptx::pack2<T>(values[i], values[65535 - i]);
}

// The value of a code, by the definition of the format.
double value_of(uint32_t code, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1);
  const double mantissa = code & ((1u << mantissa_bits) - 1), sign = code & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * std::ldexp(mantissa + (exponent == 0 ? 0 : 1 << mantissa_bits),
                           (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
}

template <class T>
std::string check_convert() {
  constexpr int mantissa_bits = std::is_same_v<T, BFloat16> ? 7 : 10;
  // Between each code and the next one: a tie, which goes to the even code, or its neighbours on either side.
  std::vector<float> values(65536);
  std::vector<uint32_t> codes(65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    const double low = value_of(i, mantissa_bits),
                 high = value_of((i + 1) & 0x7fff, mantissa_bits) * (i & 0x8000 ? -1 : 1);
    if (!std::isfinite(low) || !std::isfinite(high)) {
      values[i] = std::isnan(low) ? 1.0f : static_cast<float>(low);
      codes[i] = std::isnan(low) ? (mantissa_bits == 7 ? 0x3f80 : 0x3c00) : i;
      continue;
    }
    const float tie = static_cast<float>((low + high) / 2);
    values[i] = i % 3 == 0 ? tie : std::nextafter(tie, static_cast<float>(i % 3 == 1 ? low : high));
    codes[i] = i % 3 == 0 ? i + i % 2 : i % 3 == 1 ? i : i + 1;
  }
  DeviceArray<float> widened(std::vector<float>(65536)), device_values(values);
  DeviceArray<uint32_t> narrowed(std::vector<uint32_t>(65536));
  LaunchConfig config = one_block(256);
  config.grid = dim3(256);
  require(launch(config, convert_kernel<T>, widened.data(), device_values.data(), narrowed.data()));
  finish();
  const std::vector<float> got = widened.values();
  for (uint32_t code = 0; code < 65536; ++code) {
    const double expected = value_of(code, mantissa_bits);
    if (got[code] == expected || (std::isnan(got[code]) && std::isnan(expected))) continue;
    std::ostringstream text;
    text << "code " << code << " widens to " << got[code] << " and should be " << expected;
    return text.str();
  }
  std::vector<uint32_t> expected;
  for (int i = 0; i < 65536; ++i) expected.push_back(codes[i] | codes[65535 - i] << 16);
  return first_difference(narrowed.values(), expected, 65536);
}

// Where dynamic shared memory begins, as blocks of three sizes see it: swizzles rest on multiples of 1024.
__global__ void begin_kernel(uint32_t* to) {
  if (threadIdx.x == 0) *to = ptx::shared_address(ptx::smem()) % 1024;
}

std::string check_begin() {
  DeviceArray<uint32_t> to(std::vector<uint32_t>(3, 1));
  int i = 0;
  for (const size_t bytes : {size_t{16}, size_t{40} << 10, size_t{99} << 10})
    require(launch(one_block(32, bytes), begin_kernel, to.data() + i++));
  finish();
  return first_difference(to.values(), std::vector<uint32_t>(3), 3);
}

}  // namespace

void add_shared_memory_checks(std::vector<Check>& checks) {
  using ptx::CacheAt;
  checks.push_back({"ldmatrix.x4", 80, 0, check_ldmatrix<4, false>});
  checks.push_back({"ldmatrix.x2", 80, 1, check_ldmatrix<2, false>});
  checks.push_back({"ldmatrix.x1", 80, 2, check_ldmatrix<1, false>});
  checks.push_back({"ldmatrix.x4.transposed", 80, 1, check_ldmatrix<4, true>});
  checks.push_back({"ldmatrix.x2.transposed", 80, 2, check_ldmatrix<2, true>});
  checks.push_back({"ldmatrix.x1.transposed", 80, 2, check_ldmatrix<1, true>});
  checks.push_back({"cp_async.16.global", 80, 0, check_cp_async<16, CacheAt::kGlobal, Variant::kPlain>});
  checks.push_back({"cp_async.16.global.zfill", 80, 0, check_cp_async<16, CacheAt::kGlobal, Variant::kZeroFill>});
  checks.push_back({"cp_async.16.hinted", 80, 1, check_cp_async<16, CacheAt::kGlobal, Variant::kHinted>});
  checks.push_back({"cp_async.16.all", 80, 1, check_cp_async<16, CacheAt::kAll, Variant::kPlain>});
  checks.push_back({"cp_async.8.all", 80, 2, check_cp_async<8, CacheAt::kAll, Variant::kPlain>});
  checks.push_back({"cp_async.8.all.zfill", 80, 2, check_cp_async<8, CacheAt::kAll, Variant::kZeroFill>});
  checks.push_back({"cp_async.4.all", 80, 2, check_cp_async<4, CacheAt::kAll, Variant::kPlain>});
  checks.push_back({"cp_async.4.all.zfill", 80, 2, check_cp_async<4, CacheAt::kAll, Variant::kZeroFill>});
  checks.push_back({"shared_begin", 80, 0, check_begin});
  checks.push_back({"shared_access", 80, 1, check_shared_access});
  checks.push_back({"cache_hints", 80, 1, check_cache_hints});
  checks.push_back({"named_barrier", 80, 1, check_named_barrier});
  checks.push_back({"convert.bf16", 80, 1, check_convert<BFloat16>});
  checks.push_back({"convert.f16", 80, 1, check_convert<Float16>});
}

}  // namespace sparsecore::conformance

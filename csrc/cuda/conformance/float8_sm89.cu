// 8-bit floats: mma, mma.sp and conversions.
#include <cmath>

#include "cuda/common/convert.h"
#include "cuda/conformance/mma_check.h"

namespace sparsecore::conformance {
namespace {

// Every code of the format to float, and every float of `values` to the format.
template <class T>
__global__ void convert_kernel(float* widened, const float* values, uint32_t* narrowed) {
  const int i = threadIdx.x;
  widened[i] = ptx::unpack2<T>(static_cast<uint32_t>(i) | 0xff00u * (i & 1)).x;
  narrowed[i] = ptx::pack2<T>(values[i], values[255 - i]);
}

// The value of a code by the definition of the format.
float float8_value(int code, int exponent_bits, bool has_infinity) {
  const int mantissa_bits = 7 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1), mantissa = code & ((1 << mantissa_bits) - 1);
  const float sign = code & 0x80 ? -1.0f : 1.0f;
  if (has_infinity && exponent == (1 << exponent_bits) - 1) return mantissa == 0 ? sign * INFINITY : NAN;
  if (!has_infinity && (code & 0x7f) == 0x7f) return NAN;
  const float scale = 1.0f / static_cast<float>(1 << mantissa_bits);
  return exponent == 0 ? sign * std::ldexp(mantissa * scale, 1 - bias)
                       : sign * std::ldexp(1 + mantissa * scale, exponent - bias);
}

template <class T>
std::string check_convert() {
  constexpr bool e5m2 = std::is_same_v<T, Float8E5M2>;
  const auto value_of = [](int code) { return float8_value(code, e5m2 ? 5 : 4, e5m2); };
  constexpr int largest = e5m2 ? 0x7b : 0x7e;
  // Around every boundary between two codes: the tie itself, which goes to the even code, and its neighbours.
  std::vector<float> values;
  std::vector<int> codes;
  const auto add = [&](float value, int code) {
    values.push_back(value);
    codes.push_back(code);
  };
  for (int code = 0; code < largest && values.size() < 240; code += code < 24 ? 1 : 2) {
    const float tie = (value_of(code) + value_of(code + 1)) / 2;
    add(tie, code % 2 == 0 ? code : code + 1);
    add(-std::nextafter(tie, 0.0f), code | 0x80);
    add(std::nextafter(tie, INFINITY), code + 1);
  }
  values.resize(249);
  codes.resize(249);
  add(value_of(largest), largest);
  add(2 * value_of(largest), largest);
  add(INFINITY, largest);
  add(-INFINITY, largest | 0x80);
  add(1e30f, largest);
  add(0.0f, 0);
  add(-0.0f, 0x80);

  DeviceArray<float> widened(std::vector<float>(256)), device_values(values);
  DeviceArray<uint32_t> narrowed(std::vector<uint32_t>(256));
  require(launch(one_block(256), convert_kernel<T>, widened.data(), device_values.data(), narrowed.data()));
  finish();
  const std::vector<float> got = widened.values();
  for (int code = 0; code < 256; ++code) {
    const float expected = value_of(code);
    if (got[code] == expected || (std::isnan(got[code]) && std::isnan(expected))) continue;
    std::ostringstream text;
    text << "code " << code << " widens to " << got[code] << " and should be " << expected;
    return text.str();
  }
  std::vector<uint32_t> expected;
  for (int i = 0; i < 256; ++i) expected.push_back(codes[i] | codes[255 - i] << 8);
  return first_difference(narrowed.values(), expected, 256);
}

}  // namespace

void add_float8_checks(std::vector<Check>& checks) {
  checks.push_back({"mma_sparse.e4m3", 89, 1, check_mma_sparse<Float8E4M3, 0>});
  checks.push_back({"mma.e4m3", 89, 1, check_mma<Float8E4M3>});
  checks.push_back({"mma_sparse.e5m2", 89, 2, check_mma_sparse<Float8E5M2, 0>});
  checks.push_back({"mma.e5m2", 89, 2, check_mma<Float8E5M2>});
  checks.push_back({"convert.e4m3", 89, 1, check_convert<Float8E4M3>});
  checks.push_back({"convert.e5m2", 89, 2, check_convert<Float8E5M2>});
}

}  // namespace sparsecore::conformance

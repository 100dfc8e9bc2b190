#include "cuda/semi_structured/message.h"

#include <cstdarg>
#include <cstdio>

namespace sparsecore {
namespace semi_structured {
namespace {

thread_local char message[512] = "no error";

}  // namespace

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "float32";
    case DType::kBFloat16: return "bfloat16";
    case DType::kFloat16: return "float16";
    case DType::kInt8: return "int8";
  }
  return dtype == kFloat8E4M3 ? "float8_e4m3" : "an unknown type";
}

Status refuse(Status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  return status;
}

Status check_weight(const char* function, const SemiStructured& weight, DType dtype, int64_t n, int64_t k) {
  switch (const Status status = semi_structured_check(weight, dtype, n, k)) {
    case Status::kOk: return status;
    case Status::kUnsupportedDType:
      return refuse(status, "%s: needs bfloat16, float16, int8 or float8_e4m3 weights, got %s", function,
                    name_of(dtype));
    case Status::kBadShape:
      return refuse(
          status,
          "%s: a weight [%lld, %lld] of %s has %lld bytes of values and %lld words of metadata, got %lld and %lld",
          function, static_cast<long long>(n), static_cast<long long>(k), name_of(dtype),
          static_cast<long long>(semi_structured_value_bytes(n, k, dtype)),
          static_cast<long long>(semi_structured_metadata_words(n, k, dtype)),
          static_cast<long long>(weight.value_bytes), static_cast<long long>(weight.metadata_words));
    default: return refuse(status, "%s: %s", function, describe(status));
  }
}

}  // namespace semi_structured

const char* semi_structured_message() { return semi_structured::message; }

}  // namespace sparsecore

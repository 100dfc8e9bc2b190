#include "cuda/linear/message.h"

#include <cstdarg>
#include <cstdio>

#include "sparsecore/semi_structured.h"

namespace sparsecore {
namespace cuda_linear {
namespace {

thread_local char message[1024] = "no error";

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

}  // namespace cuda_linear

const char* cuda_message() { return cuda_linear::message; }

}  // namespace sparsecore

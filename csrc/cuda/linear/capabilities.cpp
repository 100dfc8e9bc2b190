#include "cuda/linear/capabilities.h"

#include <algorithm>

#include "cuda/linear/message.h"

namespace sparsecore::cuda_linear {

bool has(std::span<const Capability> list, int kernel, DType dtype, int capability) {
  return std::any_of(list.begin(), list.end(), [&](const Capability& row) {
    return row.kernel == kernel && row.dtype == dtype && row.from <= capability && capability <= row.to;
  });
}

std::string describe(std::span<const Capability> list) {
  std::string text;
  const Capability* before = nullptr;
  for (const Capability& row : list) {
    if (!before || before->kernel != row.kernel) {
      if (before) text.append("; ");
      text.append(row.name).append(":");
    } else {
      text.append(",");
    }
    text.append(" ").append(name_of(row.dtype)).append(" sm_").append(std::to_string(row.from));
    if (row.to == kAnyNewer) text.append("+");
    before = &row;
  }
  return text;
}

Status check_kernel(const char* function, std::span<const Capability> list, int kernel, DType dtype, int capability) {
  if (has(list, kernel, dtype, capability)) return Status::kOk;
  return refuse(Status::kUnsupportedDType, "%s: no kernel for %s on sm_%d. There are %s", function, name_of(dtype),
                capability, describe(list).c_str());
}

}  // namespace sparsecore::cuda_linear

#include "cuda/linear/capabilities.h"

#include <algorithm>
#include <string_view>

#include "cuda/linear/asked.h"
#include "cuda/linear/message.h"

namespace sparsecore::cuda_linear {
namespace {

bool has_type(const Capability& row, const Need& need) {
  return (row.types == 0 || (row.types & type(need.dtype)) != 0) && row.from <= need.capability &&
         need.capability <= row.to;
}

bool has_sizes(const Capability& row, const Need& need) {
  return std::all_of(std::begin(need.sizes), std::end(need.sizes), [&](int32_t size) {
    return size == 0 || (size > 0 && (size & (size - 1)) == 0 && (row.sizes & size) != 0);
  });
}

bool has_group(const Capability& row, const Need& need) {
  return row.most_group == 0 || (0 < need.group && need.group <= row.most_group);
}

bool serves(const Capability& row, const Need& need) {
  return has_type(row, need) && has_sizes(row, need) && has_group(row, need) && need.alignment % row.alignment == 0 &&
         need.tensor_copies >= row.tensor_copies && need.tokens <= row.most_tokens;
}

std::string number(int64_t value) { return std::to_string(value); }

std::string describe(const Capability& row, const char* sizes) {
  std::string text = std::string(row.name) + ": ";
  const char* separator = "";
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8, kFloat8E4M3})
    if (row.types & type(dtype)) {
      text.append(separator).append(name_of(dtype));
      separator = ", ";
    }
  text.append(row.types ? " on sm_" : "every type on sm_")
      .append(number(row.from))
      .append(row.to == kAnyNewer ? "+" : "");
  for (int32_t size = 1, count = 0; size <= row.sizes; size *= 2)
    if (row.sizes & size) text.append(count++ ? ", " : std::string(", ") + sizes + " ").append(number(size));
  if (row.most_group) text.append(", known groups of up to ").append(number(row.most_group)).append(" inputs");
  if (row.alignment > 1) text.append(", values at multiples of ").append(number(row.alignment)).append(" bytes");
  if (row.tensor_copies) text.append(", tensor copies");
  if (row.most_tokens != kAnyNumber) text.append(", up to ").append(number(row.most_tokens)).append(" tokens");
  return text;
}

std::string describe(const Need& need, const Capabilities& list) {
  std::string text = std::string(name_of(need.dtype)) + " on sm_" + number(need.capability);
  if (need.sizes[0]) text.append(", ").append(list.sizes).append(" ").append(number(need.sizes[0]));
  if (need.sizes[1]) text.append(" and ").append(number(need.sizes[1]));
  if (need.group) text.append(", groups of ").append(number(need.group)).append(" inputs");
  if (need.alignment < 16) text.append(", values at a multiple of ").append(number(need.alignment)).append(" bytes");
  if (!need.tensor_copies) text.append(", no tensor copies");
  if (need.tokens) text.append(", ").append(number(need.tokens)).append(" tokens");
  return text;
}

// "matmul_sm90 after lift_tokens" has the name matmul_sm90, and matmul_small_sm80 does not have small_sm80.
bool has_name(const Capability& row, std::string_view name) {
  const std::string_view names = row.name;
  for (size_t at = names.find(name); at != names.npos; at = names.find(name, at + 1)) {
    const size_t end = at + name.size();
    if ((at == 0 || names[at - 1] == ' ') && (end == names.size() || names[end] == ' ')) return true;
  }
  return false;
}

// Among the rows of that name one that serves, or one that does not, for check_kernel to say; nullptr without any.
const Capability* asked_for(const std::string& name, const Capabilities& list, const Need& need) {
  const Capability* found = nullptr;
  for (const Capability& row : list.rows) {
    if (has_name(row, name) && (!found || (serves(row, need) && !serves(*found, need)))) found = &row;
  }
  return found;
}

}  // namespace

const Capability* choose(const Capabilities& list, const Need& need) {
  if (const std::string name = asked_kernel(); !name.empty()) {
    if (const Capability* const asked = asked_for(name, list, need)) return asked;
  }
  const auto found = std::find_if(list.rows.begin(), list.rows.end(), [&](const Capability& row) {
    return serves(row, need) && row.worth_from <= need.tokens && need.tokens <= row.worth_to;
  });
  return found == list.rows.end() ? nullptr : &*found;
}

Status check_kernel(const char* function, const Capabilities& list, int kernel, const Need& need) {
  const auto any = [&](auto fits) {
    return std::any_of(list.rows.begin(), list.rows.end(),
                       [&](const Capability& row) { return row.kernel == kernel && fits(row, need); });
  };
  if (any(serves)) return Status::kOk;
  const Status status = !any(has_type)                       ? Status::kUnsupportedDType
                        : !any(has_sizes) || !any(has_group) ? Status::kBadPattern
                                                             : Status::kBadShape;
  return refuse(status, "%s: no kernel for %s. There are %s. Convert or pack the weight for one of these", function,
                describe(need, list).c_str(), describe(list).c_str());
}

std::string describe(const Capabilities& list) {
  std::string text;
  for (const Capability& row : list.rows) {
    if (!text.empty()) text.append("; ");
    text.append(describe(row, list.sizes));
  }
  return text;
}

}  // namespace sparsecore::cuda_linear

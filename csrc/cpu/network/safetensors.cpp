#include "cpu/network/safetensors.h"

#include <algorithm>

namespace sparsecore::network {
namespace {

struct TypeName {
  std::string_view name;
  TensorType type;
  int64_t bytes;
};

constexpr TypeName kTypes[] = {
    {"F32", TensorType::kFloat32, 4}, {"F16", TensorType::kFloat16, 2},   {"BF16", TensorType::kBFloat16, 2},
    {"I8", TensorType::kInt8, 1},     {"U8", TensorType::kUint8, 1},      {"I16", TensorType::kInt16, 2},
    {"U16", TensorType::kUint16, 2},  {"I32", TensorType::kInt32, 4},     {"U32", TensorType::kOther, 4},
    {"I64", TensorType::kOther, 8},   {"U64", TensorType::kOther, 8},     {"F64", TensorType::kOther, 8},
    {"BOOL", TensorType::kOther, 1},  {"F8_E4M3", TensorType::kOther, 1}, {"F8_E5M2", TensorType::kOther, 1},
};

// Names from the file inside messages: a long one is cut.
int shown(std::string_view name) { return static_cast<int>(std::min<size_t>(name.size(), 80)); }

}  // namespace

bool TensorFile::read(const void* file, size_t bytes, const Failure& failure) {
  const auto* start = static_cast<const uint8_t*>(file);
  if (!file || bytes < 8)
    return failure.say("the file has %zu bytes, too few for a safetensors file. Is it complete?", file ? bytes : 0);
  uint64_t length = 0;
  for (int i = 0; i < 8; ++i) length |= static_cast<uint64_t>(start[i]) << (8 * i);
  if (length > bytes - 8)
    return failure.say(
        "the file has %zu bytes and its header says it has %llu itself: it is truncated, or no safetensors file", bytes,
        static_cast<unsigned long long>(length));
  if (length > JsonDocument::kLongest)
    return failure.say("the header has %llu bytes, and the longest that is read has %zu",
                       static_cast<unsigned long long>(length), JsonDocument::kLongest);
  size_t where = 0;
  const std::string_view text(reinterpret_cast<const char*>(start) + 8, static_cast<size_t>(length));
  if (const char* wrong = header_.parse(text, &where))
    return failure.say("the header is not JSON: %s at its byte %zu. The file is damaged, or no safetensors file", wrong,
                       where);
  if (!header_.root().is(JsonKind::kObject)) return failure.say("the header is JSON, but no object");

  const uint8_t* data = start + 8 + length;
  const int64_t data_bytes = static_cast<int64_t>(bytes - 8 - length);
  tensors_.clear();
  tensors_.reserve(header_.root().size());
  for (auto member = header_.root().begin(); member != header_.root().end(); ++member) {
    const std::string_view name = (*member).string();
    ++member;
    if (name != "__metadata__" && !read_tensor(name, *member, data, data_bytes, failure)) return false;
  }
  if (!check_tiling(data, data_bytes, failure)) return false;
  std::sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  return true;
}

bool TensorFile::read_tensor(std::string_view name, Json entry, const uint8_t* data, int64_t data_bytes,
                             const Failure& failure) {
  const Json dtype = entry.find("dtype"), shape = entry.find("shape"), offsets = entry.find("data_offsets");
  if (!dtype.is(JsonKind::kString) || !shape.is(JsonKind::kArray) || !offsets.is(JsonKind::kArray) ||
      offsets.size() != 2)
    return failure.say("tensor '%.*s' lacks a dtype, a shape or its two data_offsets", shown(name), name.data());
  Tensor tensor;
  tensor.name = name;
  tensor.dtype = dtype.string();
  const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                 [&](const TypeName& known) { return known.name == tensor.dtype; });
  if (type == std::end(kTypes))
    return failure.say("tensor '%.*s' has the unknown dtype '%.*s'", shown(name), name.data(), shown(tensor.dtype),
                       tensor.dtype.data());
  tensor.type = type->type;
  tensor.count = 1;
  for (const Json size : shape) {
    if (!size.is(JsonKind::kInteger) || size.integer() < 0)
      return failure.say("tensor '%.*s' has a dimension that is no natural number", shown(name), name.data());
    // Data that is there bounds the product; a zero dimension makes any other harmless.
    if (size.integer() != 0 && tensor.count > (int64_t{1} << 48) / size.integer())
      return failure.say("tensor '%.*s' has dimensions whose product is too large", shown(name), name.data());
    tensor.count *= size.integer();
    tensor.shape.push_back(size.integer());
  }
  int64_t place[2];
  int i = 0;
  for (const Json offset : offsets) {
    if (!offset.is(JsonKind::kInteger) || offset.integer() < 0 || offset.integer() > data_bytes)
      return failure.say("tensor '%.*s' lies outside the %lld bytes of data: the file is truncated or damaged",
                         shown(name), name.data(), static_cast<long long>(data_bytes));
    place[i++] = offset.integer();
  }
  tensor.data = data + place[0];
  tensor.bytes = place[1] - place[0];
  if (tensor.bytes != tensor.count * type->bytes)
    return failure.say("tensor '%.*s' has %lld bytes, and its dtype and shape need %lld", shown(name), name.data(),
                       static_cast<long long>(tensor.bytes), static_cast<long long>(tensor.count * type->bytes));
  tensors_.push_back(std::move(tensor));
  return true;
}

bool TensorFile::check_tiling(const uint8_t* data, int64_t data_bytes, const Failure& failure) const {
  std::vector<const Tensor*> order;
  order.reserve(tensors_.size());
  for (const Tensor& tensor : tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
    return a->data != b->data ? a->data < b->data : a->bytes < b->bytes;
  });
  const uint8_t* end = data;
  for (const Tensor* tensor : order) {
    if (tensor->data != end)
      return failure.say("tensor '%.*s' %s: the file is damaged", shown(tensor->name), tensor->name.data(),
                         tensor->data < end ? "overlaps another one" : "follows a gap");
    end += tensor->bytes;
  }
  if (end != data + data_bytes)
    return failure.say("%lld bytes follow the last tensor: the file is damaged, or two files were joined",
                       static_cast<long long>(data + data_bytes - end));
  return true;
}

const Tensor* TensorFile::find(std::string_view name) const {
  const auto found =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const Tensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

Json TensorFile::metadata(std::string_view key) const {
  const Json text = header_.root().find("__metadata__").find(key);
  return text.is(JsonKind::kString) ? text : Json();
}

}  // namespace sparsecore::network

// A safetensors file in memory: 8 bytes (little endian) of header length, a JSON header
//   {"__metadata__": {key: text}, name: {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}, ...}
// and the data, which the tensors tile without gap or overlap.
#pragma once

#include "cpu/network/failure.h"
#include "cpu/network/json.h"

namespace sparsecore::network {

enum class TensorType : uint8_t { kFloat32, kFloat16, kBFloat16, kInt8, kUint8, kInt16, kUint16, kInt32, kOther };

// Bytes of the file, of any alignment.
struct Tensor {
  std::string_view name;
  TensorType type = TensorType::kOther;
  std::string_view dtype;  // as the file has it
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;
  int64_t count = 0;
  int64_t bytes = 0;
};

class TensorFile {
 public:
  // Views into `file`, which must outlive this.
  bool read(const void* file, size_t bytes, const Failure& failure);
  // Null where there is no such tensor.
  const Tensor* find(std::string_view name) const;
  // An entry of __metadata__; nothing where it is missing or no text.
  Json metadata(std::string_view key) const;

 private:
  bool read_tensor(std::string_view name, Json entry, const uint8_t* data, int64_t data_bytes, const Failure& failure);
  bool check_tiling(const uint8_t* data, int64_t data_bytes, const Failure& failure) const;

  JsonDocument header_;
  std::vector<Tensor> tensors_;  // sorted by name
};

}  // namespace sparsecore::network

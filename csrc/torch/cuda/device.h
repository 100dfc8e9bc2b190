// Where the CUDA operators run. The operator files are compiled twice: for CUDA tensors, and, for the tests, for CPU
// tensors with kernels that run on the emulator; what differs is in device_cuda.cpp and device_emulated.cpp.
#pragma once

#include "torch/tensors.h"

namespace sparsecore {

// The dispatch key that the operators register under: SPARSECORE_DEVICE_KEY, CUDA or CPU, from the build.
#if !defined(SPARSECORE_DEVICE_KEY)
#error "SPARSECORE_DEVICE_KEY is CUDA or CPU"
#endif

// The number of the CUDA device that a tensor is on, or -1: elsewhere.
int32_t device_index(const Tensor& tensor);

// Memory on the device of `like`, a contiguous copy in new memory, and torch's dense product. They throw where there is
// no memory, and then allocation_failure() is what torch said about it.
Tensor empty_on_device(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type);
Tensor copy_on_device(const Tensor& tensor);
Tensor matmul_on_device(const Tensor& a, const Tensor& b);
std::string allocation_failure();

// While it lives, launches go to the tensor's device, and `stream` is torch's current stream there.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& tensor);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  void* stream() const { return stream_; }

 private:
  void* guard_ = nullptr;
  void* stream_ = nullptr;
};

}  // namespace sparsecore

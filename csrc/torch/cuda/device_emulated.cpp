// For the tests: CPU tensors are the device's memory, and launches run on the emulator.
#include "torch/cuda/device.h"

namespace sparsecore {

const char* const kDeviceName = "CPU (emulated CUDA)";

bool on_device(const Tensor& tensor) { return tensor.is_cpu(); }

DeviceScope::DeviceScope(const Tensor&) {}
DeviceScope::~DeviceScope() = default;

}  // namespace sparsecore

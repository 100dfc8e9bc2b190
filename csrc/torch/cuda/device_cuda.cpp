// torch's stable C functions for streams of CUDA live in libtorch_cuda, which a library that must also load beside a
// torch without CUDA cannot link. A CUDA torch has loaded it long before, so it is found there by name.
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/Exception.h>

#include "torch/cuda/device.h"

namespace sparsecore {
namespace {

using CurrentStream = int32_t (*)(int32_t device, void** stream);

CurrentStream find_current_stream() {
  void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  STD_TORCH_CHECK(library, "sparsecore: libtorch_cuda.so is not loaded. Install a torch that was built with CUDA.");
  void* const function = dlsym(library, "aoti_torch_get_current_cuda_stream");
  STD_TORCH_CHECK(function,
                  "sparsecore: this torch does not tell its current CUDA stream. Install torch 2.11 or later.");
  return reinterpret_cast<CurrentStream>(function);
}

}  // namespace

const char* const kDeviceName = "CUDA";

bool on_device(const Tensor& tensor) { return tensor.is_cuda(); }

DeviceScope::DeviceScope(const Tensor& tensor) {
  static const CurrentStream current_stream = find_current_stream();
  const int32_t device = tensor.get_device_index();
  guard_ = new torch::stable::accelerator::DeviceGuard(device);
  if (current_stream(device, &stream_) != 0) {
    delete static_cast<torch::stable::accelerator::DeviceGuard*>(guard_);
    STD_TORCH_CHECK(false, "sparsecore: torch gave no current stream of CUDA device ", device, ".");
  }
}

DeviceScope::~DeviceScope() { delete static_cast<torch::stable::accelerator::DeviceGuard*>(guard_); }

}  // namespace sparsecore

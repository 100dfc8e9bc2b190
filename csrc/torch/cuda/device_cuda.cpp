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

int32_t device_index(const Tensor& tensor) { return tensor.is_cuda() ? tensor.get_device_index() : -1; }

Tensor empty_on_device(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  return torch::stable::new_empty(like, sizes, type);
}

Tensor copy_on_device(const Tensor& tensor) {
  return tensor.is_contiguous() ? torch::stable::clone(tensor) : torch::stable::contiguous(tensor);
}

Tensor matmul_on_device(const Tensor& a, const Tensor& b) { return torch::stable::matmul(a, b); }

// torch's stable functions throw without its reason; since 2.13 there is a function that tells it.
std::string allocation_failure() {
  using Reason = const char* (*)();
  static const Reason reason =
      reinterpret_cast<Reason>(dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  const char* const said = reason ? reason() : nullptr;
  return said && *said ? said : "CUDA out of memory.";
}

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

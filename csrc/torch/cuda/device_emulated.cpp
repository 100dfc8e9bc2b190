// For the tests: CPU tensors are the device's memory, and launches run on the emulator. torch.ops.sparsecore_emulated
// pretends that a tensor is on a second device or on the host, and that memory runs out.
#include <torch/headeronly/util/Exception.h>

#include <map>

#include "torch/cuda/device.h"

namespace sparsecore {
namespace {

struct Placed {
  const char* begin;
  int32_t device;
};
std::map<const char*, Placed>& placed() {  // by the end of the memory
  static std::map<const char*, Placed> all;
  return all;
}

int64_t allocations = 0, failing = -1;  // since the last count(), and which of them fails

void count_allocation(int64_t elements) {
  if (elements > 0 && ++allocations == failing) throw std::runtime_error("the emulated device's memory ran out");
}

// `device` is what device_index() says of the tensor and of views of it, until it is placed on device 0 again.
void place(const Tensor& tensor, int64_t device) {
  const char* const begin = static_cast<const char*>(tensor.const_data_ptr());
  const char* const end = begin + tensor.numel() * tensor.element_size();
  STD_TORCH_CHECK(begin != end && tensor.is_contiguous(), "place: needs a contiguous tensor with elements.");
  placed().erase(end);
  if (device != 0) placed()[end] = {begin, static_cast<int32_t>(device)};
}

// Allocations are counted from here on, and the one with this number, from 1, fails; 0: none does. Returns how many
// there were since the last call.
int64_t fail_allocation(int64_t number) {
  const int64_t counted = allocations;
  allocations = 0;
  failing = number > 0 ? number : -1;
  return counted;
}

}  // namespace

int32_t device_index(const Tensor& tensor) {
  if (!tensor.is_cpu()) return -1;
  const char* const begin = static_cast<const char*>(tensor.const_data_ptr());
  const auto found = placed().upper_bound(begin);
  return found != placed().end() && found->second.begin <= begin ? found->second.device : 0;
}

Tensor empty_on_device(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  int64_t elements = 1;
  for (const int64_t size : sizes) elements *= size;
  count_allocation(elements);
  return torch::stable::new_empty(like, sizes, type);
}

Tensor copy_on_device(const Tensor& tensor) {
  count_allocation(tensor.numel());
  return tensor.is_contiguous() ? torch::stable::clone(tensor) : torch::stable::contiguous(tensor);
}

Tensor matmul_on_device(const Tensor& a, const Tensor& b) {
  count_allocation(a.numel() * b.size(1));
  return torch::stable::matmul(a, b);
}

std::string allocation_failure() { return "CUDA out of memory."; }

DeviceScope::DeviceScope(const Tensor&) {}
DeviceScope::~DeviceScope() = default;

STABLE_TORCH_LIBRARY(sparsecore_emulated, m) {
  m.def("place(Tensor tensor, int device) -> ()");
  m.def("fail_allocation(int number) -> int");
}
STABLE_TORCH_LIBRARY_IMPL(sparsecore_emulated, CompositeExplicitAutograd, m) {
  m.impl("place", TORCH_BOX(&place));
  m.impl("fail_allocation", TORCH_BOX(&fail_allocation));
}

}  // namespace sparsecore

#include "global_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <new>

#include "machine.h"

namespace cuda_emulation {
namespace {

constexpr size_t kGuard = 64 << 10;  // a multiple of every page size

std::mutex regions_mutex;
std::map<const std::byte*, const GlobalRegion*>& regions() {  // by the end of their mapping
  static std::map<const std::byte*, const GlobalRegion*> all;
  return all;
}

}  // namespace

GlobalRegion::GlobalRegion(size_t bytes) : bytes_(bytes) {
  const size_t padded = (bytes + 255) / 256 * 256;
  const size_t space = (padded + kGuard - 1) / kGuard * kGuard;
  mapping_bytes_ = space + 2 * kGuard;
  void* mapping = mmap(nullptr, mapping_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<std::byte*>(mapping);
  if (space > 0) {
    mprotect(mapping_ + kGuard, space, PROT_READ | PROT_WRITE);
    std::memset(mapping_ + kGuard, kPoison, space);
  }
  base_ = mapping_ + kGuard + space - padded;
  std::lock_guard<std::mutex> lock(regions_mutex);
  regions()[mapping_ + mapping_bytes_] = this;
}

GlobalRegion::~GlobalRegion() {
  {
    std::lock_guard<std::mutex> lock(regions_mutex);
    regions().erase(mapping_ + mapping_bytes_);
  }
  munmap(mapping_, mapping_bytes_);
}

bool GlobalRegion::damaged(ptrdiff_t& offset) const {
  const auto whole = [](std::byte b) { return b == std::byte{kPoison}; };
  const std::byte* begin = mapping_ + kGuard;
  const std::byte* end = mapping_ + mapping_bytes_ - kGuard;
  const std::byte* found = std::find_if_not(begin, static_cast<const std::byte*>(base_), whole);
  if (found == base_) found = std::find_if_not(static_cast<const std::byte*>(base_ + bytes_), end, whole);
  offset = found - base_;
  return found != end;
}

const GlobalRegion* region_of(const void* address) {
  std::lock_guard<std::mutex> lock(regions_mutex);
  const auto next = regions().upper_bound(static_cast<const std::byte*>(address));
  if (next == regions().end() || next->second->mapping() > address) return nullptr;
  return next->second;
}

void check_global_buffers() {
  std::lock_guard<std::mutex> lock(regions_mutex);
  for (const auto& [end, region] : regions()) {
    ptrdiff_t offset = 0;
    if (region->damaged(offset)) {
      violation("a kernel wrote at offset %td of a global buffer of %zu bytes", offset, region->bytes());
    }
  }
}

void check_global(const void* pointer, size_t bytes, size_t alignment, const char* instruction) {
  if (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) {
    violation("%s: the global address %p is not a multiple of %zu", instruction, pointer, alignment);
  }
  if (pointer == nullptr) violation("%s: the global address is null", instruction);
  const GlobalRegion* region = region_of(pointer);
  if (region == nullptr || bytes == 0) return;
  const ptrdiff_t offset = static_cast<const std::byte*>(pointer) - region->base();
  if (offset < 0 || static_cast<size_t>(offset) + bytes > region->bytes()) {
    violation("%s: %zu bytes at offset %td lie outside of a global buffer of %zu bytes", instruction, bytes, offset,
              region->bytes());
  }
}

}  // namespace cuda_emulation

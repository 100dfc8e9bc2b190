// Memory for a kernel's operands that notices what lies beside them.
//
// A page that may not be touched lies directly behind the elements (rounded up to 256 bytes, as allocations on a device
// are) and another before them; what lies between is checked after every launch. Elements and gaps start as 0xFF, a
// NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace cuda_emulation {

class GlobalRegion {
 public:
  explicit GlobalRegion(size_t bytes);
  ~GlobalRegion();
  GlobalRegion(const GlobalRegion&) = delete;
  GlobalRegion& operator=(const GlobalRegion&) = delete;
  std::byte* base() const { return base_; }
  size_t bytes() const { return bytes_; }
  const std::byte* mapping() const { return mapping_; }
  size_t mapping_bytes() const { return mapping_bytes_; }
  // Offset from the first element of a byte beside them that was written, if there is one.
  bool damaged(ptrdiff_t& offset) const;

 private:
  std::byte* mapping_;
  size_t mapping_bytes_;
  std::byte* base_;
  size_t bytes_;
};

// The region that an address lies in, or in the gaps of, or nullptr: memory of another kind.
const GlobalRegion* region_of(const void* address);
// A violation if anything beside the elements of a living buffer was written. launch() ends with it.
void check_global_buffers();

template <class T>
class GlobalBuffer {
 public:
  explicit GlobalBuffer(size_t size) : region_(size * sizeof(T)), size_(size) {}
  explicit GlobalBuffer(const std::vector<T>& values) : GlobalBuffer(values.size()) {
    if (size_ > 0) std::memcpy(data(), values.data(), size_ * sizeof(T));
  }
  T* data() { return reinterpret_cast<T*>(region_.base()); }
  const T* data() const { return reinterpret_cast<const T*>(region_.base()); }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  std::vector<T> to_vector() const { return std::vector<T>(begin(), end()); }

 private:
  GlobalRegion region_;
  size_t size_;
};

}  // namespace cuda_emulation

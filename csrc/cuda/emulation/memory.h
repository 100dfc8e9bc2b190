// Shared memory of a block: bounds, alignment, poison, and what the async proxy sees of it.
//
// A block's arena ends at a page that may not be touched; between its last byte and that page, and before its first,
// lies a red zone that is checked when the block ends. Every byte starts as 0xFF, which is a NaN in every
// floating-point type.
//
// Generic writes reach the async proxy (bulk copies, wgmma) only through fence.proxy.async. Writes that name themselves
// (store_shared, stmatrix, cp.async) belong to the thread that made them until that thread fences; a cp.async can be
// fenced only after its thread has waited for it (cp.async.wait_group). Whoever asynchronously reads or overwrites a
// byte before that violates the rule, whatever other threads have fenced.
// Plain C++ stores have no name. For them the arena keeps the async proxy's view as a second copy: any thread's fence
// copies all that has been written so far, asynchronous writes go to both, and an asynchronous read where the two
// differ is a violation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cuda_emulation {

struct Lane;

constexpr unsigned char kPoison = 0xFF;
constexpr uint32_t kSharedWindow = 0x400;  // 32-bit address of a block's first byte: zero is never valid

// A thread of the cluster, as the owner of bytes that it has not fenced.
using Writer = uint16_t;
constexpr Writer kNobody = 0, kCopyUnderWay = 0xFFFF;

class SharedArena {
 public:
  SharedArena();
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;

  void open(size_t bytes);                 // aligned to 1024, poisoned
  const char* damage(long& offset) const;  // "before" or "after" when a red zone was written, else nullptr
  void close();                            // until open(), any access faults
  void reopen();                           // undoes close()
  std::byte* base() const { return base_; }
  size_t bytes() const { return bytes_; }
  bool contains(const void* pointer, size_t bytes) const;
  bool guards(const void* address) const;  // an address that faults, or a red zone

  // The async proxy.
  void publish();
  void note_write(const std::byte* at, size_t bytes, Writer writer);
  // Bytes of `from` become those of `to`: a copy's when it is waited for, nobody's when they are fenced.
  void hand_over(const std::byte* at, size_t bytes, Writer from, Writer to);
  void write_async(std::byte* to, const void* from, size_t bytes);
  // First byte of the range that a thread wrote without a fence of its own, or nullptr; and who that was.
  const std::byte* unfenced(const std::byte* from, size_t bytes, Writer& writer) const;
  // First byte of the range that the proxy does not see as written, or nullptr.
  const std::byte* unpublished(const std::byte* from, size_t bytes);

 private:
  std::byte* view(const std::byte* pointer);
  std::byte* mapping_;
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
  std::vector<std::byte> view_;
  std::vector<Writer> writers_;  // of each byte, once there was a write
  bool has_view_ = false, has_writers_ = false;
};

// First byte of the running block's dynamic shared memory.
std::byte* shared_memory();

// 32-bit shared addresses. Those of another block of the cluster carry its rank + 1 in the top byte.
uint32_t shared_offset(const void* pointer);
void* shared_pointer(uint32_t address);
uint32_t map_shared_rank(uint32_t address, uint32_t rank);  // mapa.shared::cluster
void* map_shared_rank(const void* pointer, uint32_t rank);  // mapa

// Violations unless the bytes lie in the running block's shared memory (of the cluster: in that of a block that has
// started and not exited) and the address is a multiple of the alignment.
void check_shared(const void* pointer, size_t bytes, size_t alignment, const char* instruction);
void check_shared_cluster(const void* pointer, size_t bytes, size_t alignment, const char* instruction);
// Alignment, and bounds where the pointer is near a GlobalBuffer.
void check_global(const void* pointer, size_t bytes, size_t alignment, const char* instruction);

// Of the running thread, or of another lane of its warp: writes that its own fence has to make visible.
void note_shared_write(const void* pointer, size_t bytes);
void note_shared_write(Lane& lane, const void* pointer, size_t bytes);

// fence.proxy.async, of the running block's shared memory or of everything.
void fence_proxy_async_shared();
void fence_proxy_async();
// Reads shared memory as the async proxy does: a violation where a generic write was not fenced.
void async_read_shared(void* to, const void* from, size_t bytes, const char* instruction);
void async_write_shared(void* to, const void* from, size_t bytes, const char* instruction);

// One access of a whole warp: addresses of the lanes (null: not taking part), bytes per lane. A pass serves 128 bytes
// and one word of each of the 32 banks; words at the same address are read once.
void count_bank_conflicts(const char* instruction, const void* const addresses[32], int bytes_per_lane);
// The running lane's part of such an access, for instructions that lanes execute one by one.
void count_lane_access(const char* instruction, const void* address, int bytes);

}  // namespace cuda_emulation

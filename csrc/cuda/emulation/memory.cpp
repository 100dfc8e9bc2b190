#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "machine.h"

namespace cuda_emulation {
namespace {

constexpr size_t kGuard = 64 << 10;
constexpr size_t kMost = 228 << 10;  // what the largest device has
constexpr size_t kRedZone = 1024;
constexpr unsigned char kRedByte = 0xA5;
constexpr size_t kSpace = 256 << 10;  // a multiple of every page size that holds kMost and a red zone before it
static_assert(kSpace >= kMost + kRedZone);

size_t rounded(size_t bytes) { return (bytes + 1023) / 1024 * 1024; }

}  // namespace

SharedArena::SharedArena() {
  void* mapping = mmap(nullptr, kSpace + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<std::byte*>(mapping);
  reopen();
}

SharedArena::~SharedArena() { munmap(mapping_, kSpace + 2 * kGuard); }

void SharedArena::close() { mprotect(mapping_ + kGuard, kSpace, PROT_NONE); }
void SharedArena::reopen() { mprotect(mapping_ + kGuard, kSpace, PROT_READ | PROT_WRITE); }

void SharedArena::open(size_t bytes) {
  reopen();
  bytes_ = bytes;
  base_ = mapping_ + kGuard + kSpace - rounded(bytes);
  std::memset(base_ - kRedZone, kRedByte, kRedZone);
  std::memset(base_, kPoison, bytes);
  std::memset(base_ + bytes, kRedByte, rounded(bytes) - bytes);
  has_view_ = has_writers_ = false;
}

const char* SharedArena::damage(long& offset) const {
  const auto red = [](std::byte b) { return b == std::byte{kRedByte}; };
  const std::byte* base = base_;
  const std::byte* before = std::find_if_not(base - kRedZone, base, red);
  const std::byte* end = base + rounded(bytes_);
  const std::byte* after = std::find_if_not(base + bytes_, end, red);
  offset = static_cast<long>((before != base ? before : after) - base);
  return before != base ? "before" : after != end ? "past" : nullptr;
}

bool SharedArena::contains(const void* pointer, size_t bytes) const {
  const std::byte* p = static_cast<const std::byte*>(pointer);
  return p >= base_ && p <= base_ + bytes_ && bytes <= static_cast<size_t>(base_ + bytes_ - p);
}

bool SharedArena::guards(const void* address) const {
  const std::byte* p = static_cast<const std::byte*>(address);
  return p >= mapping_ && p < mapping_ + kSpace + 2 * kGuard && !(p >= base_ && p < base_ + bytes_);
}

std::byte* SharedArena::view(const std::byte* pointer) {
  if (!has_view_) {
    view_.assign(bytes_, std::byte{kPoison});
    has_view_ = true;
  }
  return view_.data() + (pointer - base_);
}

void SharedArena::publish() { std::memcpy(view(base_), base_, bytes_); }

void SharedArena::note_write(const std::byte* at, size_t bytes, Writer writer) {
  if (!has_writers_) {
    writers_.assign(bytes_, kNobody);
    has_writers_ = true;
  }
  std::fill_n(writers_.begin() + (at - base_), bytes, writer);
}

void SharedArena::hand_over(const std::byte* at, size_t bytes, Writer from, Writer to) {
  if (!has_writers_) return;
  const auto first = writers_.begin() + (at - base_);
  std::replace(first, first + static_cast<ptrdiff_t>(bytes), from, to);
}

void SharedArena::write_async(std::byte* to, const void* from, size_t bytes) {
  std::memcpy(view(to), from, bytes);
  std::memcpy(to, from, bytes);
}

const std::byte* SharedArena::unfenced(const std::byte* from, size_t bytes, Writer& writer) const {
  if (!has_writers_) return nullptr;
  const auto first = writers_.begin() + (from - base_), end = first + static_cast<ptrdiff_t>(bytes);
  const auto found = std::find_if(first, end, [](Writer w) { return w != kNobody; });
  if (found == end) return nullptr;
  writer = *found;
  return from + (found - first);
}

const std::byte* SharedArena::unpublished(const std::byte* from, size_t bytes) {
  const std::byte* seen = view(from);
  if (std::memcmp(seen, from, bytes) == 0) return nullptr;
  return std::mismatch(from, from + bytes, seen).first;
}

std::byte* shared_memory() { return cta().shared->base(); }

Cta* owner_of_shared(const void* pointer) {
  Cta& own = cta();
  if (own.shared->contains(pointer, 0)) return &own;
  for (auto& other : own.cluster->ctas) {
    if (other->shared->contains(pointer, 0)) return other.get();
  }
  return nullptr;
}

uint32_t shared_offset(const void* pointer) {
  const Cta* owner = owner_of_shared(pointer);
  if (owner == nullptr) violation("the address %p is not in shared memory", pointer);
  const size_t offset = static_cast<size_t>(static_cast<const std::byte*>(pointer) - owner->shared->base());
  const uint32_t window = owner == &cta() ? 0 : (owner->rank + 1) << 24;
  return window | (kSharedWindow + static_cast<uint32_t>(offset));
}

void* shared_pointer(uint32_t address) {
  const uint32_t window = address >> 24;
  const uint32_t offset = address & 0xFFFFFF;
  if (window > cluster().ctas.size()) violation("the shared address 0x%08x names no block of the cluster", address);
  const Cta& owner = window == 0 ? cta() : *cluster().ctas[window - 1];
  if (offset < kSharedWindow || offset - kSharedWindow > owner.shared->bytes()) {
    violation("the shared address 0x%08x lies outside of the block's %zu bytes", address, owner.shared->bytes());
  }
  return owner.shared->base() + (offset - kSharedWindow);
}

uint32_t map_shared_rank(uint32_t address, uint32_t rank) {
  require_capability(90, "mapa");
  if (rank >= cluster().ctas.size()) {
    violation("mapa: block %u of a cluster of %zu", rank, cluster().ctas.size());
  }
  return (rank + 1) << 24 | (address & 0xFFFFFF);
}

void* map_shared_rank(const void* pointer, uint32_t rank) {
  return shared_pointer(map_shared_rank(shared_offset(pointer), rank));
}

namespace {

void check_within(const Cta* owner, const void* pointer, size_t bytes, size_t alignment, const char* instruction) {
  if (owner == nullptr || !owner->shared->contains(pointer, bytes)) {
    const Cta& own = cta();
    const std::byte* base = own.shared->base();
    violation("%s: %zu bytes at shared offset %td lie outside of the block's %zu bytes", instruction, bytes,
              static_cast<const std::byte*>(pointer) - base, own.shared->bytes());
  }
  if (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) {
    violation("%s: shared offset %td is not a multiple of %zu", instruction,
              static_cast<const std::byte*>(pointer) - owner->shared->base(), alignment);
  }
}

}  // namespace

void check_shared(const void* pointer, size_t bytes, size_t alignment, const char* instruction) {
  const Cta& own = cta();
  if (own.shared->contains(pointer, bytes) && reinterpret_cast<uintptr_t>(pointer) % alignment == 0) return;
  check_within(&own, pointer, bytes, alignment, instruction);
}

void check_shared_cluster(const void* pointer, size_t bytes, size_t alignment, const char* instruction) {
  const Cta* owner = owner_of_shared(pointer);
  check_within(owner, pointer, bytes, alignment, instruction);
  if (owner == &cta()) return;
  if (!owner->started) {
    violation("%s: block %u of the cluster may not have started; a cluster barrier is missing", instruction,
              owner->rank);
  }
  if (owner->exited) {
    violation("%s: block %u of the cluster has exited; a cluster barrier is missing before its end", instruction,
              owner->rank);
  }
}

namespace {

constexpr uint32_t kMostThreads = 1024;

Writer writer_of(const Lane& lane) {
  return static_cast<Writer>(lane.cta->rank * kMostThreads + static_cast<uint32_t>(lane.index) + 1);
}

std::string describe_writer(Writer writer) {
  if (writer == kCopyUnderWay) return "a cp.async that its thread has not waited for";
  const uint32_t thread = writer - 1u;
  return format_text("thread %u of block %u of the cluster", thread % kMostThreads, thread / kMostThreads);
}

void fence_proxy_async(bool own_block_only) {
  require_capability(90, "fence.proxy.async");
  const Writer self = writer_of(lane());
  std::erase_if(lane().unfenced, [&](const SharedWrite& write) {
    if (own_block_only && write.owner != &cta()) return false;
    write.owner->shared->hand_over(write.at, write.bytes, self, kNobody);
    return true;
  });
  for (auto& block : cluster().ctas) {
    if (block.get() == &cta() || (!own_block_only && block->started && !block->exited)) block->shared->publish();
  }
  publish_mbarriers(lane());
}

void require_fenced(const Cta& owner, const std::byte* at, size_t bytes, const char* what, const char* instruction) {
  Writer writer = kNobody;
  const std::byte* byte = owner.shared->unfenced(at, bytes, writer);
  if (byte == nullptr) return;
  violation(
      "%s %s shared offset %td of %zu bytes at %td, written there by %s: no fence.proxy.async of that thread came "
      "after the write",
      instruction, what, byte - owner.shared->base(), bytes, at - owner.shared->base(),
      describe_writer(writer).c_str());
}

}  // namespace

void note_shared_write(Lane& lane, const void* pointer, size_t bytes) {
  if (wave().options->capability < 90) return;
  Cta* owner = owner_of_shared(pointer);
  const std::byte* at = static_cast<const std::byte*>(pointer);
  owner->shared->note_write(at, bytes, writer_of(lane));
  if (!lane.unfenced.empty()) {
    SharedWrite& last = lane.unfenced.back();
    if (last.owner == owner && last.at + last.bytes == at) {
      last.bytes += bytes;
      return;
    }
  }
  lane.unfenced.push_back({owner, at, bytes});
}

void note_shared_write(const void* pointer, size_t bytes) { note_shared_write(lane(), pointer, bytes); }

void note_copy_under_way(const void* pointer, size_t bytes) {
  if (wave().options->capability < 90) return;
  cta().shared->note_write(static_cast<const std::byte*>(pointer), bytes, kCopyUnderWay);
}

void note_copy_waited_for(const void* pointer, size_t bytes) {
  if (wave().options->capability < 90) return;
  const std::byte* at = static_cast<const std::byte*>(pointer);
  cta().shared->hand_over(at, bytes, kCopyUnderWay, writer_of(lane()));
  lane().unfenced.push_back({&cta(), at, bytes});
}

void fence_proxy_async_shared() { fence_proxy_async(true); }
void fence_proxy_async() { fence_proxy_async(false); }

void async_read_shared(void* to, const void* from, size_t bytes, const char* instruction) {
  check_within(owner_of_shared(from), from, bytes, 1, instruction);
  const Cta& owner = *owner_of_shared(from);
  const std::byte* source = static_cast<const std::byte*>(from);
  require_fenced(owner, source, bytes, "reads", instruction);
  if (const std::byte* byte = owner.shared->unpublished(source, bytes)) {
    violation(
        "%s reads shared offset %td of %zu bytes at %td, written there by ordinary stores that no "
        "fence.proxy.async has made visible to it",
        instruction, byte - owner.shared->base(), bytes, source - owner.shared->base());
  }
  std::memcpy(to, from, bytes);
}

void async_write_shared(void* to, const void* from, size_t bytes, const char* instruction) {
  check_within(owner_of_shared(to), to, bytes, 1, instruction);
  require_fenced(*owner_of_shared(to), static_cast<const std::byte*>(to), bytes, "overwrites", instruction);
  owner_of_shared(to)->shared->write_async(static_cast<std::byte*>(to), from, bytes);
}

namespace {

int bank_passes(const void* const addresses[32], int bytes_per_lane) {
  // 4 bytes or fewer: the whole warp at a time; 8: half of it; 16: a quarter.
  const int lanes = bytes_per_lane <= 4 ? 32 : 128 / bytes_per_lane;
  int worst = 1;
  for (int first = 0; first < 32; first += lanes) {
    uintptr_t words[32][32];  // per bank, the distinct words
    int counts[32] = {};
    for (int l = first; l < first + lanes; l++) {
      if (addresses[l] == nullptr) continue;
      const uintptr_t begin = reinterpret_cast<uintptr_t>(addresses[l]) / 4;
      const uintptr_t end =
          (reinterpret_cast<uintptr_t>(addresses[l]) + static_cast<uintptr_t>(bytes_per_lane) + 3) / 4;
      for (uintptr_t word = begin; word < end; word++) {
        uintptr_t* bank = words[word % 32];
        int& count = counts[word % 32];
        if (std::find(bank, bank + count, word) != bank + count) continue;
        bank[count++] = word;
        worst = std::max(worst, count);
      }
    }
  }
  return worst;
}

uint64_t key_of(const char* instruction, const Site& site) {
  uint64_t key = reinterpret_cast<uintptr_t>(instruction);
  for (int i = 0; i < site.depth; i++) key = key * 0x9E3779B97F4A7C15u + reinterpret_cast<uintptr_t>(site.frames[i]);
  return key;
}

}  // namespace

void count_bank_conflicts(const char* instruction, const void* const addresses[32], int bytes_per_lane) {
  if (!wave().options->bank_conflicts) return;
  wave().bank_conflicts.count(instruction, current_site(), addresses, bytes_per_lane);
}

void count_lane_access(const char* instruction, const void* address, int bytes) {
  if (!wave().options->bank_conflicts) return;
  warp().accesses.add(wave().bank_conflicts, warp(), instruction, address, bytes);
}

void BankConflictCounter::count(const char* instruction, const Site& site, const void* const addresses[kWarpSize],
                                int bytes_per_lane) {
  Entry& entry = entries_[key_of(instruction, site)];
  if (entry.executions == 0) {
    entry.instruction = instruction;
    entry.site = site;
  }
  const int passes = bank_passes(addresses, bytes_per_lane);
  entry.executions++;
  entry.passes += passes;
  entry.worst = std::max(entry.worst, passes);
}

void LaneAccesses::add(BankConflictCounter& counter, const Warp& warp, const char* instruction, const void* address,
                       int bytes) {
  constexpr size_t kMostOpen = 64;  // a lane that never comes by must not keep the others' addresses for ever
  const Site site = current_site();
  Place& place = places_[key_of(instruction, site)];
  if (place.open.empty()) {
    place.instruction = instruction;
    place.site = site;
    place.bytes = bytes;
  }
  size_t& count = place.counts[lane().number];
  count = std::max(count, place.first);
  while (count - place.first >= place.open.size()) place.open.push_back(Access{});
  Access& access = place.open[count - place.first];
  count++;
  access.addresses[lane().number] = address;
  access.came |= 1u << lane().number;
  while (!place.open.empty() && (place.open.front().came == warp.present || place.open.size() > kMostOpen)) {
    counter.count(instruction, place.site, place.open.front().addresses, bytes);
    place.open.pop_front();
    place.first++;
  }
}

void LaneAccesses::finish(BankConflictCounter& counter) {
  for (const auto& [key, place] : places_) {
    for (const Access& access : place.open) counter.count(place.instruction, place.site, access.addresses, place.bytes);
  }
  places_.clear();
}

std::vector<BankConflicts> BankConflictCounter::all() const {
  std::vector<BankConflicts> list;
  for (const auto& [key, entry] : entries_) {
    list.push_back({entry.instruction, entry.site, entry.executions, entry.passes, entry.worst});
  }
  return list;
}

}  // namespace cuda_emulation

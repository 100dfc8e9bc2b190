#include "async.h"

#include <algorithm>
#include <cstring>

#include "machine.h"
#include "mbarrier.h"

namespace cuda_emulation {

bool happens_at_once() {
  switch (wave().options->copies) {
    case Copies::kLate: return false;
    case Copies::kEarly: return true;
    case Copies::kMixed: return chance(2);
  }
  return false;
}

void CopyGroups::issue(void* shared, const void* global, int bytes, int source_bytes) {
  copies_.push_back({shared, global, bytes, source_bytes});
  std::memset(shared, kPoison, static_cast<size_t>(bytes));
  note_copy_under_way(shared, static_cast<size_t>(bytes));
  // Copies of one thread may happen in any order, but all this needs is that each happens before its wait.
  if (happens_at_once()) perform(copies_.size() - 1);
}

void CopyGroups::perform(size_t index) {
  Copy& copy = copies_[index];
  if (copy.has_happened) return;
  const size_t bytes = static_cast<size_t>(copy.bytes);
  const size_t source = static_cast<size_t>(copy.source_bytes);
  if (source > 0) std::memcpy(copy.to, copy.from, source);
  std::memset(static_cast<std::byte*>(copy.to) + source, 0, bytes - source);
  copy.has_happened = true;
}

void CopyGroups::commit() { group_ends_.push_back(copies_.size()); }

void CopyGroups::wait(size_t groups_left) {
  if (group_ends_.size() <= groups_left) return;
  const size_t groups = group_ends_.size() - groups_left;
  const size_t end = group_ends_[groups - 1];
  for (size_t i = 0; i < end; i++) {
    perform(i);
    note_copy_waited_for(copies_[i].to, static_cast<size_t>(copies_[i].bytes));
  }
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<ptrdiff_t>(end));
  group_ends_.erase(group_ends_.begin(), group_ends_.begin() + static_cast<ptrdiff_t>(groups));
  for (size_t& position : group_ends_) position -= end;
}

void CopyGroups::perform_first(size_t count) {
  for (size_t i = 0; i < std::min(count, copies_.size()); i++) perform(i);
}

void BulkGroups::issue(const char* instruction, std::function<void()> read, std::function<void()> write,
                       bool write_before_wait) {
  Operation operation{instruction, std::move(read), std::move(write)};
  if (happens_at_once()) {
    operation.read();
    operation.has_read = true;
    if (write_before_wait) {
      operation.write();
      operation.has_written = true;
    }
  }
  operations_.push_back(std::move(operation));
}

size_t BulkGroups::uncommitted() const {
  size_t grouped = 0;
  for (size_t size : group_sizes_) grouped += size;
  return operations_.size() - grouped;
}

void BulkGroups::commit() { group_sizes_.push_back(uncommitted()); }

void BulkGroups::wait(size_t groups_left, bool read_only) {
  if (group_sizes_.size() <= groups_left) return;
  const size_t groups = group_sizes_.size() - groups_left;
  size_t count = 0;
  for (size_t g = 0; g < groups; g++) count += group_sizes_[g];
  for (size_t i = 0; i < count; i++) {
    Operation& operation = operations_[i];
    if (!operation.has_read) operation.read();
    operation.has_read = true;
    if (read_only) continue;
    if (!operation.has_written) operation.write();
    operation.has_written = true;
  }
  if (read_only) return;
  operations_.erase(operations_.begin(), operations_.begin() + static_cast<ptrdiff_t>(count));
  group_sizes_.erase(group_sizes_.begin(), group_sizes_.begin() + static_cast<ptrdiff_t>(groups));
}

const char* BulkGroups::unread() const {
  for (const Operation& operation : operations_) {
    if (!operation.has_read) return operation.instruction;
  }
  return nullptr;
}

void Engine::issue(const char* instruction, std::vector<Cta*> into, std::function<void()> perform) {
  if (happens_at_once()) {
    perform();
    return;
  }
  operations_.push_back({instruction, std::move(into), std::move(perform), running, current_site()});
}

bool Engine::step(std::mt19937_64& random) {
  if (operations_.empty()) return false;
  const size_t chosen = random() % operations_.size();
  Operation operation = std::move(operations_[chosen]);
  operations_.erase(operations_.begin() + static_cast<ptrdiff_t>(chosen));
  running = operation.issuer;
  running->issued_at = operation.site;
  operation.perform();
  running = nullptr;
  return true;
}

const char* Engine::pending_into(const Cta& cta) const {
  for (const Operation& operation : operations_) {
    if (std::find(operation.into.begin(), operation.into.end(), &cta) != operation.into.end()) {
      return operation.instruction;
    }
  }
  return nullptr;
}

void cp_async(void* shared, const void* global, int bytes, int source_bytes) {
  require_capability(80, "cp.async");
  if (bytes != 4 && bytes != 8 && bytes != 16) violation("cp.async copies 4, 8 or 16 bytes, not %d", bytes);
  if (source_bytes < 0 || source_bytes > bytes) violation("cp.async: %d source bytes of %d", source_bytes, bytes);
  const size_t size = static_cast<size_t>(bytes);
  check_shared(shared, size, size, "cp.async");
  if (source_bytes > 0) check_global(global, static_cast<size_t>(source_bytes), size, "cp.async");
  wave().instructions["cp.async"]++;
  lane().copies.issue(shared, global, bytes, source_bytes);
}

void cp_async_commit() { lane().copies.commit(); }

void cp_async_wait(int groups_left) { lane().copies.wait(static_cast<size_t>(groups_left)); }

void cp_async_wait_all() {
  lane().copies.commit();
  lane().copies.wait(0);
}

}  // namespace cuda_emulation

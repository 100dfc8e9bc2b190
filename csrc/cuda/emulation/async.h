// Copies that happen later than they are asked for.
//
// How late is up to the adversary (Options::copies). Until then the destination is poison. Three kinds:
//   CopyGroups  cp.async of one lane, waited for in groups
//   BulkGroups  any operation waited for in groups: bulk stores and reductions of a lane, wgmma of a warpgroup
//   Engine      operations that announce themselves on an mbarrier: bulk and tensor loads, cp.async arrivals
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "violation.h"

namespace cuda_emulation {

struct Cta;
struct Lane;

// Whether the adversary lets an operation happen the moment it is issued.
bool happens_at_once();

class CopyGroups {
 public:
  void issue(void* shared, const void* global, int bytes, int source_bytes);
  void commit();
  void wait(size_t groups_left);
  size_t issued() const { return copies_.size(); }
  void perform_first(size_t count);  // the oldest ones that are not yet waited for

 private:
  struct Copy {
    void* to;
    const void* from;
    int bytes;
    int source_bytes;  // the rest is filled with zeros
    bool has_happened = false;
  };
  void perform(size_t index);
  std::vector<Copy> copies_;
  std::vector<size_t> group_ends_;  // positions in copies_
};

class BulkGroups {
 public:
  // `read` takes the operands into memory of its own, `write` delivers; read runs first. An operation whose results
  // may not be seen before the wait says so.
  void issue(const char* instruction, std::function<void()> read, std::function<void()> write,
             bool write_before_wait = true);
  void commit();
  void wait(size_t groups_left, bool read_only = false);
  size_t uncommitted() const;
  const char* unread() const;  // an operation that may still read its operands, or nullptr

 private:
  struct Operation {
    const char* instruction;
    std::function<void()> read, write;
    bool has_read = false, has_written = false;
  };
  std::deque<Operation> operations_;
  std::deque<size_t> group_sizes_;
};

class Engine {
 public:
  // In the name of the running thread. `into`: the blocks whose shared memory or barriers it writes.
  void issue(const char* instruction, std::vector<Cta*> into, std::function<void()> perform);
  bool step(std::mt19937_64& random);  // performs one pending operation; false when there is none
  const char* pending_into(const Cta& cta) const;
  size_t pending() const { return operations_.size(); }

 private:
  struct Operation {
    const char* instruction;
    std::vector<Cta*> into;
    std::function<void()> perform;
    Lane* issuer;
    Site site;
  };
  std::vector<Operation> operations_;
};

// cp.async: 4, 8 or 16 bytes, of which the first source_bytes are read and the others zero.
void cp_async(void* shared, const void* global, int bytes, int source_bytes);
inline void cp_async(void* shared, const void* global, int bytes) { cp_async(shared, global, bytes, bytes); }
void cp_async_commit();
void cp_async_wait(int groups_left);  // cp.async.wait_group
void cp_async_wait_all();

}  // namespace cuda_emulation

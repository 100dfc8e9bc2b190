// What exists while a grid runs: lanes in warps, warps in blocks, blocks in clusters, and a few clusters at a time on
// one thread of the host (a wave). Everything here is touched by that host thread alone.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "async.h"
#include "emulator.h"
#include "fiber.h"
#include "memory.h"
#include "vector_types.h"
#include "violation.h"

namespace cuda_emulation {

constexpr int kWarpSize = 32;
constexpr uint32_t kFullMask = 0xFFFFFFFFu;

struct Warp;
struct Cta;
struct Cluster;
struct Wave;

struct SharedWrite {
  Cta* owner;
  const std::byte* at;
  size_t bytes;
};

// One running thread.
struct Lane {
  Fiber fiber;
  std::unique_ptr<Stack> stack;
  Warp* warp = nullptr;
  Cta* cta = nullptr;
  uint3 thread{};  // threadIdx
  int index = 0;   // of the thread in its block
  int number = 0;  // of the lane in its warp
  bool started = false;
  bool exited = false;

  // While it waits: in which instruction, where, and on what.
  const char* waits_in = nullptr;
  std::function<std::string()> waits_for;  // completes "waits for ...", made only for a report
  Site site;
  Site issued_at;          // of the asynchronous operation that happens in its name just now
  bool aligned = false;    // waits in an instruction that the whole warp must execute together
  bool may_retry = false;  // a wait that hardware ends after a while: woken with `retried` when nothing else can run
  bool retried = false;
  int calls_without_wait = 0;  // polls since the lane last waited

  CopyGroups copies;                  // cp.async
  BulkGroups bulk;                    // bulk stores and reductions
  std::vector<SharedWrite> unfenced;  // what it wrote to shared memory since its last fence.proxy.async
  bool cluster_arrived = false;
  uint64_t cluster_phase = 0;
};

class BankConflictCounter {
 public:
  struct Entry {
    const char* instruction = nullptr;
    Site site;
    int64_t executions = 0;
    int64_t passes = 0;
    int worst = 0;
  };
  void count(const char* instruction, const Site& site, const void* const addresses[kWarpSize], int bytes_per_lane);
  std::vector<BankConflicts> all() const;

 private:
  std::unordered_map<uint64_t, Entry> entries_;
};

// One access of a warp, pieced together: the n-th time that each lane comes by a place.
class LaneAccesses {
 public:
  void add(BankConflictCounter& counter, const Warp& warp, const char* instruction, const void* address, int bytes);
  void finish(BankConflictCounter& counter);

 private:
  struct Access {
    const void* addresses[kWarpSize];
    uint32_t came;
  };
  struct Place {
    const char* instruction;
    Site site;
    int bytes;
    size_t first = 0;               // number of the oldest access in `open`
    size_t counts[kWarpSize] = {};  // accesses of each lane so far
    std::deque<Access> open;
  };
  std::unordered_map<uint64_t, Place> places_;
};

// Lanes that met in a collective, and what is asked of the one that comes last.
struct Meeting {
  const char* instruction = nullptr;
  uint32_t mask[4] = {};  // the lanes it waits for, per warp
  uint32_t arrived[4] = {};
  Lane* first = nullptr;
  void* arguments[4 * kWarpSize] = {};
  Site site;
};

struct Warp {
  Cta* cta = nullptr;
  int index = 0;  // in its block
  Lane* lanes[kWarpSize] = {};
  uint32_t present = 0;  // lanes that exist
  uint32_t exited = 0;
  uint32_t ready = 0;    // lanes that can run
  uint32_t polling = 0;  // lanes that run again only when nothing else can
  uint32_t order = 0;    // bit 0: from the last lane down; the rest: which lane comes first
  uint64_t priority = 0;
  LaneAccesses accesses;
  std::list<Meeting> meetings, spare_meetings;
  Lane* next_ready();
};

struct Barrier {
  int expected = 0;  // threads, 0 while nobody has come
  int arrived = 0;
  std::vector<Lane*> waiting;
  std::vector<uint32_t> came;  // per warp, the lanes counted in this phase
  std::vector<Site> sites;     // per warp, where its first lane came from
  std::vector<const char*> instructions;
  int reduced_sum = 0;  // of bar.red
  int result_sum = 0;
  int result_count = 0;
};

struct Mbarrier {
  int expected = 0;
  int pending = 0;
  int64_t transactions = 0;
  uint64_t phase = 0;  // completed phases
  const Lane* initialised_by = nullptr;
  bool fenced = false;  // seen by the async proxy and by other blocks
  std::vector<Lane*> waiting;
};

// What an instruction keeps for a warpgroup from one use to the next.
struct WarpgroupState {
  virtual ~WarpgroupState() = default;
  virtual const char* unfinished() const = 0;  // an instruction that nobody waited for, or nullptr
};

// A warpgroup in setmaxnreg.inc.
struct RegisterRequest {
  int warpgroup, registers;
  std::vector<Lane*> waiting;
};

struct Cta {
  Cluster* cluster = nullptr;
  uint3 block{};      // blockIdx
  uint32_t rank = 0;  // in its cluster
  SharedArena* shared = nullptr;
  std::vector<std::unique_ptr<Lane>> lanes;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<Meeting> warpgroups;  // one slot per four warps
  Barrier barriers[16];
  std::map<uint32_t, Mbarrier> mbarriers;  // by shared offset
  std::vector<std::unique_ptr<WarpgroupState>> warpgroup_states;
  std::vector<int> registers;  // of a thread, per warpgroup
  int free_registers = 0;      // given back, for a thread of one warpgroup
  std::deque<RegisterRequest> register_requests;
  int alive = 0;
  bool started = false;
  bool exited = false;
};

struct Cluster {
  Wave* wave = nullptr;
  std::vector<std::unique_ptr<Cta>> ctas;
  int alive = 0;
  int arrived = 0;  // at the cluster barrier
  uint64_t phase = 0;
  std::vector<Lane*> waiting;
};

struct Wave {
  const Config* config = nullptr;
  const Options* options = nullptr;
  const std::function<void()>* body = nullptr;
  Report* report = nullptr;
  std::mt19937_64 random;
  std::vector<std::unique_ptr<Cluster>> clusters;
  std::vector<Warp*> warps;
  Engine engine;
  Fiber scheduler;
  std::exception_ptr failure;
  int alive = 0;
  std::unordered_map<const char*, int64_t> instructions;
  BankConflictCounter bank_conflicts;
  int stalled_rounds = 0;  // how often all lanes that can run only polled, since something last happened

  void run();
  bool step_engine();
  Report finish_report();
  void progress() { stalled_rounds = 0; }
};

inline thread_local constinit Lane* running = nullptr;

// The running thread. Outside of a launch there is none.
inline Lane& lane() { return *running; }
inline Warp& warp() { return *running->warp; }
inline Cta& cta() { return *running->cta; }
inline Cluster& cluster() { return *running->cta->cluster; }
inline Wave& wave() { return *running->cta->cluster->wave; }

// Leaves the running lane until wake(). The caller has filled the lane's waiting fields.
void block();
void wake(Lane& lane);
// The running lane has let others go on: whoever has the highest priority now runs.
void reschedule();
// Lets everything else run first. `instruction` names what the lane polls.
void poll(const char* instruction);
// For atomics and volatile loads: polls when a lane does nothing else for a while.
inline void count_poll(const char* instruction) {
  if (running != nullptr && ++running->calls_without_wait >= 64) poll(instruction);
}

// True with the given odds, from the seed.
bool chance(int one_in);

// "lanes 0-15, 17 of warp 3"
std::string describe_lanes(uint32_t mask, int warp);

void require_capability(int capability, const char* instruction);

// Ends the running lane where it stands, without unwinding it, and the launch with this sentence.
[[noreturn]] void fail_lane(const std::string& sentence);

// What __launch_bounds__(threads, 1) lets a kernel start with, of a thread.
int registers_at_launch(int threads);

// What the end of a thread means for those that wait for it.
void exit_meetings(Lane& lane);
void exit_barriers(Lane& lane);
void exit_cluster_barrier(Lane& lane);

// The block of the running block's cluster that has this address in its shared memory, or nullptr.
Cta* owner_of_shared(const void* pointer);
// A cp.async of the running thread: bytes that no fence covers, until the thread has waited for them.
void note_copy_under_way(const void* pointer, size_t bytes);
void note_copy_waited_for(const void* pointer, size_t bytes);
// The barriers that the thread initialised can be used by the async proxy and by other blocks from here on.
void publish_mbarriers(Lane& lane);
// A violation unless asynchronous copies can announce themselves there.
void require_visible_mbarrier(const uint64_t* barrier, const char* instruction);
// What such a copy does when it has happened.
void complete_transaction(uint64_t* barrier, size_t bytes, const char* instruction);

}  // namespace cuda_emulation

#include "barrier.h"

#include <algorithm>
#include <cstring>

#include "collective.h"
#include "machine.h"

namespace cuda_emulation {
namespace {

constexpr int kAll = -1;  // __syncthreads: every thread that has not exited

int expected_now(const Barrier& barrier, const Cta& c) { return barrier.expected == kAll ? c.alive : barrier.expected; }

void complete_if_full(Barrier& barrier, Cta& c) {
  if (barrier.arrived == 0 || barrier.arrived < expected_now(barrier, c)) return;
  std::vector<Lane*> waiting = std::move(barrier.waiting);
  const int sum = barrier.reduced_sum;
  const int count = barrier.arrived;
  barrier = Barrier();
  barrier.result_sum = sum;
  barrier.result_count = count;
  for (Lane* l : waiting) {
    if (l != running) wake(*l);
  }
  c.cluster->wave->progress();
}

struct Reduced {
  int sum, count;
};

// Counts the running lane in. To those that sync, what the phase reduced to.
Reduced arrive(int id, int threads, const char* instruction, int predicate, bool sync) {
  Lane& self = lane();
  Cta& c = *self.cta;
  Warp& w = *self.warp;
  if (id < 0 || id > 15) violation("%s: barrier %d does not exist; a block has 0 to 15", instruction, id);
  if (threads != kAll && (threads <= 0 || threads % kWarpSize != 0)) {
    violation("%s: %d threads; the count is a positive multiple of 32", instruction, threads);
  }
  if (threads != kAll && static_cast<size_t>(threads) > c.warps.size() * kWarpSize) {
    violation("%s: barrier %d waits for %d threads, and the block has %zu", instruction, id, threads, c.lanes.size());
  }
  for (const Meeting& meeting : w.meetings) {
    if ((meeting.mask[0] >> self.number & 1) != 0) {
      violation("divergent collective: this lane is in %s, and %s in %s waits for it, at %s", instruction,
                describe_lanes(meeting.arrived[0], w.index).c_str(), meeting.instruction,
                meeting.site.describe().c_str());
    }
  }
  Barrier& barrier = c.barriers[id];
  const size_t index = static_cast<size_t>(w.index);
  if (barrier.arrived == 0) {
    barrier.expected = threads;
    barrier.came.assign(c.warps.size(), 0);
    barrier.sites.assign(c.warps.size(), Site());
    barrier.instructions.assign(c.warps.size(), nullptr);
  } else if (barrier.expected != threads) {
    const auto text = [](int n) { return n == kAll ? std::string("all") : std::to_string(n); };
    violation("%s: barrier %d is used with %s threads here and with %s by those that already came", instruction, id,
              text(threads).c_str(), text(barrier.expected).c_str());
  }
  const Site site = current_site();
  if ((barrier.came[index] >> self.number & 1) != 0) {
    violation("%s: the thread has already arrived at barrier %d in this phase", instruction, id);
  }
  if (barrier.came[index] == 0) {
    barrier.sites[index] = site;
    barrier.instructions[index] = instruction;
  } else if (std::strcmp(barrier.instructions[index], instruction) != 0 || !barrier.sites[index].same_place(site)) {
    violation("divergent barrier: this lane is in %s, and %s in %s of barrier %d, at %s", instruction,
              describe_lanes(barrier.came[index], w.index).c_str(), barrier.instructions[index], id,
              barrier.sites[index].describe().c_str());
  }
  barrier.came[index] |= 1u << self.number;
  barrier.arrived++;
  barrier.reduced_sum += predicate;
  self.calls_without_wait = 0;
  if (barrier.arrived >= expected_now(barrier, c)) {
    wave().instructions[instruction]++;
    complete_if_full(barrier, c);
    const Reduced result{barrier.result_sum, barrier.result_count};
    reschedule();
    return result;
  }
  if (sync) {
    barrier.waiting.push_back(&self);
    self.waits_in = instruction;
    self.site = site;
    self.aligned = true;
    self.waits_for = [&barrier, &c, id] {
      return format_text("barrier %d has %d of %d threads", id, barrier.arrived, expected_now(barrier, c));
    };
    block();
  }
  return {barrier.result_sum, barrier.result_count};
}

Reduced sync_all(const char* instruction, int predicate) { return arrive(0, kAll, instruction, predicate, true); }

}  // namespace

void sync_threads() { sync_all("__syncthreads", 0); }
int sync_threads_count(int predicate) { return sync_all("__syncthreads_count", predicate != 0).sum; }
int sync_threads_or(int predicate) { return sync_all("__syncthreads_or", predicate != 0).sum != 0; }
int sync_threads_and(int predicate) {
  const Reduced all = sync_all("__syncthreads_and", predicate != 0);
  return all.sum == all.count;
}

void named_barrier_sync(int id, int threads) { arrive(id, threads, "bar.sync", 0, true); }
void named_barrier_arrive(int id, int threads) { arrive(id, threads, "bar.arrive", 0, false); }

void exit_barriers(Lane& self) {
  for (Barrier& barrier : self.cta->barriers) {
    // The exiting thread is still counted as alive.
    if (barrier.arrived == 0 || barrier.expected != kAll) continue;
    self.cta->alive--;
    complete_if_full(barrier, *self.cta);
    self.cta->alive++;
  }
}

namespace {

void complete_cluster_if_full(Cluster& c, int alive) {
  if (c.arrived == 0 || c.arrived < alive) return;
  c.arrived = 0;
  c.phase++;
  std::vector<Lane*> waiting = std::move(c.waiting);
  c.waiting.clear();
  for (Lane* l : waiting) wake(*l);
  c.wave->progress();
}

// `.aligned`: all lanes that the warp was launched with.
void meet_whole_warp(const char* instruction) {
  char nothing;
  if (void** lanes = meet_warp(instruction, warp().present, &nothing, true)) finish_warp_meeting(lanes);
}

}  // namespace

void cluster_arrive() {
  require_capability(90, "barrier.cluster.arrive");
  meet_whole_warp("barrier.cluster.arrive");
  Lane& self = lane();
  if (self.cluster_arrived) violation("barrier.cluster.arrive: the thread has arrived and not waited");
  self.cluster_arrived = true;
  self.cluster_phase = cluster().phase;
  cluster().arrived++;
  complete_cluster_if_full(cluster(), cluster().alive);
  if (self.cluster_phase != cluster().phase) reschedule();
}

void cluster_wait() {
  require_capability(90, "barrier.cluster.wait");
  meet_whole_warp("barrier.cluster.wait");
  Lane& self = lane();
  Cluster& c = cluster();
  if (!self.cluster_arrived) violation("barrier.cluster.wait: the thread has not arrived");
  self.cluster_arrived = false;
  if (c.phase != self.cluster_phase) return;
  c.waiting.push_back(&self);
  self.waits_in = "barrier.cluster.wait";
  self.site = current_site();
  self.waits_for = [&c] { return format_text("%d of %d threads have arrived", c.arrived, c.alive); };
  block();
}

void exit_cluster_barrier(Lane& self) {
  Cluster& c = *self.cta->cluster;
  if (self.cluster_arrived && self.cluster_phase == c.phase) {
    violation("the thread exits between barrier.cluster.arrive and barrier.cluster.wait");
  }
  complete_cluster_if_full(c, c.alive - 1);
}

uint32_t cluster_block_rank() { return cta().rank; }
uint32_t cluster_blocks() { return static_cast<uint32_t>(cluster().ctas.size()); }

namespace {

constexpr int kRegistersOfBlock = 65536, kMostRegisters = 256;
constexpr int kWarpgroupSize = 4 * kWarpSize;

// Hands the pool to the warpgroups that wait for more, in the order in which they asked.
void serve_register_requests(Cta& c) {
  while (!c.register_requests.empty()) {
    RegisterRequest& first = c.register_requests.front();
    int& own = c.registers[static_cast<size_t>(first.warpgroup)];
    const int missing = first.registers - own;
    if (missing > c.free_registers) return;
    c.free_registers -= missing;
    own = first.registers;
    const std::vector<Lane*> waiting = std::move(first.waiting);
    c.register_requests.pop_front();
    for (Lane* l : waiting) wake(*l);
    c.cluster->wave->progress();
  }
}

void wait_for_registers(const char* instruction, Cta& c, int warpgroup) {
  const auto request = std::find_if(c.register_requests.begin(), c.register_requests.end(),
                                    [=](const RegisterRequest& r) { return r.warpgroup == warpgroup; });
  if (request == c.register_requests.end()) return;
  Lane& self = lane();
  request->waiting.push_back(&self);
  self.waits_in = instruction;
  self.site = current_site();
  self.aligned = true;
  self.waits_for = [&c, warpgroup, registers = request->registers] {
    return format_text("the warpgroup has %d registers of %d, and the block has %d more for each of its threads",
                       c.registers[static_cast<size_t>(warpgroup)], registers, c.free_registers);
  };
  block();
}

}  // namespace

int registers_at_launch(int threads) { return std::min(kRegistersOfBlock / threads / 8 * 8, kMostRegisters); }

void set_max_registers(int registers, bool increase) {
  const char* instruction = increase ? "setmaxnreg.inc" : "setmaxnreg.dec";
  require_capability(90, instruction);
  if (registers < 24 || registers > kMostRegisters || registers % 8 != 0) {
    violation("%s: %d registers; a multiple of 8 from 24 to 256", instruction, registers);
  }
  struct Args {
    int registers;
  } args{registers};
  Cta& c = cta();
  const int warpgroup = warp().index / 4;
  warpgroup_collective(instruction, args, [&, registers](Args** lanes) {
    for (int l = 0; l < kWarpgroupSize; l++) {
      if (lanes[l]->registers != registers) violation("%s: the warps ask for different numbers", instruction);
    }
    int& own = c.registers[static_cast<size_t>(warpgroup)];
    if (increase ? registers < own : registers > own) {
      violation("%s: the warpgroup has %d registers, and %d are %s", instruction, own, registers,
                increase ? "fewer" : "more");
    }
    if (increase) {
      c.register_requests.push_back({warpgroup, registers, {}});
    } else {
      c.free_registers += own - registers;
      own = registers;
    }
    serve_register_requests(c);
  });
  wait_for_registers(instruction, c, warpgroup);
}

void grid_dependency_wait() { require_capability(90, "griddepcontrol.wait"); }
void grid_launch_dependents() { require_capability(90, "griddepcontrol.launch_dependents"); }

}  // namespace cuda_emulation

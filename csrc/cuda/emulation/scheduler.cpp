// Who runs next. Every warp has a priority; the ready warp of the highest runs until all its lanes wait, so that some
// warps run as far ahead of the others as the barriers let them. Now and then a warp gets another priority.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>

#include "fault.h"
#include "global_buffer.h"
#include "machine.h"

namespace cuda_emulation {
namespace {

// Unwinds a lane whose launch has failed.
struct Cancelled {};

// All ready lanes can only poll: after so many rounds nothing will ever change.
constexpr int kStalledRounds = 256;

// Freed with the host thread; a kernel's stacks are used again by the next.
struct Pool {
  std::vector<std::unique_ptr<Stack>> stacks;
  std::vector<std::unique_ptr<SharedArena>> arenas;

  std::unique_ptr<Stack> stack() {
    if (stacks.empty()) return std::make_unique<Stack>();
    std::unique_ptr<Stack> top = std::move(stacks.back());
    stacks.pop_back();
    return top;
  }
};
thread_local Pool pool;

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

void leave_lane(Lane& self) {
  Warp& w = *self.warp;
  Lane* next = w.next_ready();
  self.fiber.switch_to(next != nullptr ? next->fiber : wave().scheduler);
  running = &self;
}

void lane_exit(Lane& self) {
  self.waits_in = "exit";
  if (const char* instruction = self.bulk.unread()) {
    violation("%s: the thread exits without waiting for it, while it may still read shared memory", instruction);
  }
  self.bulk.commit();
  self.bulk.wait(0);
  self.exited = true;
  Warp& w = *self.warp;
  w.ready &= ~(1u << self.number);
  w.exited |= 1u << self.number;
  exit_meetings(self);
  exit_barriers(self);
  exit_cluster_barrier(self);
  wave().progress();
  Cta& block = *self.cta;
  block.cluster->alive--;
  if (--block.alive > 0) return;
  if (const char* instruction = wave().engine.pending_into(block)) {
    violation("%s: the block exits while the copy into its shared memory is still under way", instruction);
  }
  for (const auto& state : block.warpgroup_states) {
    if (state != nullptr && state->unfinished() != nullptr) {
      violation("%s: the block exits without waiting for it", state->unfinished());
    }
  }
  long offset = 0;
  if (const char* side = block.shared->damage(offset)) {
    violation("a thread of the block wrote %s its %zu bytes of shared memory, at offset %ld", side,
              block.shared->bytes(), offset);
  }
  block.exited = true;
  if (block.cluster->alive > 0) block.shared->close();
}

void lane_main(void* argument) {
  Lane& self = *static_cast<Lane*>(argument);
  running = &self;
  Wave& w = wave();
  try {
    self.started = true;
    self.cta->started = true;
    (*w.body)();
    lane_exit(self);
  } catch (const Cancelled&) {
  } catch (...) {
    if (!w.failure) w.failure = std::current_exception();
  }
  if (!self.exited) {  // failed
    self.exited = true;
    self.warp->ready &= ~(1u << self.number);
  }
  w.alive--;
  Lane* next = w.failure ? nullptr : self.warp->next_ready();
  self.fiber.leave_to(next != nullptr ? next->fiber : w.scheduler);
}

std::unique_ptr<Cta> make_cta(Wave& wave, Cluster& cluster, const Config& config, uint3 block, uint32_t rank) {
  auto cta = std::make_unique<Cta>();
  cta->cluster = &cluster;
  cta->block = block;
  cta->rank = rank;
  if (pool.arenas.empty()) {
    cta->shared = new SharedArena;
  } else {
    cta->shared = pool.arenas.back().release();
    pool.arenas.pop_back();
  }
  cta->shared->open(config.shared_bytes);
  const unsigned threads = config.block.x * config.block.y * config.block.z;
  for (unsigned i = 0; i < threads; i++) {
    if (i % kWarpSize == 0) {
      auto w = std::make_unique<Warp>();
      w->cta = cta.get();
      w->index = static_cast<int>(i / kWarpSize);
      w->order = static_cast<uint32_t>(wave.random());
      cta->warps.push_back(std::move(w));
    }
    Warp& w = *cta->warps.back();
    auto l = std::make_unique<Lane>();
    l->warp = &w;
    l->cta = cta.get();
    l->index = static_cast<int>(i);
    l->number = static_cast<int>(i % kWarpSize);
    l->thread = {i % config.block.x, i / config.block.x % config.block.y, i / (config.block.x * config.block.y)};
    l->stack = pool.stack();
    l->fiber.prepare(*l->stack, lane_main, l.get());
    w.lanes[l->number] = l.get();
    w.present |= 1u << l->number;
    cta->lanes.push_back(std::move(l));
  }
  cta->alive = static_cast<int>(threads);
  cta->warpgroups.resize((cta->warps.size() + 3) / 4);
  cta->registers.assign(cta->warpgroups.size(), registers_at_launch(static_cast<int>(threads)));
  for (auto& w : cta->warps) w->ready = w->present;
  cluster.alive += static_cast<int>(threads);
  wave.alive += static_cast<int>(threads);
  return cta;
}

void recycle(Cluster& cluster) {
  for (auto& cta : cluster.ctas) {
    for (auto& l : cta->lanes) pool.stacks.push_back(std::move(l->stack));
    pool.arenas.emplace_back(cta->shared);
  }
}

std::string dump(Wave& wave) {
  std::string text;
  int lines = 0;
  for (Warp* w : wave.warps) {
    uint32_t left = w->present & ~w->exited;
    while (left != 0) {
      const Lane& first = *w->lanes[__builtin_ctz(left)];
      const std::string what =
          (first.waits_in ? first.waits_in : "nothing") + (first.waits_for ? ": " + first.waits_for() : std::string());
      uint32_t same = 0;
      for (uint32_t rest = left; rest != 0; rest &= rest - 1) {
        const Lane& l = *w->lanes[__builtin_ctz(rest)];
        if (l.waits_in == first.waits_in && l.site.same_place(first.site) &&
            (l.waits_for ? l.waits_for() : "") == (first.waits_for ? first.waits_for() : "")) {
          same |= 1u << l.number;
        }
      }
      left &= ~same;
      if (++lines > 64) return text + "\n  ...";
      const uint3 b = w->cta->block;
      text += format_text("\n  block (%u, %u, %u) %s in %s", b.x, b.y, b.z, describe_lanes(same, w->index).c_str(),
                          what.c_str());
      const std::string place = first.site.describe();
      if (!place.empty()) text += ", at " + place;
    }
  }
  return text;
}

}  // namespace

Lane* Warp::next_ready() {
  if (ready == 0) return nullptr;
  const uint32_t turn = order >> 1 & 31;
  const uint32_t turned = ready >> turn | ready << (-turn & 31);
  const int first = (order & 1) != 0 ? 31 - __builtin_clz(turned) : __builtin_ctz(turned);
  return lanes[(static_cast<uint32_t>(first) + turn) & 31];
}

void block() {
  Lane& self = lane();
  self.calls_without_wait = 0;
  self.warp->ready &= ~(1u << self.number);
  leave_lane(self);
  if (wave().failure) throw Cancelled{};
}

void reschedule() {
  Lane& self = lane();
  self.fiber.switch_to(wave().scheduler);
  running = &self;
  if (wave().failure) throw Cancelled{};
}

void wake(Lane& l) {
  l.waits_in = nullptr;
  l.waits_for = nullptr;
  l.aligned = false;
  l.may_retry = false;
  l.warp->ready |= 1u << l.number;
  l.warp->polling &= ~(1u << l.number);
}

void poll(const char* instruction) {
  Lane& self = lane();
  self.waits_in = instruction;
  self.site = current_site();
  self.warp->polling |= 1u << self.number;
  block();
}

void fail_lane(const std::string& sentence) {
  Lane& self = lane();
  Wave& w = wave();
  if (!w.failure) w.failure = std::make_exception_ptr(Violation(sentence));
  self.exited = true;
  self.warp->ready &= ~(1u << self.number);
  w.alive--;
  self.fiber.leave_to(w.scheduler);
}

bool chance(int one_in) { return wave().random() % static_cast<uint64_t>(one_in) == 0; }

std::string describe_lanes(uint32_t mask, int warp) {
  std::string text;
  for (int l = 0; l < kWarpSize; l++) {
    if ((mask >> l & 1) == 0) continue;
    int last = l;
    while (last + 1 < kWarpSize && (mask >> (last + 1) & 1) != 0) last++;
    if (!text.empty()) text += ", ";
    text += last == l ? format_text("%d", l) : format_text("%d-%d", l, last);
    l = last;
  }
  return format_text("%s %s of warp %d", __builtin_popcount(mask) == 1 ? "lane" : "lanes", text.c_str(), warp);
}

void require_capability(int capability, const char* instruction) {
  if (wave().options->capability < capability) {
    violation("%s needs a device of capability %d.%d, and this one has %d.%d", instruction, capability / 10,
              capability % 10, wave().options->capability / 10, wave().options->capability % 10);
  }
}

// Asynchronous operations run in nobody's name.
bool Wave::step_engine() {
  try {
    return engine.step(random);
  } catch (...) {
    failure = std::current_exception();
    return true;
  }
}

Report Wave::finish_report() {
  Report result;
  for (Warp* w : warps) w->accesses.finish(bank_conflicts);
  for (const auto& [name, count] : instructions) result.instructions[name] += count;
  result.bank_conflicts = bank_conflicts.all();
  return result;
}

void Wave::run() {
  for (Warp* w : warps) w->priority = random();
  const uint64_t style = config == nullptr ? 0 : options->seed % 4;
  if (style == 0) {  // in order, as a naive reader imagines it
    for (size_t i = 0; i < warps.size(); i++) warps[i]->priority = i << 32;
  } else if (style == 1) {
    for (size_t i = 0; i < warps.size(); i++) warps[i]->priority = (warps.size() - i) << 32;
  }
  while (alive > 0 && !failure) {
    Warp* best = nullptr;
    for (Warp* w : warps) {
      if (w->ready != 0 && (best == nullptr || w->priority < best->priority)) best = w;
    }
    if (best != nullptr) {
      Lane* l = best->next_ready();
      scheduler.switch_to(l->fiber);
      if (style >= 2 && random() % 16 == 0) best->priority = random();
      if (options->copies == Copies::kMixed && random() % 2 == 0) {
        running = nullptr;
        step_engine();
      }
      continue;
    }
    running = nullptr;
    if (step_engine()) continue;
    bool again = false;
    if (stalled_rounds++ < kStalledRounds) {
      for (Warp* w : warps) {
        for (uint32_t rest = w->present & ~w->exited & ~w->ready; rest != 0; rest &= rest - 1) {
          Lane& l = *w->lanes[__builtin_ctz(rest)];
          if (!l.may_retry && (w->polling >> l.number & 1) == 0) continue;
          l.retried = l.may_retry;
          wake(l);
          again = true;
        }
      }
    }
    if (!again) {
      try {
        throw Violation("deadlock: no thread can go on" + dump(*this));
      } catch (...) {
        failure = std::current_exception();
      }
    }
  }
  if (failure) {
    for (Warp* w : warps) {
      for (Lane* l : w->lanes) {
        if (l != nullptr && l->started && !l->exited) scheduler.switch_to(l->fiber);
      }
    }
  }
  running = nullptr;
}

namespace {

void check_config(const Config& config, const Options& options) {
  const dim3 g = config.grid, b = config.block, c = config.cluster;
  const uint64_t threads = static_cast<uint64_t>(b.x) * b.y * b.z;
  const auto refuse = [&](const char* what) {
    violation("launch of grid (%u, %u, %u), block (%u, %u, %u), cluster (%u, %u, %u): %s", g.x, g.y, g.z, b.x, b.y, b.z,
              c.x, c.y, c.z, what);
  };
  if (g.x == 0 || g.y == 0 || g.z == 0 || threads == 0) refuse("a size is zero");
  if (threads > 1024 || b.z > 64) refuse("a block has at most 1024 threads, 64 of them along z");
  if (g.y > 65535 || g.z > 65535 || g.x > 0x7FFFFFFF) refuse("a grid has at most 2^31 - 1, 65535 and 65535 blocks");
  const uint64_t blocks = static_cast<uint64_t>(c.x) * c.y * c.z;
  if (blocks == 0 || blocks > 8) refuse("a cluster has 1 to 8 blocks");
  if (blocks > 1 && options.capability < 90) refuse("clusters need a device of capability 9.0");
  if (g.x % c.x != 0 || g.y % c.y != 0 || g.z % c.z != 0) refuse("the cluster does not divide the grid");
  const size_t most = shared_memory_limit(options.capability);
  if (config.shared_bytes > most) {
    violation("launch asks for %zu bytes of shared memory, and a block of this device has at most %zu",
              config.shared_bytes, most);
  }
}

Copies copies_from(const char* text) {
  if (std::strcmp(text, "early") == 0) return Copies::kEarly;
  if (std::strcmp(text, "mixed") == 0) return Copies::kMixed;
  return Copies::kLate;
}

Options options_of_environment() {
  Options options;
  if (const char* text = std::getenv("CUDA_EMULATION_SEED")) options.seed = std::strtoull(text, nullptr, 10);
  if (const char* text = std::getenv("CUDA_EMULATION_COPIES")) options.copies = copies_from(text);
  if (const char* text = std::getenv("CUDA_EMULATION_CAPABILITY")) options.capability = std::atoi(text);
  return options;
}

void merge(Report& into, const Report& from) {
  for (const auto& [name, count] : from.instructions) into.instructions[name] += count;
  for (const BankConflicts& site : from.bank_conflicts) {
    auto same = std::find_if(into.bank_conflicts.begin(), into.bank_conflicts.end(), [&](const BankConflicts& other) {
      return other.instruction == site.instruction && other.site.same_frames(site.site);
    });
    if (same == into.bank_conflicts.end()) {
      into.bank_conflicts.push_back(site);
    } else {
      same->executions += site.executions;
      same->passes += site.passes;
      same->worst = std::max(same->worst, site.worst);
    }
  }
}

}  // namespace

size_t shared_memory_limit(int capability) {
  if (capability >= 90) return 227 << 10;
  return capability == 80 ? 163 << 10 : 99 << 10;
}

Options& default_options() {
  thread_local Options options = options_of_environment();
  return options;
}

std::vector<Options> adversaries(int capability, int seeds) {
  std::vector<Options> all;
  for (Copies copies : {Copies::kLate, Copies::kEarly, Copies::kMixed}) {
    for (int seed = 0; seed < seeds; seed++) {
      Options options;
      options.capability = capability;
      options.copies = copies;
      // 0 and 1 run the warps in order and backwards; later ones are random.
      options.seed = static_cast<uint64_t>(seed) + (copies == Copies::kMixed ? 2 : 0);
      all.push_back(options);
    }
  }
  return all;
}

int Report::worst_bank_conflict() const {
  int worst = 0;
  for (const BankConflicts& site : bank_conflicts) worst = std::max(worst, site.worst);
  return worst;
}

Report launch(const Config& config, const std::function<void()>& body, const Options& options) {
  if (running != nullptr) violation("launch from inside of a kernel");
  check_config(config, options);
  const dim3 c = config.cluster;
  const uint3 clusters{config.grid.x / c.x, config.grid.y / c.y, config.grid.z / c.z};
  const uint64_t all = static_cast<uint64_t>(clusters.x) * clusters.y * clusters.z;
  const uint64_t count = options.only_last > 0 ? std::min(options.only_last, all) : all;
  const uint64_t together = static_cast<uint64_t>(std::max(options.resident_clusters, 1));
  const uint64_t waves = (count + together - 1) / together;

  // Blocks may run in any order: as numbered, backwards, or shuffled.
  std::vector<uint64_t> order(count);
  std::iota(order.begin(), order.end(), all - count);
  std::mt19937_64 random(mixed(options.seed));
  if (options.seed % 4 == 1) std::reverse(order.begin(), order.end());
  if (options.seed % 4 >= 2) std::shuffle(order.begin(), order.end(), random);

  std::vector<Report> reports(static_cast<size_t>(std::max(options.host_threads, 1)));
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  uint64_t failed_wave = waves;

  const auto work = [&](Report& report) {
    const FaultGuard guard;
    for (uint64_t number = next++; number < waves; number = next++) {
      {
        std::lock_guard<std::mutex> lock(mutex);
        if (failure && failed_wave < number) return;
      }
      Wave wave;
      wave.config = &config;
      wave.options = &options;
      wave.body = &body;
      wave.random.seed(mixed(options.seed ^ mixed(number + 1)));
      for (uint64_t i = number * together; i < std::min(count, (number + 1) * together); i++) {
        const uint64_t at = order[i];
        const uint3 corner{static_cast<unsigned>(at % clusters.x) * c.x,
                           static_cast<unsigned>(at / clusters.x % clusters.y) * c.y,
                           static_cast<unsigned>(at / clusters.x / clusters.y) * c.z};
        auto cluster = std::make_unique<Cluster>();
        cluster->wave = &wave;
        uint32_t rank = 0;
        for (unsigned z = 0; z < c.z; z++) {
          for (unsigned y = 0; y < c.y; y++) {
            for (unsigned x = 0; x < c.x; x++) {
              cluster->ctas.push_back(
                  make_cta(wave, *cluster, config, {corner.x + x, corner.y + y, corner.z + z}, rank++));
            }
          }
        }
        for (auto& cta : cluster->ctas) {
          for (auto& w : cta->warps) wave.warps.push_back(w.get());
        }
        wave.clusters.push_back(std::move(cluster));
      }
      wave.run();
      merge(report, wave.finish_report());
      for (auto& cluster : wave.clusters) recycle(*cluster);
      if (wave.failure) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!failure || number < failed_wave) {
          failure = wave.failure;
          failed_wave = number;
        }
        return;
      }
    }
  };
  if (reports.size() == 1) {
    work(reports[0]);
  } else {
    std::vector<std::thread> threads;
    for (Report& report : reports) {
      threads.emplace_back([&work, &report] { work(report); });
    }
    for (std::thread& thread : threads) thread.join();
  }
  if (failure) std::rethrow_exception(failure);
  check_global_buffers();
  Report report;
  for (const Report& part : reports) merge(report, part);
  return report;
}

}  // namespace cuda_emulation

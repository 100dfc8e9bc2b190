#include "collective.h"

#include <cstring>

namespace cuda_emulation {
namespace {

bool same_instruction(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

std::string lane_text(uint32_t mask, int warp, const char* instruction, const Site& site) {
  const std::string place = site.describe();
  return describe_lanes(mask, warp) + " in " + instruction + (place.empty() ? "" : " at " + place);
}

// A lane of the same warp that waits in an instruction the whole warp must execute together.
void refuse_divergence(Warp& w, const char* instruction, uint32_t mask) {
  for (uint32_t rest = mask & w.present & ~w.exited; rest != 0; rest &= rest - 1) {
    const Lane& other = *w.lanes[__builtin_ctz(rest)];
    if (&other == running || other.waits_in == nullptr || !other.aligned) continue;
    if (!same_instruction(other.waits_in, instruction)) {
      violation("divergent collective: %s needs a lane that waits elsewhere, %s", instruction,
                lane_text(1u << other.number, w.index, other.waits_in, other.site).c_str());
    }
  }
}

void refuse_exited(uint32_t exited, int warp, const char* instruction) {
  if (exited == 0) return;
  violation("%s waits for threads that do not exist or have exited: %s", instruction,
            describe_lanes(exited, warp).c_str());
}

void compare(const Meeting& meeting, const char* instruction, const Site& site) {
  const Lane& first = *meeting.first;
  if (!same_instruction(meeting.instruction, instruction) || !meeting.site.same_place(site)) {
    violation("divergent collective: this lane is in %s, and %s waits for it", instruction,
              lane_text(1u << first.number, first.warp->index, meeting.instruction, meeting.site).c_str());
  }
}

std::string missing(const Meeting* meeting, const Warp* w, int part) {
  return "waits for " + describe_lanes(meeting->mask[part] & ~meeting->arrived[part], w->index);
}

void wait_in(const char* instruction, const Site& site, bool aligned) {
  Lane& self = lane();
  self.waits_in = instruction;
  self.site = site;
  self.aligned = aligned;
  block();
}

}  // namespace

void** meet_warp(const char* instruction, uint32_t mask, void* arguments, bool aligned) {
  Lane& self = lane();
  Warp& w = *self.warp;
  const uint32_t me = 1u << self.number;
  if ((mask & me) == 0) violation("%s: the mask 0x%08x does not name the lane that executes it", instruction, mask);
  if ((mask & w.present & ~w.exited) != mask) {
    refuse_exited(mask & (w.exited | ~w.present), w.index, instruction);
  }
  const Site site = current_site();
  Meeting* meeting = nullptr;
  for (Meeting& other : w.meetings) {
    if (other.mask[0] == mask) {
      meeting = &other;
    } else if ((other.mask[0] & mask) != 0) {
      violation("divergent collective: %s with mask 0x%08x, while %s waits with mask 0x%08x", instruction, mask,
                lane_text(other.arrived[0], w.index, other.instruction, other.site).c_str(), other.mask[0]);
    }
  }
  if (meeting == nullptr) {
    refuse_divergence(w, instruction, mask);
    if (w.spare_meetings.empty()) w.spare_meetings.emplace_back();
    w.meetings.splice(w.meetings.end(), w.spare_meetings, w.spare_meetings.begin());
    meeting = &w.meetings.back();
    *meeting = Meeting();
    meeting->instruction = instruction;
    meeting->mask[0] = mask;
    meeting->first = &self;
    meeting->site = site;
  } else {
    compare(*meeting, instruction, site);
  }
  meeting->arrived[0] |= me;
  meeting->arguments[self.number] = arguments;
  if (meeting->arrived[0] == mask) {
    wave().instructions[instruction]++;
    self.calls_without_wait = 0;
    return meeting->arguments;
  }
  self.waits_for = [meeting, &w] { return missing(meeting, &w, 0); };
  wait_in(instruction, site, aligned);
  return nullptr;
}

void finish_warp_meeting(void** arguments) {
  Warp& w = warp();
  for (auto it = w.meetings.begin(); it != w.meetings.end(); ++it) {
    if (it->arguments != arguments) continue;
    const uint32_t others = it->mask[0] & ~(1u << lane().number);
    for (uint32_t rest = others; rest != 0; rest &= rest - 1) wake(*w.lanes[__builtin_ctz(rest)]);
    w.spare_meetings.splice(w.spare_meetings.end(), w.meetings, it);
    return;
  }
}

void** meet_warpgroup(const char* instruction, void* arguments) {
  Lane& self = lane();
  Warp& w = *self.warp;
  Cta& c = *self.cta;
  const int group = w.index / 4;
  const int part = w.index % 4;
  if (static_cast<size_t>(group * 4 + 4) > c.warps.size()) {
    violation("%s needs four warps, %d to %d, and the block has %zu", instruction, group * 4, group * 4 + 3,
              c.warps.size());
  }
  for (int i = 0; i < 4; i++) {
    const Warp& other = *c.warps[static_cast<size_t>(group * 4 + i)];
    refuse_exited(other.exited | ~other.present, other.index, instruction);
  }
  if (!w.meetings.empty()) {
    violation("divergent collective: this lane is in %s, and %s waits for it", instruction,
              lane_text(w.meetings.front().arrived[0], w.index, w.meetings.front().instruction, w.meetings.front().site)
                  .c_str());
  }
  const Site site = current_site();
  Meeting& meeting = c.warpgroups[static_cast<size_t>(group)];
  // Warps come here one after another: those that are not here yet may still be in something before it.
  if (meeting.arrived[part] == 0) refuse_divergence(w, instruction, kFullMask);
  if (meeting.first == nullptr) {
    meeting.instruction = instruction;
    meeting.first = &self;
    meeting.site = site;
    for (uint32_t& mask : meeting.mask) mask = kFullMask;
  } else {
    compare(meeting, instruction, site);
  }
  meeting.arrived[part] |= 1u << self.number;
  meeting.arguments[part * kWarpSize + self.number] = arguments;
  bool complete = true;
  for (uint32_t arrived : meeting.arrived) complete &= arrived == kFullMask;
  if (complete) {
    wave().instructions[instruction]++;
    self.calls_without_wait = 0;
    return meeting.arguments;
  }
  self.waits_for = [&meeting, &c, group] {
    std::string text;
    for (int i = 0; i < 4; i++) {
      if (meeting.arrived[i] == kFullMask) continue;
      text += (text.empty() ? "" : " and ") + missing(&meeting, c.warps[static_cast<size_t>(group * 4 + i)].get(), i);
    }
    return text;
  };
  wait_in(instruction, site, true);
  return nullptr;
}

void finish_warpgroup_meeting() {
  Cta& c = cta();
  const int group = warp().index / 4;
  for (int i = 0; i < 4; i++) {
    Warp& w = *c.warps[static_cast<size_t>(group * 4 + i)];
    for (Lane* l : w.lanes) {
      if (l != running) wake(*l);
    }
  }
  c.warpgroups[static_cast<size_t>(group)] = Meeting();
}

void exit_meetings(Lane& self) {
  const uint32_t me = 1u << self.number;
  Warp& w = *self.warp;
  for (const Meeting& meeting : w.meetings) {
    if ((meeting.mask[0] & me) != 0) {
      violation("the thread exits, and %s waits for it",
                lane_text(meeting.arrived[0], w.index, meeting.instruction, meeting.site).c_str());
    }
  }
  const Meeting& meeting = self.cta->warpgroups[static_cast<size_t>(w.index / 4)];
  if (meeting.first != nullptr) {
    violation(
        "the thread exits, and %s of its warpgroup waits for it",
        lane_text(1u << meeting.first->number, meeting.first->warp->index, meeting.instruction, meeting.site).c_str());
  }
}

}  // namespace cuda_emulation

// What a kernel did that the machine does not allow, as one sentence and a place in the source.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace cuda_emulation {

// Thrown by launch(). Nothing of the launch is left behind: a test may catch it and go on.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Ends the launch. Adds to the sentence the block, the thread and the place of the call that the running thread is in.
[[noreturn]] void violation(const char* format, ...) __attribute__((format(printf, 1, 2)));

std::string format_text(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A place in a kernel: the return addresses on a thread's stack, innermost first, up to where the thread began.
// Whatever is inlined where, two lanes that took the same path have the same addresses. Needs frame pointers.
struct Site {
  static constexpr int kDepth = 12;
  const void* frames[kDepth];
  int depth = 0;

  bool same_frames(const Site& other) const {
    if (depth != other.depth) return false;
    for (int i = 0; i < depth; i++) {
      if (frames[i] != other.frames[i]) return false;
    }
    return true;
  }
  // Same source lines. Compilers copy calls into both branches of a condition, so addresses may differ where the
  // source has one line; addr2line then decides, and the answer is remembered.
  bool same_place(const Site& other) const { return same_frames(other) || describe_all() == other.describe_all(); }

  std::string describe() const;      // "file:line (function)", the innermost frame outside the emulator
  std::string describe_all() const;  // every frame, for comparing
};

// The place the running thread calls from, or one given by a return address and a frame pointer.
Site current_site();
Site site_from(const void* address, const void* frame);

// "\n  block (..), thread (..), lane .. of warp .., at .." of the running thread.
std::string describe_running(const Site& site);

}  // namespace cuda_emulation

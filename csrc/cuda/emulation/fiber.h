// A context that can be left in the middle of a function and taken up again, on a stack of its own.
//
// x86-64 and aarch64 switch in a few instructions; elsewhere, or with CUDA_EMULATION_UCONTEXT defined, ucontext does it
// with two system calls a switch. Address and thread sanitizers are told of every switch.
#pragma once

#include <cstddef>
#include <memory>

#if !defined(CUDA_EMULATION_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CUDA_EMULATION_UCONTEXT 1
#endif
#if defined(CUDA_EMULATION_UCONTEXT)
#include <ucontext.h>
#endif

namespace cuda_emulation {

// Address space with a page below it that may not be touched, so that an overflow stops at once.
class Stack {
 public:
  static constexpr size_t kBytes = 256 << 10;  // reserved, and used only as far as a kernel goes
  Stack();
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  std::byte* low() const { return mapping_ + kGuard; }
  std::byte* high() const { return low() + kBytes; }
  bool guards(const void* address) const { return address >= mapping_ && address < low(); }
  void* thread_sanitizer_fiber = nullptr;

 private:
  static constexpr size_t kGuard = 64 << 10;  // a multiple of every page size
  std::byte* mapping_;
};

class Fiber {
 public:
  // The context that calls switch_to first, on the operating system's stack.
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Prepares entry(argument) to run at the first switch. It must end by leaving the fiber for good.
  void prepare(Stack& stack, void (*entry)(void*), void* argument);
  // Leaves this fiber, the running one, and takes up the other. Returns when something switches back.
  void switch_to(Fiber& other);
  // The same for the last time: the sanitizer forgets this fiber's frames.
  [[noreturn]] void leave_to(Fiber& other);
  const Stack* stack() const { return stack_; }
  // The upper end of the stack, for a fiber that begins anew there in the middle of anything.
  std::byte* forget_frames();

 private:
  static void begin();
  void arrived();

  Stack* stack_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
#if defined(CUDA_EMULATION_UCONTEXT)
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
  // What the sanitizers want to know.
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  size_t size_ = 0;
  void* thread_sanitizer_fiber_ = nullptr;
};

}  // namespace cuda_emulation

#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER 1
#endif
#endif

#if defined(ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_emulation {
namespace {

thread_local Fiber* leaving = nullptr;
thread_local Fiber* entering = nullptr;

}  // namespace

#if !defined(CUDA_EMULATION_UCONTEXT)
#if defined(__APPLE__)
#define SWITCH_SYMBOL "_cuda_emulation_switch"
#else
#define SWITCH_SYMBOL "cuda_emulation_switch"
#endif

// Pushes the registers a call must preserve, stores the stack pointer in *save, loads the other, pops, returns there.
extern "C" void cuda_emulation_switch(void** save, void* load);

#if defined(__x86_64__)
asm(".text\n.globl " SWITCH_SYMBOL "\n" SWITCH_SYMBOL
    ":\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

static void* first_frame(std::byte* high, void (*entry)()) {
  void** top = reinterpret_cast<void**>(high);
  *--top = nullptr;  // where a call would have left its return address: begin() is aligned as if called
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  return top;
}
#else
asm(".text\n.globl " SWITCH_SYMBOL "\n" SWITCH_SYMBOL
    ":\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n  ret\n");

static void* first_frame(std::byte* high, void (*entry)()) {
  void** frame = reinterpret_cast<void**>(high) - 20;
  for (int i = 0; i < 20; i++) frame[i] = nullptr;
  frame[11] = reinterpret_cast<void*>(entry);  // x30
  return frame;
}
#endif
#endif

Stack::Stack() {
  void* mapping = mmap(nullptr, kGuard + kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<std::byte*>(mapping);
  mprotect(mapping_, kGuard, PROT_NONE);
#if defined(THREAD_SANITIZER)
  thread_sanitizer_fiber = __tsan_create_fiber(0);
#endif
}

Stack::~Stack() {
#if defined(THREAD_SANITIZER)
  __tsan_destroy_fiber(thread_sanitizer_fiber);
#endif
#if defined(ADDRESS_SANITIZER)
  __asan_unpoison_memory_region(low(), kBytes);
#endif
  munmap(mapping_, kGuard + kBytes);
}

void Fiber::prepare(Stack& stack, void (*entry)(void*), void* argument) {
  stack_ = &stack;
  entry_ = entry;
  argument_ = argument;
  fake_stack_ = nullptr;
  bottom_ = stack.low();
  size_ = Stack::kBytes;
  thread_sanitizer_fiber_ = stack.thread_sanitizer_fiber;
  forget_frames();
#if defined(CUDA_EMULATION_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack.low();
  context_.uc_stack.ss_size = Stack::kBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::begin, 0);
#else
  stack_pointer_ = first_frame(stack.high(), &Fiber::begin);
#endif
}

std::byte* Fiber::forget_frames() {
#if defined(ADDRESS_SANITIZER)
  __asan_unpoison_memory_region(stack_->low(), Stack::kBytes);
#endif
  return stack_->high();
}

void Fiber::begin() {
  Fiber* self = entering;
  self->arrived();
  self->entry_(self->argument_);
  std::abort();
}

void Fiber::arrived() {
#if defined(ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(fake_stack_, &leaving->bottom_, &leaving->size_);
#endif
}

void Fiber::switch_to(Fiber& other) {
  leaving = this;
  entering = &other;
#if defined(ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(&fake_stack_, other.bottom_, other.size_);
#endif
#if defined(THREAD_SANITIZER)
  if (stack_ == nullptr) thread_sanitizer_fiber_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(other.thread_sanitizer_fiber_, 0);
#endif
#if defined(CUDA_EMULATION_UCONTEXT)
  swapcontext(&context_, &other.context_);
#else
  cuda_emulation_switch(&stack_pointer_, other.stack_pointer_);
#endif
  arrived();
}

void Fiber::leave_to(Fiber& other) {
  leaving = this;
  entering = &other;
#if defined(ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(nullptr, other.bottom_, other.size_);
#endif
#if defined(THREAD_SANITIZER)
  __tsan_switch_to_fiber(other.thread_sanitizer_fiber_, 0);
#endif
#if defined(CUDA_EMULATION_UCONTEXT)
  setcontext(&other.context_);
#else
  cuda_emulation_switch(&stack_pointer_, other.stack_pointer_);
#endif
  std::abort();
}

}  // namespace cuda_emulation

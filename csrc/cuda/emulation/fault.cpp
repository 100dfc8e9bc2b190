#include "fault.h"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#include <signal.h>
#include <ucontext.h>

#include <cstdlib>
#include <mutex>

#include "global_buffer.h"
#include "machine.h"

namespace cuda_emulation {
namespace {

constexpr size_t kStackBytes = 128 << 10;

std::mutex guards_mutex;
int guards = 0;
struct sigaction before_segv, before_bus;

std::string what_lies_at(const std::byte* address) {
  if (running->fiber.stack() != nullptr && running->fiber.stack()->guards(address)) {
    return "the thread's stack overflows";
  }
  for (auto& block : cluster().ctas) {
    if (!block->shared->guards(address) && !block->shared->contains(address, 1)) continue;
    const ptrdiff_t offset = address - block->shared->base();
    if (block->exited) {
      return format_text("an access to shared offset %td of block %u of the cluster, which has exited", offset,
                         block->rank);
    }
    return format_text("an access to shared offset %td, outside of the block's %zu bytes", offset,
                       block->shared->bytes());
  }
  if (const GlobalRegion* region = region_of(address)) {
    return format_text("an access at offset %td of a global buffer of %zu bytes", address - region->base(),
                       region->bytes());
  }
  if (reinterpret_cast<uintptr_t>(address) < 1 << 16) return "an access through a null pointer";
  return "";
}

// Where the faulting lane goes on, at the top of its own stack: nothing of what it was doing is needed any more.
thread_local std::string* sentence = nullptr;
[[noreturn]] void land() { fail_lane(*sentence); }

void handle(int signal, siginfo_t* info, void* context) {
  ucontext_t* machine = static_cast<ucontext_t*>(context);
  std::string text = running != nullptr ? what_lies_at(static_cast<const std::byte*>(info->si_addr)) : "";
  if (text.empty()) {  // not ours: as if this handler had never been there
    sigaction(signal, signal == SIGSEGV ? &before_segv : &before_bus, nullptr);
    return;
  }
#if defined(__x86_64__)
  auto& registers = machine->uc_mcontext.gregs;
  const void* at = reinterpret_cast<const void*>(registers[REG_RIP] + 1);
  const void* frame = reinterpret_cast<const void*>(registers[REG_RBP]);
#else
  const void* at = reinterpret_cast<const void*>(machine->uc_mcontext.pc + 1);
  const void* frame = reinterpret_cast<const void*>(machine->uc_mcontext.regs[29]);
#endif
  delete sentence;
  sentence = new std::string(text + describe_running(site_from(at, frame)));
  const uintptr_t top = reinterpret_cast<uintptr_t>(running->fiber.forget_frames()) - 256;
#if defined(__x86_64__)
  registers[REG_RSP] = static_cast<greg_t>(top - 8);  // as after a call
  registers[REG_RBP] = 0;
  registers[REG_RIP] = reinterpret_cast<greg_t>(&land);
#else
  machine->uc_mcontext.sp = top;
  machine->uc_mcontext.regs[29] = 0;
  machine->uc_mcontext.pc = reinterpret_cast<uintptr_t>(&land);
#endif
}

}  // namespace

FaultGuard::FaultGuard() {
  stack_t current{};
  sigaltstack(nullptr, &current);
  if ((current.ss_flags & SS_DISABLE) != 0) {
    stack_ = std::malloc(kStackBytes);
    stack_t own{};
    own.ss_sp = stack_;
    own.ss_size = kStackBytes;
    sigaltstack(&own, nullptr);
  }
  std::lock_guard<std::mutex> lock(guards_mutex);
  if (guards++ > 0) return;
  struct sigaction action{};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &before_segv);
  sigaction(SIGBUS, &action, &before_bus);
}

FaultGuard::~FaultGuard() {
  {
    std::lock_guard<std::mutex> lock(guards_mutex);
    if (--guards == 0) {
      sigaction(SIGSEGV, &before_segv, nullptr);
      sigaction(SIGBUS, &before_bus, nullptr);
    }
  }
  if (stack_ == nullptr) return;
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
  std::free(stack_);
}

}  // namespace cuda_emulation
#else
namespace cuda_emulation {
FaultGuard::FaultGuard() = default;
FaultGuard::~FaultGuard() = default;
}  // namespace cuda_emulation
#endif

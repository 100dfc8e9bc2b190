// Turns an access to memory that may not be touched (beside a global buffer, beyond shared memory, below a stack, in
// the shared memory of a block that has exited) into a violation of the thread that made it. Linux on x86-64 and
// aarch64; elsewhere the process ends with the signal.
#pragma once

namespace cuda_emulation {

// While one lives on a host thread, faults of the lanes that this thread runs are violations.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

 private:
  void* stack_ = nullptr;
};

}  // namespace cuda_emulation

// Atomic operations on global and shared memory. Real atomics, for blocks may run on several host threads. One that
// changes nothing is taken for polling: a lane that does only that lets the others run.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "global_buffer.h"
#include "machine.h"

namespace cuda_emulation {

// Replaces *address by change(*address) and returns what it was.
template <class T, class Change>
T atomic_update(const char* instruction, T* address, Change change) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  static_assert(sizeof(T) == sizeof(Bits));
  check_global(address, sizeof(T), sizeof(T), instruction);
  std::atomic_ref<Bits> bits(*reinterpret_cast<Bits*>(address));
  Bits before = bits.load();
  for (;;) {
    T old;
    std::memcpy(&old, &before, sizeof old);
    const T fresh = change(old);
    Bits after;
    std::memcpy(&after, &fresh, sizeof after);
    if (!bits.compare_exchange_weak(before, after)) continue;
    if (after == before) {
      count_poll(instruction);
    } else {
      wave().progress();
    }
    return old;
  }
}

// A load that another thread's store may answer: ld.volatile, ld.acquire.
template <class T>
T polled_load(const char* instruction, const T* address) {
  count_poll(instruction);
  return std::atomic_ref<T>(*const_cast<T*>(address)).load();
}

}  // namespace cuda_emulation

// Ordinary loads and stores of 4, 8 and 16 bytes, with the checks that hardware makes: the address is aligned to the
// size, and lies in the memory that the instruction names.
#pragma once

#include <cstdint>
#include <cstring>

#include "../memory.h"

namespace cuda_emulation {

template <class T>
T load_shared(const void* address, const char* instruction) {
  check_shared(address, sizeof(T), sizeof(T), instruction);
  count_lane_access(instruction, address, sizeof(T));
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}
template <class T>
void store_shared(void* address, const T& value, const char* instruction) {
  check_shared(address, sizeof(T), sizeof(T), instruction);
  count_lane_access(instruction, address, sizeof(T));
  std::memcpy(address, &value, sizeof(T));
  note_shared_write(address, sizeof(T));
}

// Shared memory of any block of the cluster, by its 32-bit address.
template <class T>
T load_cluster(uint32_t address, const char* instruction) {
  const void* pointer = shared_pointer(address);
  check_shared_cluster(pointer, sizeof(T), sizeof(T), instruction);
  T value;
  std::memcpy(&value, pointer, sizeof(T));
  return value;
}
template <class T>
void store_cluster(uint32_t address, const T& value, const char* instruction) {
  void* pointer = shared_pointer(address);
  check_shared_cluster(pointer, sizeof(T), sizeof(T), instruction);
  std::memcpy(pointer, &value, sizeof(T));
  note_shared_write(pointer, sizeof(T));
}

template <class T>
T load_global(const void* address, const char* instruction) {
  check_global(address, sizeof(T), sizeof(T), instruction);
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}
template <class T>
void store_global(void* address, const T& value, const char* instruction) {
  check_global(address, sizeof(T), sizeof(T), instruction);
  std::memcpy(address, &value, sizeof(T));
}

}  // namespace cuda_emulation

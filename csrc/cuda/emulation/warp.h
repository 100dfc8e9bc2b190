// Shuffles, votes, matches and reductions of a warp, as CUDA defines them, with every mask checked.
#pragma once

#include <cstdint>
#include <type_traits>

#include "collective.h"

namespace cuda_emulation {

// `source(lane)` is the lane read, within the lane's segment of `width` lanes; outside of it a lane keeps its own
// value.
template <class T, class Source>
T shuffle(const char* instruction, uint32_t mask, T value, int width, Source source) {
  static_assert(std::is_arithmetic_v<T>, "shuffles move numbers of 4 or 8 bytes");
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0) {
    violation("%s: a width of %d; it is a power of two up to 32", instruction, width);
  }
  struct Args {
    T value, result;
    int from;
  } args{value, value, source(lane().number)};
  masked_collective(instruction, mask, args, [=](Args** lanes) {
    for (int l = 0; l < kWarpSize; l++) {
      if (lanes[l] == nullptr) continue;
      const int from = lanes[l]->from;
      if (lanes[from] == nullptr) {
        violation("%s: lane %d reads lane %d, which the mask 0x%08x leaves out", instruction, l, from, mask);
      }
      lanes[l]->result = lanes[from]->value;
    }
  });
  return args.result;
}

template <class T>
T shuffle_index(uint32_t mask, T value, int index, int width) {
  return shuffle("__shfl_sync", mask, value, width, [=](int l) { return (l & ~(width - 1)) | (index & (width - 1)); });
}

template <class T>
T shuffle_up(uint32_t mask, T value, unsigned delta, int width) {
  return shuffle("__shfl_up_sync", mask, value, width, [=](int l) {
    const int from = l - static_cast<int>(delta);
    return from < (l & ~(width - 1)) ? l : from;
  });
}

template <class T>
T shuffle_down(uint32_t mask, T value, unsigned delta, int width) {
  return shuffle("__shfl_down_sync", mask, value, width, [=](int l) {
    const int from = l + static_cast<int>(delta);
    return from > (l | (width - 1)) ? l : from;
  });
}

template <class T>
T shuffle_xor(uint32_t mask, T value, int bits, int width) {
  return shuffle("__shfl_xor_sync", mask, value, width, [=](int l) {
    const int from = l ^ bits;
    return from > (l | (width - 1)) ? l : from;
  });
}

// The result of `op(lanes)` for every lane of the mask.
template <class Result, class T, class Op>
Result agree(const char* instruction, uint32_t mask, T value, Op op) {
  struct Args {
    T value;
    Result result;
  } args{value, Result()};
  masked_collective(instruction, mask, args, [&](Args** lanes) {
    const Result result = op(lanes);
    for (int l = 0; l < kWarpSize; l++) {
      if (lanes[l] != nullptr) lanes[l]->result = result;
    }
  });
  return args.result;
}

inline uint32_t ballot(const char* instruction, uint32_t mask, int predicate) {
  return agree<uint32_t>(instruction, mask, predicate, [](auto** lanes) {
    uint32_t bits = 0;
    for (int l = 0; l < kWarpSize; l++) bits |= static_cast<uint32_t>(lanes[l] != nullptr && lanes[l]->value != 0) << l;
    return bits;
  });
}

template <class T, class Op>
T reduce(const char* instruction, uint32_t mask, T value, Op op) {
  require_capability(80, instruction);
  return agree<T>(instruction, mask, value, [op](auto** lanes) {
    T result{};
    bool first = true;
    for (int l = 0; l < kWarpSize; l++) {
      if (lanes[l] == nullptr) continue;
      result = first ? lanes[l]->value : op(result, lanes[l]->value);
      first = false;
    }
    return result;
  });
}

template <class T>
uint32_t match_any(uint32_t mask, T value) {
  struct Args {
    T value;
    uint32_t result;
  } args{value, 0};
  masked_collective("__match_any_sync", mask, args, [](Args** lanes) {
    for (int l = 0; l < kWarpSize; l++) {
      if (lanes[l] == nullptr) continue;
      for (int other = 0; other < kWarpSize; other++) {
        lanes[l]->result |= static_cast<uint32_t>(lanes[other] != nullptr && lanes[other]->value == lanes[l]->value)
                            << other;
      }
    }
  });
  return args.result;
}

template <class T>
uint32_t match_all(uint32_t mask, T value, int* predicate) {
  const uint32_t same = agree<uint32_t>("__match_all_sync", mask, value, [mask](auto** lanes) {
    const auto& first = lanes[__builtin_ctz(mask)]->value;
    for (int l = 0; l < kWarpSize; l++) {
      if (lanes[l] != nullptr && lanes[l]->value != first) return 0u;
    }
    return mask;
  });
  *predicate = same != 0;
  return same;
}

inline void sync_warp(uint32_t mask) {
  struct {
  } args;
  masked_collective("__syncwarp", mask, args, [](auto**) {});
}

// elect.sync: one lane of the mask, always the same for a mask; which one is the seed's choice.
inline bool elect(uint32_t mask) {
  require_capability(90, "elect.sync");
  const uint32_t leader = agree<uint32_t>("elect.sync", mask, 0, [mask](auto**) {
    uint32_t rest = mask;
    const uint64_t skip = wave().options->seed % static_cast<uint64_t>(__builtin_popcount(mask));
    for (uint64_t i = 0; i < skip; i++) rest &= rest - 1;
    return static_cast<uint32_t>(__builtin_ctz(rest));
  });
  return leader == static_cast<uint32_t>(lane().number);
}

}  // namespace cuda_emulation

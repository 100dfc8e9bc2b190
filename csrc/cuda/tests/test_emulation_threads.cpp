// Threads, blocks and warps: who runs, who meets whom, and what happens when somebody does not come.
#include <doctest/doctest.h>

#include <set>
#include <stdexcept>
#include <vector>

#include "emulation.h"

using namespace cuda_emulation;

TEST_CASE("every thread of a three-dimensional grid runs once, whatever the seed") {
  for (uint64_t seed = 0; seed < 6; seed++) {
    Config config;
    config.grid = dim3(3, 2, 2);
    config.block = dim3(5, 4, 2);
    GlobalBuffer<int> hits(12 * 40);
    std::fill(hits.begin(), hits.end(), 0);
    Options options;
    options.seed = seed;
    launch(
        config,
        [&] {
          const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
          const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
          hits[block * 40 + thread]++;
        },
        options);
    for (int count : hits) CHECK(count == 1);
  }
}

TEST_CASE("__syncthreads separates writes from reads, and without it some schedule shows the difference") {
  constexpr int kThreads = 96;
  const auto reversed = [](bool synchronised, uint64_t seed) {
    GlobalBuffer<int> out(kThreads);
    Options options;
    options.seed = seed;
    launch(
        threads(kThreads, kThreads * 4),
        [&, synchronised] {
          int* shared = reinterpret_cast<int*>(shared_memory());
          shared[threadIdx.x] = static_cast<int>(threadIdx.x);
          if (synchronised) __syncthreads();
          out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
        },
        options);
    for (int i = 0; i < kThreads; i++) {
      if (out[static_cast<size_t>(i)] != kThreads - 1 - i) return false;
    }
    return true;
  };
  for (uint64_t seed = 0; seed < 8; seed++) {
    CHECK(reversed(true, seed));
    CHECK_FALSE(reversed(false, seed));
  }
}

TEST_CASE("a write to shared memory that others may still read is seen") {
  // Two rounds: each thread publishes, reads its neighbour's, and publishes again. The second barrier protects readers.
  const auto wrong = [](bool second_barrier, uint64_t seed) {
    GlobalBuffer<int> errors(1);
    errors[0] = 0;
    Options options;
    options.seed = seed;
    launch(
        threads(128, 128 * 4),
        [&, second_barrier] {
          int* shared = reinterpret_cast<int*>(shared_memory());
          for (int round = 0; round < 4; round++) {
            shared[threadIdx.x] = round;
            __syncthreads();
            if (shared[(threadIdx.x + 32) % 128] != round) atomicAdd(&errors[0], 1);
            if (second_barrier) __syncthreads();
          }
        },
        options);
    return errors[0];
  };
  for (uint64_t seed = 0; seed < 8; seed++) {
    CHECK(wrong(true, seed) == 0);
    CHECK(wrong(false, seed) > 0);
  }
}

TEST_CASE("barriers that reduce") {
  GlobalBuffer<int> results(64 * 3);
  launch(threads(64), [&] {
    const int odd = threadIdx.x % 2;
    results[threadIdx.x * 3] = __syncthreads_count(odd);
    results[threadIdx.x * 3 + 1] = __syncthreads_or(threadIdx.x == 63);
    results[threadIdx.x * 3 + 2] = __syncthreads_and(threadIdx.x != 5);
  });
  for (size_t t = 0; t < 64; t++) {
    CHECK(results[t * 3] == 32);
    CHECK(results[t * 3 + 1] == 1);
    CHECK(results[t * 3 + 2] == 0);
  }
}

TEST_CASE("shuffles, votes, matches and reductions") {
  struct Row {
    int index, up, down, crossed, segment;
    unsigned ballot, any_match, sum;
    int least;
  };
  GlobalBuffer<Row> rows(32);
  launch(threads(32), [&] {
    const int l = static_cast<int>(threadIdx.x);
    Row row;
    row.index = __shfl_sync(0xFFFFFFFFu, 10 * l, 7);
    row.up = __shfl_up_sync(0xFFFFFFFFu, l, 3);
    row.down = __shfl_down_sync(0xFFFFFFFFu, l, 5);
    row.crossed = __shfl_xor_sync(0xFFFFFFFFu, l, 9);
    row.segment = __shfl_sync(0xFFFFFFFFu, l, 2, 8);
    row.ballot = __ballot_sync(0xFFFFFFFFu, l % 3 == 0);
    row.any_match = __match_any_sync(0xFFFFFFFFu, l % 4);
    row.sum = __reduce_add_sync(0xFFFFFFFFu, static_cast<unsigned>(l));
    row.least = __reduce_min_sync(0xFFFFFFFFu, 5 - l);
    rows[threadIdx.x] = row;
  });
  unsigned thirds = 0;
  for (int l = 0; l < 32; l++) thirds |= static_cast<unsigned>(l % 3 == 0) << l;
  for (int l = 0; l < 32; l++) {
    const Row& row = rows[static_cast<size_t>(l)];
    CHECK(row.index == 70);
    CHECK(row.up == (l < 3 ? l : l - 3));
    CHECK(row.down == (l > 26 ? l : l + 5));
    CHECK(row.crossed == (l ^ 9));
    CHECK(row.segment == l / 8 * 8 + 2);
    CHECK(row.ballot == thirds);
    CHECK(row.any_match == 0x11111111u << (l % 4));
    CHECK(row.sum == 496);
    CHECK(row.least == -26);
  }
}

TEST_CASE("two halves of a warp vote apart") {
  GlobalBuffer<unsigned> votes(32);
  launch(threads(32), [&] {
    const unsigned mask = threadIdx.x < 16 ? 0x0000FFFFu : 0xFFFF0000u;
    if (threadIdx.x < 16) {
      votes[threadIdx.x] = __ballot_sync(mask, 1);
    } else {
      votes[threadIdx.x] = __ballot_sync(mask, threadIdx.x % 2);
    }
  });
  for (size_t l = 0; l < 32; l++) CHECK(votes[l] == (l < 16 ? 0x0000FFFFu : 0xAAAA0000u));
}

TEST_CASE("what collectives refuse") {
  CHECK(contains(violation_of(threads(32),
                              [] {
                                if (threadIdx.x == 3) return;
                                __syncwarp();
                              }),
                 "exit"));
  CHECK(contains(violation_of(threads(20), [] { __syncwarp(); }), "lanes 20-31 of warp 0"));
  CHECK(contains(violation_of(threads(32), [] { __ballot_sync(1u, 1); }), "does not name the lane"));
  CHECK(contains(violation_of(threads(32), [] { __shfl_sync(0xFFFFFFFFu, 1, 0, 12); }), "power of two"));
  CHECK(contains(violation_of(threads(32),
                              [] {
                                if (threadIdx.x < 16) __shfl_sync(0xFFFFu, 1, 16);
                              }),
                 "leaves out"));
  CHECK(contains(violation_of(threads(32), [] { __ballot_sync(threadIdx.x == 0 ? 0x3u : 0xFFFFFFFEu, 1); }),
                 "with mask"));
  // Kernels outside of CHECK: inside of a macro's arguments everything is on one line.
  const auto two_instructions = [] {
    if (threadIdx.x < 16) {
      __ballot_sync(0xFFFFFFFFu, 1);
    } else {
      __any_sync(0xFFFFFFFFu, 1);
    }
  };
  CHECK(contains(violation_of(threads(32), two_instructions), "divergent collective"));
  const auto two_places = [] {
    if (threadIdx.x < 16) {
      keep_apart();
      __ballot_sync(0xFFFFFFFFu, 1);
      keep_apart();
    } else {
      __ballot_sync(0xFFFFFFFFu, 0);
    }
  };
  CHECK(contains(violation_of(threads(32), two_places), "divergent collective"));
  const auto two_barriers = [] {
    if (threadIdx.x < 16) {
      keep_apart();
      __syncthreads();
      keep_apart();
    } else {
      __syncthreads();
    }
  };
  CHECK(contains(violation_of(threads(32), two_barriers), "divergent barrier"));
  const auto barrier_and_vote = [] {
    if (threadIdx.x < 16) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  };
  CHECK(contains(violation_of(threads(64), barrier_and_vote), "divergent collective"));
}

TEST_CASE("a violation names the place") {
  const std::string sentence = violation_of(threads(64), [] {
    if (threadIdx.x == 40) __ballot_sync(1u, 1);
  });
  CHECK(contains(sentence, "thread (40, 0, 0), lane 8 of warp 1"));
  CHECK(contains(sentence, "test_emulation_threads.cpp:"));
}

TEST_CASE("deadlocks end with a list of who waits for what") {
  const std::string sentence = violation_of(threads(64), [] {
    if (threadIdx.x < 32) {
      named_barrier_sync(3, 64);
    } else {
      named_barrier_sync(4, 64);
    }
  });
  CHECK(contains(sentence, "deadlock"));
  CHECK(contains(sentence, "lanes 0-31 of warp 0 in bar.sync: barrier 3 has 32 of 64 threads"));
  CHECK(contains(sentence, "lanes 0-31 of warp 1 in bar.sync: barrier 4 has 32 of 64 threads"));
}

TEST_CASE("threads that exit early are not waited for by __syncthreads") {
  GlobalBuffer<int> out(64);
  for (uint64_t seed = 0; seed < 4; seed++) {
    Options options;
    options.seed = seed;
    launch(
        threads(64),
        [&] {
          if (threadIdx.x >= 40) return;
          out[threadIdx.x] = __syncthreads_count(1);
        },
        options);
    for (size_t t = 0; t < 40; t++) CHECK(out[t] == 40);
  }
}

TEST_CASE("named barriers: producers arrive, consumers sync") {
  for (uint64_t seed = 0; seed < 8; seed++) {
    GlobalBuffer<int> out(32);
    Options options;
    options.seed = seed;
    launch(
        threads(64, 128),
        [&] {
          int* shared = reinterpret_cast<int*>(shared_memory());
          const unsigned l = threadIdx.x % 32;
          int sum = 0;
          for (int round = 0; round < 5; round++) {
            if (threadIdx.x < 32) {
              if (round > 0) named_barrier_sync(2, 64);  // the consumer has read
              shared[l] = round * 100 + static_cast<int>(l);
              named_barrier_arrive(1, 64);
            } else {
              named_barrier_sync(1, 64);
              sum += shared[31 - l];
              if (round < 4) named_barrier_arrive(2, 64);
            }
          }
          if (threadIdx.x >= 32) out[l] = sum;
        },
        options);
    for (int l = 0; l < 32; l++) CHECK(out[static_cast<size_t>(l)] == 1000 + 5 * (31 - l));
  }
  CHECK(contains(violation_of(threads(64), [] { named_barrier_sync(16, 64); }), "0 to 15"));
  CHECK(contains(violation_of(threads(64), [] { named_barrier_sync(1, 33); }), "multiple of 32"));
  CHECK(contains(violation_of(threads(64), [] { named_barrier_sync(1, 128); }), "the block has 64"));
  CHECK(contains(violation_of(threads(64), [] { named_barrier_sync(1, threadIdx.x < 32 ? 64 : 32); }), "is used with"));
  CHECK(contains(violation_of(threads(64),
                              [] {
                                named_barrier_arrive(1, 64);
                                named_barrier_arrive(1, 64);
                              }),
                 "already arrived"));
}

TEST_CASE("an exception of the kernel reaches the host and leaves nothing behind") {
  CHECK_THROWS_AS(launch(threads(64),
                         [] {
                           __syncwarp();
                           if (threadIdx.x == 50) throw std::out_of_range("mine");
                           __syncthreads();
                         }),
                  std::out_of_range);
  CHECK(violation_of(threads(64), [] { __syncthreads(); }) == "");
}

TEST_CASE("a thread that polls lets the others run, and polling for nothing is a deadlock") {
  GlobalBuffer<int> flag(1);
  flag[0] = 0;
  for (uint64_t seed = 0; seed < 4; seed++) {
    flag[0] = 0;
    Options options;
    options.seed = seed;
    CHECK(violation_of(
              threads(64),
              [&] {
                if (threadIdx.x == 63) atomicExch(&flag[0], 1);
                while (atomicAdd(&flag[0], 0) == 0) {
                }
              },
              options) == "");
  }
  flag[0] = 0;
  const std::string sentence = violation_of(threads(32), [&] {
    while (polled_load("ld.acquire", &flag[0]) == 0) {
    }
  });
  CHECK(contains(sentence, "deadlock"));
  CHECK(contains(sentence, "in ld.acquire"));
}

TEST_CASE("of a grid too large to wait for, the last blocks run") {
  Config config = threads(32);
  config.grid = dim3(1000, 3);
  Options options;
  options.only_last = 2;
  std::vector<unsigned> ran;
  launch(
      config,
      [&] {
        if (threadIdx.x == 0) ran.push_back(blockIdx.y * 1000 + blockIdx.x);
      },
      options);
  CHECK(ran == std::vector<unsigned>{2998, 2999});
}

TEST_CASE("blocks on several host threads give the same as on one") {
  Config config = threads(64, 256);
  config.grid = dim3(37);
  const auto run = [&](int host_threads, int resident) {
    GlobalBuffer<int> out(37 * 64);
    Options options;
    options.seed = 5;
    options.host_threads = host_threads;
    options.resident_clusters = resident;
    const Report report = launch(
        config,
        [&] {
          int* shared = reinterpret_cast<int*>(shared_memory());
          shared[threadIdx.x] = static_cast<int>(threadIdx.x * blockIdx.x);
          __syncthreads();
          out[blockIdx.x * 64 + threadIdx.x] = shared[63 - threadIdx.x] + __reduce_add_sync(0xFFFFFFFFu, 1);
        },
        options);
    CHECK(report.instructions.at("__reduce_add_sync") == 37 * 2);
    return out.to_vector();
  };
  const std::vector<int> one = run(1, 1);
  CHECK(run(3, 1) == one);
  CHECK(run(1, 4) == one);
  CHECK(run(2, 3) == one);
}

TEST_CASE("launches that no device accepts") {
  Config config = threads(32);
  config.grid = dim3(0);
  CHECK(contains(violation_of(config, [] {}), "a size is zero"));
  CHECK(contains(violation_of(threads(1025), [] {}), "1024"));
  CHECK(contains(violation_of(threads(32, 228 << 10), [] {}), "232448"));
  Options older;
  older.capability = 80;
  CHECK(contains(violation_of(threads(32, 164 << 10), [] {}, older), "166912"));
  config = threads(32);
  config.grid = dim3(4);
  config.cluster = dim3(2);
  CHECK(contains(violation_of(config, [] {}, older), "capability 9.0"));
  config.grid = dim3(5);
  CHECK(contains(violation_of(config, [] {}), "does not divide"));
  config.cluster = dim3(16);
  CHECK(contains(violation_of(config, [] {}), "1 to 8"));
}

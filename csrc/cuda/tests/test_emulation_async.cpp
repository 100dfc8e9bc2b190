// mbarriers, bulk and tensor copies, the async proxy and clusters, with each rule broken once.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cuda/emulation/instructions/load_store.h"
#include "cuda/emulation/tensor_copy.h"
#include "emulation.h"

using namespace cuda_emulation;

namespace {

template <class T = float>
T* shared_at(size_t offset) {
  return reinterpret_cast<T*>(shared_memory() + offset);
}

std::vector<float> counting(size_t count, float first = 0) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = first + static_cast<float>(i);
  return values;
}

// Warp 0 produces stages with bulk loads, the others add them up: two stages, a full and an empty barrier each.
enum class Break { kNothing, kFullWait, kEmptyWait, kParity, kExpect, kFence, kInitBarrier };

constexpr int kSteps = 7, kStageFloats = 64;

void pipeline(const float* in, float* out, Break broken) {
  constexpr int kBarriers = 2 * kStageFloats * 4;
  uint64_t* full = shared_at<uint64_t>(kBarriers);
  uint64_t* empty = full + 2;
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; s++) {
      mbarrier_init(full + s, 1);
      mbarrier_init(empty + s, 64);
    }
    if (broken != Break::kFence) fence_mbarrier_init();
  }
  if (broken != Break::kInitBarrier) __syncthreads();
  if (threadIdx.x < 32) {
    if (threadIdx.x != 0) return;
    for (int step = 0; step < kSteps; step++) {
      const int s = step % 2;
      if (broken != Break::kEmptyWait) mbarrier_wait(empty + s, static_cast<uint32_t>(step / 2 + 1) & 1);
      if (broken != Break::kExpect) {
        mbarrier_arrive_expect_tx(full + s, kStageFloats * 4);
      } else {
        mbarrier_arrive(full + s);
      }
      bulk_load(shared_at(static_cast<size_t>(s) * kStageFloats * 4), in + step * kStageFloats, kStageFloats * 4,
                full + s);
    }
    return;
  }
  float sum = 0;
  for (int step = 0; step < kSteps; step++) {
    const int s = step % 2;
    const uint32_t parity = static_cast<uint32_t>(step / 2) & 1;
    if (broken != Break::kFullWait) mbarrier_wait(full + s, broken == Break::kParity ? parity ^ 1 : parity);
    sum += shared_at(static_cast<size_t>(s) * kStageFloats * 4)[threadIdx.x - 32];
    mbarrier_arrive(empty + s);
  }
  out[threadIdx.x - 32] = sum;
}

std::string pipeline_outcome(Break broken, const Options& options) {
  const GlobalBuffer<float> in(counting(kSteps * kStageFloats));
  GlobalBuffer<float> out(kStageFloats);
  const std::string sentence =
      violation_of(threads(96, 1024), [&] { pipeline(in.data(), out.data(), broken); }, options);
  if (!sentence.empty()) return sentence;
  for (size_t i = 0; i < kStageFloats; i++) {
    float expected = 0;
    for (size_t step = 0; step < kSteps; step++) expected += in[step * kStageFloats + i];
    if (!(out[i] == expected)) return "wrong sum";
  }
  return "";
}

}  // namespace

TEST_CASE("a producer with bulk loads and consumers, at every moment") {
  for (const Options& options : adversaries(90, 5)) CHECK(pipeline_outcome(Break::kNothing, options) == "");
}

TEST_CASE("the pipeline with one rule broken is caught") {
  const auto caught = [](Break broken, const char* sentence) {
    int count = 0;
    for (const Options& options : adversaries(90, 4)) {
      const std::string outcome = pipeline_outcome(broken, options);
      count += !outcome.empty();
      if (sentence != nullptr) {
        CAPTURE(outcome);
        CHECK(contains(outcome, sentence));
      }
    }
    return count;
  };
  CHECK(caught(Break::kFullWait, nullptr) == 12);
  CHECK(caught(Break::kEmptyWait, nullptr) >= 8);
  CHECK(caught(Break::kParity, nullptr) == 12);
  CHECK(caught(Break::kExpect, nullptr) >= 8);
  CHECK(caught(Break::kFence, "without a fence") == 12);
  CHECK(caught(Break::kInitBarrier, nullptr) >= 4);
  // On a device without the instructions.
  Options older;
  older.capability = 80;
  CHECK(contains(pipeline_outcome(Break::kNothing, older), "needs a device of capability 9.0"));
}

TEST_CASE("what mbarriers refuse") {
  const auto sentence = [](void (*kernel)(uint64_t*)) {
    return violation_of(threads(1, 64), [=] { kernel(shared_at<uint64_t>(0)); });
  };
  CHECK(contains(sentence([](uint64_t* b) { mbarrier_arrive(b); }), "no initialised mbarrier"));
  CHECK(contains(sentence([](uint64_t* b) { mbarrier_init(b, 0); }), "a count of 0"));
  CHECK(contains(sentence([](uint64_t* b) {
                   mbarrier_init(b, 1);
                   mbarrier_init(b, 1);
                 }),
                 "exists already"));
  CHECK(contains(sentence([](uint64_t* b) {
                   mbarrier_init(b, 1);
                   *b = 0;
                   mbarrier_arrive(b);
                 }),
                 "was overwritten"));
  CHECK(contains(sentence([](uint64_t* b) {
                   mbarrier_init(b, 2);
                   mbarrier_arrive(b, 3);
                 }),
                 "3 arrivals"));
  CHECK(contains(sentence([](uint64_t* b) {
                   mbarrier_init(b, 1);
                   mbarrier_expect_tx(b, 1 << 20);
                 }),
                 "2^20 - 1"));
  CHECK(contains(sentence([](uint64_t* b) {
                   mbarrier_init(b, 1);
                   mbarrier_try_wait(b, 2);
                 }),
                 "parity 2"));
  CHECK(contains(
      sentence([](uint64_t* b) { mbarrier_init(reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(b) + 4), 1); }),
      "not a multiple of 8"));
  const std::string deadlock = sentence([](uint64_t* b) {
    mbarrier_init(b, 2);
    mbarrier_arrive_expect_tx(b, 48);
    mbarrier_wait(b, 0);
  });
  CHECK(contains(deadlock, "deadlock"));
  CHECK(contains(deadlock, "waits for 1 of 2 arrivals and 48 bytes"));
}

TEST_CASE("a wait that misses a phase hangs, as it does on a device") {
  // The waiter asks for phase 0; where it does not look in time, phases 0 and 1 have both ended.
  int hung = 0;
  for (uint64_t seed = 0; seed < 12; seed++) {
    Options options;
    options.seed = seed;
    hung += contains(violation_of(
                         threads(64, 64),
                         [] {
                           uint64_t* b = shared_at<uint64_t>(0);
                           if (threadIdx.x == 0) mbarrier_init(b, 1);
                           __syncthreads();
                           if (threadIdx.x == 0) {
                             mbarrier_arrive(b);
                             mbarrier_arrive(b);
                           }
                           if (threadIdx.x == 32) mbarrier_wait(b, 0);
                         },
                         options),
                     "deadlock");
  }
  CHECK(hung >= 3);
}

TEST_CASE("cp.async arrives at an mbarrier when its copies are done") {
  const auto right = [](bool wait, const Options& options) {
    const GlobalBuffer<float> in(counting(32 * 4));
    GlobalBuffer<float> out(32);
    const std::string sentence = violation_of(
        threads(64, 1024),
        [&, wait] {
          uint64_t* b = shared_at<uint64_t>(512);
          if (threadIdx.x == 0) mbarrier_init(b, 32);
          __syncthreads();
          if (threadIdx.x < 32) {
            cp_async(shared_at(16 * threadIdx.x), in.data() + 4 * threadIdx.x, 16);
            cp_async_mbarrier_arrive_noinc(b);
          } else {
            if (wait) mbarrier_wait(b, 0);
            out[threadIdx.x - 32] = shared_at(0)[4 * (63 - threadIdx.x) + 2];
          }
        },
        options);
    if (!sentence.empty()) return false;
    for (size_t i = 0; i < 32; i++) {
      if (!(out[i] == in[4 * (31 - i) + 2])) return false;
    }
    return true;
  };
  int caught = 0;
  for (const Options& options : adversaries(80)) {
    CHECK(right(true, options));
    caught += !right(false, options);
  }
  CHECK(caught >= 5);
}

TEST_CASE("bulk stores need the proxy fence, a barrier, and a wait") {
  enum Missing { kNone, kFence, kOwnFenceOnly, kBarrier, kWaitRead, kWait };
  const auto outcome = [](Missing missing, const Options& options) -> std::string {
    GlobalBuffer<float> out(64), second(64);
    const std::string sentence = violation_of(
        threads(64, 256),
        [&, missing] {
          shared_at(0)[threadIdx.x] = static_cast<float>(threadIdx.x);
          if (missing != kFence && (missing != kOwnFenceOnly || threadIdx.x == 0)) fence_proxy_async();
          if (missing != kBarrier) __syncthreads();
          if (threadIdx.x == 0) {
            bulk_store(out.data(), shared_at(0), 256);
            bulk_commit();
            if (missing != kWaitRead && missing != kWait) bulk_wait_read(0);
            if (missing != kWait) {
              for (int i = 0; i < 64; i++) shared_at(0)[i] = static_cast<float>(-i);
              fence_proxy_async();
              bulk_store(second.data(), shared_at(0), 256);
              bulk_commit();
              bulk_wait(0);
            }
          }
        },
        options);
    if (!sentence.empty()) return sentence;
    for (size_t i = 0; i < 64; i++) {
      if (!(out[i] == static_cast<float>(i))) return "wrong";
      if (missing != kWait && !(second[i] == -static_cast<float>(i))) return "wrong";
    }
    return "";
  };
  int fence = 0, own_fence = 0, barrier = 0, wait_read = 0, wait = 0;
  for (const Options& options : adversaries(90, 4)) {
    CHECK(outcome(kNone, options) == "");
    fence += contains(outcome(kFence, options), "no fence.proxy.async");
    own_fence += contains(outcome(kOwnFenceOnly, options), "no fence.proxy.async");
    barrier += !outcome(kBarrier, options).empty();
    wait_read += outcome(kWaitRead, options) != "";
    wait += contains(outcome(kWait, options), "exits without waiting");
  }
  CHECK(fence == 12);
  CHECK(own_fence >= 3);
  CHECK(barrier >= 3);
  CHECK(wait_read >= 4);
  CHECK(wait >= 4);
}

TEST_CASE("what a thread wrote needs that thread's own fence, after the write, whoever fences besides") {
  // 32 threads write, thread 32 stores the result by a bulk copy.
  enum Fence { kWriters, kReader, kOneWriter, kBeforeTheWrite, kBeforeTheWait, kNoWait };
  const auto outcome = [](bool copies, Fence fence, const Options& options) -> std::string {
    const GlobalBuffer<float> in(counting(128));
    GlobalBuffer<float> out(128);
    const std::string sentence = violation_of(
        threads(64, 1024),
        [&, copies, fence] {
          uint64_t* b = shared_at<uint64_t>(512);
          if (threadIdx.x == 0) mbarrier_init(b, 32);
          __syncthreads();
          if (threadIdx.x < 32) {
            if (fence == kBeforeTheWrite) fence_proxy_async_shared();
            if (copies) {
              cp_async(shared_at(16 * threadIdx.x), in.data() + 4 * threadIdx.x, 16);
              cp_async_commit();
              if (fence == kBeforeTheWait) fence_proxy_async_shared();
              if (fence == kNoWait) {
                fence_proxy_async_shared();
                cp_async_mbarrier_arrive_noinc(b);
                return;
              }
              cp_async_wait(0);
            } else {
              store_shared(shared_at(16 * threadIdx.x), reinterpret_cast<const uint4*>(in.data())[threadIdx.x], "st");
            }
            if (fence == kWriters || (fence == kOneWriter && threadIdx.x != 7)) fence_proxy_async_shared();
            mbarrier_arrive(b);
          } else if (threadIdx.x == 32) {
            mbarrier_wait(b, 0);
            if (fence != kWriters) fence_proxy_async_shared();
            bulk_store(out.data(), shared_at(0), 512);
            bulk_commit();
            bulk_wait(0);
          }
        },
        options);
    if (!sentence.empty()) return sentence;
    return std::equal(in.begin(), in.end(), out.begin()) ? "" : "wrong";
  };
  for (const Options& options : adversaries(90, 4)) {
    for (const bool copies : {false, true}) {
      CHECK(outcome(copies, kWriters, options) == "");
      CHECK(contains(outcome(copies, kReader, options), "no fence.proxy.async of that thread came after the write"));
      CHECK(contains(outcome(copies, kOneWriter, options), "thread 7 of block 0"));
      CHECK(contains(outcome(copies, kBeforeTheWrite, options), "no fence.proxy.async of that thread"));
    }
    CHECK(contains(outcome(true, kBeforeTheWait, options), "no fence.proxy.async of that thread"));
    CHECK(contains(outcome(true, kNoWait, options), "a cp.async that its thread has not waited for"));
  }
}

TEST_CASE("a bulk load over what a thread wrote needs its fence as well") {
  const auto outcome = [](bool fence) {
    const GlobalBuffer<float> in(counting(4));
    return violation_of(threads(32, 64), [&, fence] {
      uint64_t* b = shared_at<uint64_t>(32);
      if (threadIdx.x == 0) {
        mbarrier_init(b, 1);
        fence_mbarrier_init();
        store_shared(shared_at(0), 1.0f, "st");
        if (fence) fence_proxy_async_shared();
        mbarrier_arrive_expect_tx(b, 16);
        bulk_load(shared_at(0), in.data(), 16, b);
      }
      __syncthreads();
      mbarrier_wait(b, 0);
    });
  };
  CHECK(outcome(true) == "");
  CHECK(contains(outcome(false), "overwrites shared offset 0"));
}

TEST_CASE("bulk reduction adds once per block") {
  for (const Options& options : adversaries(90)) {
    GlobalBuffer<float> sum(32);
    std::fill(sum.begin(), sum.end(), 1.0f);
    Config config = threads(32, 128);
    config.grid = dim3(5);
    launch(
        config,
        [&] {
          shared_at(0)[threadIdx.x] = static_cast<float>(threadIdx.x);
          fence_proxy_async();
          __syncthreads();
          if (threadIdx.x == 0) {
            bulk_add_float(sum.data(), shared_at(0), 128);
            bulk_commit();
            bulk_wait(0);
          }
        },
        options);
    for (size_t i = 0; i < 32; i++) CHECK(sum[i] == 1 + 5 * static_cast<float>(i));
  }
}

namespace {

// Loads one box of a tensor of shorts counting up, and returns shared memory.
std::vector<uint16_t> loaded_box(const TensorShape& shape, const std::vector<int32_t>& at, size_t elements,
                                 const Options& options) {
  std::vector<uint16_t> result(elements);
  const TensorMap map = encode_tensor_map(shape);
  launch(
      threads(32, 2 * elements + 16),
      [&] {
        uint64_t* b = shared_at<uint64_t>(2 * elements);
        if (threadIdx.x == 0) {
          mbarrier_init(b, 1);
          fence_mbarrier_init();
          mbarrier_arrive_expect_tx(b, static_cast<uint32_t>(2 * elements));
          tensor_load(shared_at(0), &map, at.data(), static_cast<int>(at.size()), b);
        }
        __syncthreads();
        mbarrier_wait(b, 0);
        if (threadIdx.x == 0) std::memcpy(result.data(), shared_memory(), 2 * elements);
      },
      options);
  return result;
}

TensorShape shorts(GlobalBuffer<uint16_t>& tensor, std::vector<uint64_t> sizes, std::vector<uint32_t> box,
                   int swizzle) {
  TensorShape shape;
  shape.address = tensor.data();
  shape.element = TensorElement::kBf16;
  shape.rank = static_cast<int>(sizes.size());
  uint64_t stride = 2;
  for (size_t d = 0; d < sizes.size(); d++) {
    shape.sizes[d] = sizes[d];
    shape.strides[d] = stride;
    shape.box[d] = box[d];
    stride = (stride * sizes[d] + 15) / 16 * 16;
  }
  shape.swizzle_bytes = swizzle;
  return shape;
}

}  // namespace

TEST_CASE("tensor loads: one to four dimensions, swizzles, and zeros outside") {
  // Sizes that boxes overhang on both sides; the innermost 20 is padded to a pitch of 24.
  const std::vector<uint64_t> sizes{20, 7, 3, 2};
  GlobalBuffer<uint16_t> tensor(24 * 7 * 3 * 2);
  for (size_t i = 0; i < tensor.size(); i++) tensor[i] = static_cast<uint16_t>(i + 1);
  struct Case {
    int rank, swizzle;
    std::vector<uint32_t> box;
    std::vector<int32_t> at;
  };
  const std::vector<Case> cases{{1, 0, {8}, {4}},
                                {1, 0, {16}, {-3}},
                                {2, 0, {8, 4}, {16, 5}},
                                {2, 128, {64, 8}, {-5, -1}},
                                {2, 64, {32, 16}, {0, 0}},
                                {2, 32, {16, 32}, {3, -30}},
                                {3, 64, {32, 4, 2}, {2, 1, 2}},
                                {4, 128, {64, 2, 2, 2}, {1, 0, -1, 1}},
                                {4, 0, {8, 1, 3, 2}, {0, 6, 0, 0}},
                                {2, 0, {8, 2}, {100, 0}}};
  for (const Case& c : cases) {
    const size_t rank = static_cast<size_t>(c.rank);
    const std::vector<uint64_t> part(sizes.begin(), sizes.begin() + c.rank);
    const TensorShape shape = shorts(tensor, part, c.box, c.swizzle);
    size_t elements = 1;
    for (uint32_t extent : c.box) elements *= extent;
    for (const Options& options : adversaries(90, 2)) {
      const std::vector<uint16_t> box = loaded_box(shape, c.at, elements, options);
      int wrong = 0;
      for (size_t i = 0; i < elements; i++) {
        size_t rest = i, address = 0;
        bool inside = true;
        for (size_t d = 0; d < rank; d++) {
          const int64_t index = c.at[d] + static_cast<int64_t>(rest % c.box[d]);
          rest /= c.box[d];
          inside = inside && index >= 0 && index < static_cast<int64_t>(sizes[d]);
          if (inside) address += static_cast<size_t>(index) * (d == 0 ? 1 : shape.strides[d] / 2);
        }
        // Where the swizzle puts byte 2i: chunk c of row r at chunk c ^ (r mod 8), written out per span.
        size_t byte = 2 * i;
        if (c.swizzle == 128) byte = byte / 128 * 128 + ((byte % 128 / 16) ^ (byte / 128 % 8)) * 16 + byte % 16;
        if (c.swizzle == 64) byte = byte / 64 * 64 + ((byte % 64 / 16) ^ (byte / 128 % 4)) * 16 + byte % 16;
        if (c.swizzle == 32) byte = byte / 32 * 32 + ((byte % 32 / 16) ^ (byte / 128 % 2)) * 16 + byte % 16;
        wrong += box[byte / 2] != (inside ? tensor[address] : 0);
      }
      CAPTURE(c.rank);
      CAPTURE(c.swizzle);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("tensor stores write what is inside and nothing else, tensor reductions add it") {
  for (const bool add : {false, true}) {
    for (const int swizzle : {0, 64}) {
      GlobalBuffer<uint16_t> tensor(24 * 5);
      std::fill(tensor.begin(), tensor.end(), uint16_t{0x4000});  // 2 in bfloat16
      const TensorShape shape = shorts(tensor, {20, 5}, {32, 4}, swizzle);
      const TensorMap map = encode_tensor_map(shape);
      for (const Options& options : adversaries(90, 1)) {
        std::fill(tensor.begin(), tensor.end(), uint16_t{0x4000});
        launch(
            threads(32, 256),
            [&] {
              for (int r = 0; r < 4; r++) shared_at<uint16_t>(0)[r * 32 + static_cast<int>(threadIdx.x)] = 0x3F80;  // 1
              fence_proxy_async();
              __syncthreads();
              const int32_t at[2] = {-4, 3};
              if (threadIdx.x == 0) {
                if (add) {
                  tensor_add(&map, at, 2, shared_at(0));
                } else {
                  tensor_store(&map, at, 2, shared_at(0));
                }
                bulk_commit();
                bulk_wait(0);
              }
            },
            options);
        int wrong = 0;
        for (size_t r = 0; r < 5; r++) {
          for (size_t c = 0; c < 24; c++) {
            const uint16_t inside = add ? 0x4040 : 0x3F80;  // 3, 1
            wrong += tensor[r * 24 + c] != (r >= 3 && c < 20 ? inside : 0x4000);
          }
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("what tensor maps and copies refuse") {
  GlobalBuffer<uint16_t> tensor(64 * 8);
  const auto refusal = [](const TensorShape& shape) -> std::string {
    try {
      encode_tensor_map(shape);
      return "";
    } catch (const Violation& violation) {
      return violation.what();
    }
  };
  CHECK(refusal(shorts(tensor, {64, 8}, {64, 8}, 128)) == "");
  CHECK(contains(refusal(shorts(tensor, {64, 8}, {64, 8}, 64)), "exceeds the swizzle's span"));
  CHECK(contains(refusal(shorts(tensor, {64, 8}, {4, 8}, 0)), "multiple of 16 bytes"));
  CHECK(contains(refusal(shorts(tensor, {64, 8}, {8, 257}, 0)), "1 to 256"));
  TensorShape shape = shorts(tensor, {64, 8}, {8, 8}, 0);
  shape.strides[1] = 120;
  CHECK(contains(refusal(shape), "multiple of 16 bytes and below"));
  shape.strides[1] = 112;
  CHECK(contains(refusal(shape), "no less than the bytes"));
  shape = shorts(tensor, {64, 8}, {8, 8}, 0);
  shape.address = tensor.data() + 1;
  CHECK(contains(refusal(shape), "not a multiple of 16"));

  const TensorMap map = encode_tensor_map(shorts(tensor, {64, 8}, {64, 8}, 128));
  const auto load_at = [&](size_t offset, int rank, size_t shared_bytes, const TensorMap& used) {
    return violation_of(threads(1, shared_bytes), [&, offset, rank] {
      uint64_t* b = shared_at<uint64_t>(0);
      mbarrier_init(b, 1);
      fence_mbarrier_init();
      mbarrier_arrive_expect_tx(b, 1024);
      const int32_t at[3] = {0, 0, 0};
      tensor_load(shared_at(offset), &used, at, rank, b);
      mbarrier_wait(b, 0);
    });
  };
  CHECK(load_at(1024, 2, 2048, map) == "");
  CHECK(contains(load_at(1040, 2, 3072, map), "not a multiple of 128"));
  CHECK(contains(load_at(1024, 2, 2032, map), "outside of the block's"));
  CHECK(contains(load_at(1024, 3, 2048, map), "3 coordinates"));
  CHECK(contains(load_at(1024, 2, 2048, TensorMap{}), "not a tensor map"));
  CHECK(contains(load_at(0, 2, 2048, map), "was overwritten"));
  const auto run = [&](uint32_t bytes, int misplaced) {
    return violation_of(threads(1, 2048), [&, bytes, misplaced] {
      uint64_t* b = shared_at<uint64_t>(0);
      mbarrier_init(b, 1);
      fence_mbarrier_init();
      mbarrier_arrive_expect_tx(b, bytes);
      bulk_load(shared_at(1024), reinterpret_cast<char*>(tensor.data()) + misplaced, bytes, b);
      mbarrier_wait(b, 0);
    });
  };
  CHECK(run(64, 0) == "");
  CHECK(contains(run(40, 0), "not a multiple of 16"));
  CHECK(contains(run(64, 8), "not a multiple of 16"));
  CHECK(contains(run(64, 1008), "outside of a global buffer"));
  CHECK(contains(violation_of(threads(1, 2048),
                              [&] {
                                uint64_t* b = shared_at<uint64_t>(0);
                                mbarrier_init(b, 1);
                                fence_mbarrier_init();
                                bulk_load(shared_at(1024), tensor.data(), 64, b);
                              }),
                 "still under way"));
}

namespace {

Config clusters(unsigned blocks, unsigned in_cluster, unsigned block_threads, size_t shared_bytes) {
  Config config = threads(block_threads, shared_bytes);
  config.grid = dim3(blocks);
  config.cluster = dim3(in_cluster);
  return config;
}

}  // namespace

TEST_CASE("clusters: ranks, shared memory of other blocks, and the barriers it needs") {
  enum Missing { kNone, kFirst, kLast };
  const auto outcome = [](Missing missing, uint64_t seed) -> std::string {
    GlobalBuffer<int> out(8 * 32);
    Options options;
    options.seed = seed;
    const std::string sentence = violation_of(
        clusters(8, 4, 32, 128),
        [&, missing] {
          shared_at<int>(0)[threadIdx.x] = static_cast<int>(100 * blockIdx.x + threadIdx.x);
          if (missing != kFirst) cluster_sync();
          const uint32_t other = (cluster_block_rank() + 1) % cluster_blocks();
          const int* theirs = static_cast<const int*>(map_shared_rank(shared_memory(), other));
          check_shared_cluster(theirs + threadIdx.x, 4, 4, "ld.shared::cluster");
          out[blockIdx.x * 32 + threadIdx.x] = theirs[threadIdx.x];
          if (missing != kLast) cluster_sync();
        },
        options);
    if (!sentence.empty()) return sentence;
    for (size_t i = 0; i < out.size(); i++) {
      const size_t block = i / 32, other = block / 4 * 4 + (block + 1) % 4;
      if (out[i] != static_cast<int>(100 * other + i % 32)) return "wrong";
    }
    return "";
  };
  int first = 0, last = 0;
  for (uint64_t seed = 0; seed < 6; seed++) {
    CHECK(outcome(kNone, seed) == "");
    first += contains(outcome(kFirst, seed), "may not have started");
    last += contains(outcome(kLast, seed), "has exited");
  }
  CHECK(first == 6);
  CHECK(last == 6);
  CHECK(contains(violation_of(clusters(2, 2, 32, 0),
                              [] {
                                cluster_arrive();
                                cluster_arrive();
                              }),
                 "has arrived and not waited"));
  CHECK(contains(violation_of(clusters(2, 2, 32, 0), [] { cluster_wait(); }), "has not arrived"));
  const auto two_places = [] {
    if (threadIdx.x == 0) {
      keep_apart();
      cluster_sync();
      keep_apart();
    } else {
      cluster_sync();
    }
  };
  CHECK(contains(violation_of(clusters(2, 2, 64, 0), two_places), "divergent collective"));
  CHECK(contains(violation_of(clusters(2, 2, 64, 0),
                              [] {
                                if (threadIdx.x != 40) cluster_sync();
                              }),
                 "exit"));
  CHECK(violation_of(clusters(2, 2, 48, 0), [] { cluster_sync(); }) == "");
}

TEST_CASE("multicast loads and arrivals at another block's barrier") {
  for (const bool fenced : {true, false}) {
    for (const Options& options : adversaries(90)) {
      const GlobalBuffer<float> in(counting(2 * 32));
      GlobalBuffer<float> out(2 * 64);
      const std::string sentence = violation_of(
          clusters(2, 2, 32, 512),
          [&, fenced] {
            // Each block loads its half for both; each waits for both halves, and tells the other that it has read.
            uint64_t* full = shared_at<uint64_t>(256);
            uint64_t* read = full + 1;
            const uint32_t rank = cluster_block_rank();
            if (threadIdx.x == 0) {
              mbarrier_init(full, 1);
              mbarrier_init(read, 2);
              if (fenced) fence_mbarrier_init();
            }
            cluster_sync();
            if (threadIdx.x == 0) {
              mbarrier_arrive_expect_tx(full, 256);
              bulk_load_multicast(shared_at(128 * rank), in.data() + 32 * rank, 128, full, 3);
            }
            mbarrier_wait(full, 0);
            out[64 * rank + threadIdx.x] = shared_at(0)[threadIdx.x];
            out[64 * rank + 32 + threadIdx.x] = shared_at(128)[threadIdx.x];
            __syncwarp();
            if (threadIdx.x < 2) mbarrier_arrive(static_cast<uint64_t*>(map_shared_rank(read, threadIdx.x)));
            mbarrier_wait(read, 0);
            cluster_sync();
          },
          options);
      if (!fenced) {
        CHECK(contains(sentence, "fence"));
        continue;
      }
      CHECK(sentence == "");
      for (size_t i = 0; i < 128; i++) CHECK(out[i] == in[i % 64]);
    }
  }
}

TEST_CASE("copies from block to block") {
  for (const Options& options : adversaries(90, 2)) {
    GlobalBuffer<float> out(64);
    CHECK(violation_of(
              clusters(2, 2, 32, 512),
              [&] {
                uint64_t* arrived = shared_at<uint64_t>(256);
                const uint32_t other = 1 - cluster_block_rank();
                if (threadIdx.x == 0) {
                  mbarrier_init(arrived, 1);
                  fence_mbarrier_init();
                }
                shared_at(0)[threadIdx.x] = static_cast<float>(100 * cluster_block_rank() + threadIdx.x);
                fence_proxy_async();
                cluster_sync();
                if (threadIdx.x == 0) {
                  mbarrier_arrive_expect_tx(arrived, 128);
                  bulk_copy_to_block(map_shared_rank(shared_offset(shared_at(128)), other), shared_at(0), 128,
                                     map_shared_rank(shared_offset(arrived), other));
                }
                mbarrier_wait(arrived, 0);
                out[32 * cluster_block_rank() + threadIdx.x] = shared_at(128)[threadIdx.x];
                cluster_sync();
              },
              options) == "");
    for (size_t i = 0; i < 64; i++) CHECK(out[i] == static_cast<float>(100 * (1 - i / 32) + i % 32));
  }
  const auto to_itself = [] {
    uint64_t* arrived = shared_at<uint64_t>(256);
    if (threadIdx.x == 0) {
      mbarrier_init(arrived, 1);
      fence_mbarrier_init();
      mbarrier_arrive_expect_tx(arrived, 128);
      const uint32_t own = cluster_block_rank();
      bulk_copy_to_block(map_shared_rank(shared_offset(shared_at(128)), own), shared_at(0), 128,
                         map_shared_rank(shared_offset(arrived), own));
    }
  };
  CHECK(contains(violation_of(clusters(2, 2, 32, 512), to_itself), "in the block that copies"));
}

TEST_CASE("warpgroups: register counts") {
  const auto split = [](int producer, int consumer) {
    return violation_of(threads(384), [=] {
      if (threadIdx.x < 128) {
        set_max_registers(producer, false);
      } else {
        set_max_registers(consumer, true);
      }
    });
  };
  // The block has 3 x 168 for a thread of each warpgroup.
  CHECK(split(24, 240) == "");
  CHECK(contains(split(40, 248), "setmaxnreg.inc: the warpgroup has 168 registers of 248"));
  CHECK(contains(split(48, 232), "setmaxnreg.inc: the warpgroup has 168 registers of 232"));
  CHECK(contains(split(176, 168), "setmaxnreg.dec: the warpgroup has 168 registers, and 176 are more"));
  CHECK(contains(split(40, 160), "setmaxnreg.inc: the warpgroup has 168 registers, and 160 are fewer"));
  CHECK(contains(split(20, 240), "multiple of 8"));
  // Registers are taken when another warpgroup has given them back, and not before.
  for (const Options& options : adversaries(90)) {
    GlobalBuffer<int> given(std::vector<int>{0}), seen(1);
    CHECK(violation_of(
              threads(384),
              [&] {
                if (threadIdx.x < 128) {
                  if (threadIdx.x == 0) given[0] = 1;
                  set_max_registers(104, false);
                } else if (threadIdx.x < 256) {
                  set_max_registers(232, true);
                  if (threadIdx.x == 128) seen[0] = given[0];
                }
              },
              options) == "");
    CHECK(seen[0] == 1);
  }
  CHECK(contains(violation_of(threads(96), [] { set_max_registers(24, false); }), "needs four warps"));
  CHECK(contains(violation_of(threads(128),
                              [] {
                                if (threadIdx.x >= 32) set_max_registers(24, false);
                              }),
                 "exit"));
  Options older;
  older.capability = 80;
  CHECK(contains(violation_of(threads(128), [] { set_max_registers(24, false); }, older), "capability 9.0"));
}

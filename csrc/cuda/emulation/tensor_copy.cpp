#include "tensor_copy.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "instructions/number_formats.h"
#include "machine.h"
#include "mbarrier.h"

namespace cuda_emulation {
namespace {

constexpr uint32_t kMark = 0x54454e53;

// What the 128 bytes hold.
struct Encoded {
  uint64_t address;
  uint64_t strides[kTensorRank - 1];
  uint32_t last_index[kTensorRank];
  uint32_t box[kTensorRank];
  uint8_t rank, element, swizzle_bytes, outside_is_nan;
  uint32_t mark;
};
static_assert(sizeof(Encoded) <= sizeof(TensorMap));

TensorMap encode(const TensorShape& shape) {
  Encoded encoded{};
  encoded.address = reinterpret_cast<uintptr_t>(shape.address);
  for (int d = 0; d < shape.rank; d++) {
    if (d > 0) encoded.strides[d - 1] = shape.strides[d];
    encoded.last_index[d] = static_cast<uint32_t>(shape.sizes[d] - 1);
    encoded.box[d] = shape.box[d];
  }
  encoded.rank = static_cast<uint8_t>(shape.rank);
  encoded.element = static_cast<uint8_t>(shape.element);
  encoded.swizzle_bytes = static_cast<uint8_t>(shape.swizzle_bytes);
  encoded.outside_is_nan = shape.outside_is_nan;
  encoded.mark = kMark;
  TensorMap map{};
  std::memcpy(map.bytes, &encoded, sizeof encoded);
  return map;
}

TensorShape decoded(const TensorMap* map, int rank, const char* instruction) {
  if (reinterpret_cast<uintptr_t>(map) % 64 != 0)
    violation("%s: the tensor map is not aligned to 64 bytes", instruction);
  Encoded encoded;
  std::memcpy(&encoded, map->bytes, sizeof encoded);
  if (encoded.mark != kMark) violation("%s: these bytes are not a tensor map", instruction);
  if (encoded.rank != rank) {
    violation("%s: %d coordinates for a tensor map of %d dimensions", instruction, rank, encoded.rank);
  }
  TensorShape shape;
  shape.address = reinterpret_cast<void*>(encoded.address);
  shape.element = static_cast<TensorElement>(encoded.element);
  shape.rank = rank;
  for (int d = 0; d < rank; d++) {
    if (d > 0) shape.strides[d] = encoded.strides[d - 1];
    shape.sizes[d] = uint64_t{encoded.last_index[d]} + 1;
    shape.box[d] = encoded.box[d];
  }
  shape.swizzle_bytes = encoded.swizzle_bytes;
  shape.outside_is_nan = encoded.outside_is_nan != 0;
  return shape;
}

size_t box_bytes(const TensorShape& shape) {
  size_t bytes = static_cast<size_t>(bytes_of(shape.element));
  for (int d = 0; d < shape.rank; d++) bytes *= shape.box[d];
  return bytes;
}

// One element or chunk of a row at a time: where a box and the tensor lie, and which part of a row is inside.
struct Row {
  std::byte* global;   // of the row's first element that is inside, if any is
  size_t box_offset;   // bytes from the start of the box, before the swizzle, of the row
  size_t inside_from;  // bytes of the row
  size_t inside_to;
};

std::vector<Row> rows_of_box(const TensorShape& shape, const int32_t* at) {
  const size_t element = static_cast<size_t>(bytes_of(shape.element));
  const size_t row_bytes = shape.box[0] * element;
  size_t count = 1;
  for (int d = 1; d < shape.rank; d++) count *= shape.box[d];
  const int64_t first = at[0], last = first + shape.box[0];
  const int64_t from = std::min(std::max<int64_t>(-first, 0), static_cast<int64_t>(shape.box[0]));
  const int64_t to =
      static_cast<int64_t>(shape.box[0]) -
      std::min(std::max<int64_t>(last - static_cast<int64_t>(shape.sizes[0]), 0), static_cast<int64_t>(shape.box[0]));
  std::vector<Row> rows(count);
  for (size_t r = 0; r < count; r++) {
    bool inside = from < to;
    std::byte* global = static_cast<std::byte*>(shape.address);
    size_t rest = r;
    for (int d = 1; d < shape.rank; d++) {
      const int64_t index = at[d] + static_cast<int64_t>(rest % shape.box[d]);
      rest /= shape.box[d];
      inside = inside && index >= 0 && index < static_cast<int64_t>(shape.sizes[d]);
      if (inside) global += static_cast<uint64_t>(index) * shape.strides[d];
    }
    Row& row = rows[r];
    row.box_offset = r * row_bytes;
    row.inside_from = inside ? static_cast<size_t>(from) * element : 0;
    row.inside_to = inside ? static_cast<size_t>(to) * element : 0;
    row.global = inside ? global + (first + from) * static_cast<int64_t>(element) : nullptr;
  }
  return rows;
}

void check_rows(const std::vector<Row>& rows, const char* instruction) {
  for (const Row& row : rows) {
    if (row.global != nullptr) check_global(row.global, row.inside_to - row.inside_from, 1, instruction);
  }
}

uintptr_t swizzled(uintptr_t address, int swizzle_bytes) {
  if (swizzle_bytes == 0) return address;
  return address ^ ((address >> 7 & static_cast<uintptr_t>(swizzle_bytes / 16 - 1)) << 4);
}

// The box in order from its swizzled place, or to it: chunk(shared, offset in box, bytes).
void for_chunks(std::byte* shared, size_t bytes, int swizzle_bytes,
                const std::function<void(std::byte*, size_t, size_t)>& chunk) {
  if (swizzle_bytes == 0) {
    chunk(shared, 0, bytes);
    return;
  }
  const uintptr_t base = reinterpret_cast<uintptr_t>(shared);
  for (size_t offset = 0; offset < bytes; offset += 16) {
    chunk(shared + (static_cast<ptrdiff_t>(swizzled(base + offset, swizzle_bytes)) - static_cast<ptrdiff_t>(base)),
          offset, 16);
  }
}

std::vector<std::byte> gather(const TensorShape& shape, const std::vector<Row>& rows) {
  std::vector<std::byte> box(box_bytes(shape), std::byte{0});
  if (shape.outside_is_nan) {
    const size_t element = static_cast<size_t>(bytes_of(shape.element));
    for (size_t i = 0; i < box.size(); i++) box[i] = std::byte(i % element == element - 1 ? 0x7F : 0xFF);
  }
  for (const Row& row : rows) {
    if (row.global == nullptr) continue;
    std::memcpy(&box[row.box_offset + row.inside_from], row.global, row.inside_to - row.inside_from);
  }
  return box;
}

struct Target {
  std::byte* shared;
  uint64_t* barrier;
  Cta* block;
};

std::vector<Target> targets_of(void* shared, uint64_t* barrier, uint32_t blocks, const char* instruction) {
  std::vector<Target> targets;
  if (blocks == 0) violation("%s: the mask names no block", instruction);
  for (uint32_t rank = 0; rank < 16; rank++) {
    if ((blocks >> rank & 1) == 0) continue;
    std::byte* to = static_cast<std::byte*>(map_shared_rank(shared, rank));
    uint64_t* its_barrier = static_cast<uint64_t*>(map_shared_rank(barrier, rank));
    targets.push_back({to, its_barrier, cluster().ctas[rank].get()});
  }
  return targets;
}

// Checks, poisons, and hands the copy to the engine. `source` makes the bytes of the box, in order.
void load(const char* instruction, std::vector<Target> targets, size_t bytes, size_t alignment, int swizzle_bytes,
          std::function<std::vector<std::byte>()> source) {
  wave().instructions[instruction]++;
  std::vector<Cta*> into;
  for (const Target& target : targets) {
    check_shared_cluster(target.shared, bytes, alignment, instruction);
    require_visible_mbarrier(target.barrier, instruction);
    if (owner_of_shared(target.barrier) != target.block) {
      violation("%s: the destination and the mbarrier are in different blocks", instruction);
    }
    const std::vector<std::byte> poison(bytes, std::byte{kPoison});
    for_chunks(target.shared, bytes, swizzle_bytes, [&](std::byte* to, size_t offset, size_t count) {
      async_write_shared(to, &poison[offset], count, instruction);
    });
    into.push_back(target.block);
  }
  wave().engine.issue(instruction, std::move(into), [=] {
    const std::vector<std::byte> box = source();
    for (const Target& target : targets) {
      for_chunks(target.shared, bytes, swizzle_bytes, [&](std::byte* to, size_t offset, size_t count) {
        async_write_shared(to, &box[offset], count, instruction);
      });
      complete_transaction(target.barrier, bytes, instruction);
    }
  });
}

std::vector<std::byte> fetch(const void* shared, size_t bytes, int swizzle_bytes, const char* instruction) {
  std::vector<std::byte> box(bytes);
  std::byte* from = const_cast<std::byte*>(static_cast<const std::byte*>(shared));
  for_chunks(from, bytes, swizzle_bytes, [&](std::byte* chunk, size_t offset, size_t count) {
    async_read_shared(&box[offset], chunk, count, instruction);
  });
  return box;
}

void check_run(const void* shared, const void* global, uint32_t bytes, const char* instruction) {
  require_capability(90, instruction);
  if (bytes == 0 || bytes % 16 != 0) violation("%s: %u bytes, which is not a multiple of 16", instruction, bytes);
  if (shared != nullptr) check_shared(shared, bytes, 16, instruction);
  if (global != nullptr) check_global(global, bytes, 16, instruction);
}

TensorShape check_box(const TensorMap* map, int rank, const void* shared, const char* instruction) {
  require_capability(90, instruction);
  const TensorShape shape = decoded(map, rank, instruction);
  check_shared(shared, box_bytes(shape), 128, instruction);
  return shape;
}

void add_float(float* to, float value) {
  std::atomic_ref<float> sum(*to);
  sum.fetch_add(value);
}

template <class Format>
void add_short(std::byte* to, const std::byte* from) {
  std::atomic_ref<uint16_t> bits(*reinterpret_cast<uint16_t*>(to));
  uint16_t value;
  std::memcpy(&value, from, sizeof value);
  uint16_t before = bits.load();
  while (!bits.compare_exchange_weak(
      before, static_cast<uint16_t>(Format::encode(Format::decode(before) + Format::decode(value))))) {
  }
}

void add_element(TensorElement element, std::byte* to, const std::byte* from) {
  switch (element) {
    case TensorElement::kFloat32: {
      float value;
      std::memcpy(&value, from, sizeof value);
      return add_float(reinterpret_cast<float*>(to), value);
    }
    case TensorElement::kInt32: {
      int32_t value;
      std::memcpy(&value, from, sizeof value);
      std::atomic_ref<int32_t>(*reinterpret_cast<int32_t*>(to)).fetch_add(value);
      return;
    }
    case TensorElement::kBf16: return add_short<Bf16>(to, from);
    case TensorElement::kFp16: return add_short<Fp16>(to, from);
    case TensorElement::kInt8: violation("cp.reduce.async.bulk.tensor: there is no addition of 8-bit elements");
  }
}

}  // namespace

TensorMap encode_tensor_map(const TensorShape& shape) {
  const auto refuse = [](const std::string& rule) { throw Violation("tensor map: " + rule); };
  const size_t element = static_cast<size_t>(bytes_of(shape.element));
  if (shape.rank < 1 || shape.rank > kTensorRank) refuse("a tensor has 1 to 5 dimensions");
  if (shape.address == nullptr || reinterpret_cast<uintptr_t>(shape.address) % 16 != 0) {
    refuse("the address is null or not a multiple of 16");
  }
  for (int d = 0; d < shape.rank; d++) {
    if (shape.sizes[d] == 0 || shape.sizes[d] > uint64_t{1} << 32) refuse("a size is 1 to 2^32");
    if (shape.box[d] == 0 || shape.box[d] > 256) refuse("a box is 1 to 256 elements along each dimension");
    if (d > 0 && (shape.strides[d] % 16 != 0 || shape.strides[d] >= uint64_t{1} << 40)) {
      refuse("a stride is a multiple of 16 bytes and below 2^40");
    }
    if (d > 0 && shape.strides[d] / shape.sizes[d - 1] < (d == 1 ? element : shape.strides[d - 1])) {
      refuse("a stride is no less than the bytes of the dimensions before it");
    }
  }
  const size_t row = shape.box[0] * element;
  if (row % 16 != 0) refuse("the innermost row of a box is a multiple of 16 bytes");
  const int swizzle = shape.swizzle_bytes;
  if (swizzle != 0 && swizzle != 32 && swizzle != 64 && swizzle != 128) refuse("a swizzle spans 32, 64 or 128 bytes");
  if (swizzle != 0 && row > static_cast<size_t>(swizzle))
    refuse("the innermost row of a box exceeds the swizzle's span");
  if (swizzle != 0 && row != static_cast<size_t>(swizzle)) {
    refuse("the emulator knows swizzled boxes only with rows of the swizzle's span");
  }
  if (shape.outside_is_nan && (shape.element == TensorElement::kInt8 || shape.element == TensorElement::kInt32)) {
    refuse("integers have no NaN to fill with");
  }
  return encode(shape);
}

void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  constexpr const char* instruction = "cp.async.bulk (load)";
  check_run(shared, global, bytes, instruction);
  load(instruction, {{static_cast<std::byte*>(shared), barrier, &cta()}}, bytes, 16, 0, [=] {
    const std::byte* from = static_cast<const std::byte*>(global);
    return std::vector<std::byte>(from, from + bytes);
  });
}

void bulk_load_multicast(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, uint16_t blocks) {
  constexpr const char* instruction = "cp.async.bulk (multicast load)";
  check_run(shared, global, bytes, instruction);
  load(instruction, targets_of(shared, barrier, blocks, instruction), bytes, 16, 0, [=] {
    const std::byte* from = static_cast<const std::byte*>(global);
    return std::vector<std::byte>(from, from + bytes);
  });
}

void bulk_copy_to_block(uint32_t destination, const void* shared, uint32_t bytes, uint32_t barrier) {
  constexpr const char* instruction = "cp.async.bulk (to a block)";
  check_run(shared, nullptr, bytes, instruction);
  std::byte* to = static_cast<std::byte*>(shared_pointer(destination));
  Cta* block = owner_of_shared(to);
  if (block == &cta()) violation("%s: the destination is in the block that copies", instruction);
  load(instruction, {{to, static_cast<uint64_t*>(shared_pointer(barrier)), block}}, bytes, 16, 0,
       [=] { return fetch(shared, bytes, 0, instruction); });
}

void bulk_store(void* global, const void* shared, uint32_t bytes) {
  constexpr const char* instruction = "cp.async.bulk (store)";
  check_run(shared, global, bytes, instruction);
  wave().instructions[instruction]++;
  std::memset(global, kPoison, bytes);
  auto box = std::make_shared<std::vector<std::byte>>();
  lane().bulk.issue(
      instruction, [=] { *box = fetch(shared, bytes, 0, instruction); },
      [=] { std::memcpy(global, box->data(), bytes); });
}

void bulk_add_float(float* global, const float* shared, uint32_t bytes) {
  constexpr const char* instruction = "cp.reduce.async.bulk.add.f32";
  check_run(shared, global, bytes, instruction);
  wave().instructions[instruction]++;
  auto box = std::make_shared<std::vector<std::byte>>();
  lane().bulk.issue(
      instruction, [=] { *box = fetch(shared, bytes, 0, instruction); },
      [=] {
        for (size_t i = 0; i < bytes / 4; i++) {
          float value;
          std::memcpy(&value, box->data() + 4 * i, 4);
          add_float(global + i, value);
        }
      });
}

namespace {

void load_box(const char* instruction, std::vector<Target> targets, const TensorShape& shape, const int32_t* at) {
  std::vector<Row> rows = rows_of_box(shape, at);
  check_rows(rows, instruction);
  load(instruction, std::move(targets), box_bytes(shape), 128, shape.swizzle_bytes,
       [shape, rows = std::move(rows)] { return gather(shape, rows); });
}

void store_box(const char* instruction, const TensorMap* map, const int32_t* at, int rank, const void* shared,
               bool add) {
  const TensorShape shape = check_box(map, rank, shared, instruction);
  wave().instructions[instruction]++;
  std::vector<Row> rows = rows_of_box(shape, at);
  check_rows(rows, instruction);
  if (!add) {
    for (const Row& row : rows) {
      if (row.global != nullptr) std::memset(row.global, kPoison, row.inside_to - row.inside_from);
    }
  }
  auto box = std::make_shared<std::vector<std::byte>>();
  const auto write = [=] {
    const size_t element = static_cast<size_t>(bytes_of(shape.element));
    for (const Row& row : rows) {
      if (row.global == nullptr) continue;
      const std::byte* from = box->data() + row.box_offset + row.inside_from;
      const size_t bytes = row.inside_to - row.inside_from;
      if (!add) {
        std::memcpy(row.global, from, bytes);
        continue;
      }
      for (size_t i = 0; i < bytes; i += element) add_element(shape.element, row.global + i, from + i);
    }
  };
  lane().bulk.issue(
      instruction, [=] { *box = fetch(shared, box_bytes(shape), shape.swizzle_bytes, instruction); }, write);
}

}  // namespace

void tensor_load(void* shared, const TensorMap* map, const int32_t* at, int rank, uint64_t* barrier) {
  constexpr const char* instruction = "cp.async.bulk.tensor (load)";
  const TensorShape shape = check_box(map, rank, shared, instruction);
  load_box(instruction, {{static_cast<std::byte*>(shared), barrier, &cta()}}, shape, at);
}

void tensor_load_multicast(void* shared, const TensorMap* map, const int32_t* at, int rank, uint64_t* barrier,
                           uint16_t blocks) {
  constexpr const char* instruction = "cp.async.bulk.tensor (multicast load)";
  const TensorShape shape = check_box(map, rank, shared, instruction);
  load_box(instruction, targets_of(shared, barrier, blocks, instruction), shape, at);
}

void tensor_store(const TensorMap* map, const int32_t* at, int rank, const void* shared) {
  store_box("cp.async.bulk.tensor (store)", map, at, rank, shared, false);
}

void tensor_add(const TensorMap* map, const int32_t* at, int rank, const void* shared) {
  store_box("cp.reduce.async.bulk.tensor.add", map, at, rank, shared, true);
}

void bulk_commit() {
  require_capability(90, "cp.async.bulk.commit_group");
  lane().bulk.commit();
}
void bulk_wait(int groups_left) {
  require_capability(90, "cp.async.bulk.wait_group");
  lane().bulk.wait(static_cast<size_t>(groups_left));
}
void bulk_wait_read(int groups_left) {
  require_capability(90, "cp.async.bulk.wait_group.read");
  lane().bulk.wait(static_cast<size_t>(groups_left), true);
}

}  // namespace cuda_emulation

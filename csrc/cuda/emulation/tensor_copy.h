// The copy engine: runs of bytes and boxes of tensors between global and shared memory, through the async proxy.
//
// Loads announce their bytes to an mbarrier and happen between the issue and the moment everything else is stuck.
// Stores and reductions read shared memory between the issue and wait_group.read, and write until wait_group. In
// between the destination is poison (of a reduction: unchanged).
//
// A box of a tensor lies in shared memory densely, the innermost dimension first, its 16-byte chunks exchanged by the
// swizzle: bits 4 to 6 of the shared address are xored with bits 7 to 9 (128-byte rows; 64: two bits, 32: one).
#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_emulation {

enum class TensorElement : uint8_t { kInt8, kBf16, kFp16, kFloat32, kInt32 };
constexpr int bytes_of(TensorElement element) {
  return element == TensorElement::kInt8 ? 1 : element <= TensorElement::kFp16 ? 2 : 4;
}

constexpr int kTensorRank = 5;

// As cuTensorMapEncodeTiled takes it: dimension 0 is the innermost, whose elements are dense.
struct TensorShape {
  void* address = nullptr;
  TensorElement element = TensorElement::kBf16;
  int rank = 0;
  uint64_t sizes[kTensorRank] = {};
  uint64_t strides[kTensorRank] = {};  // bytes from one index to the next; [0] is not used
  uint32_t box[kTensorRank] = {};
  int swizzle_bytes = 0;  // 0, 32, 64 or 128, and then the bytes of a box's innermost row
  bool outside_is_nan = false;
};

// 128 opaque bytes at a multiple of 64, as the toolkit's.
struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

// Violations, in the words of the rules of cuTensorMapEncodeTiled.
TensorMap encode_tensor_map(const TensorShape& shape);

void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier);
// To the same place, and with the same place's barrier, of every block of the cluster whose bit is set.
void bulk_load_multicast(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, uint16_t blocks);
// 32-bit addresses of another block.
void bulk_copy_to_block(uint32_t destination, const void* shared, uint32_t bytes, uint32_t barrier);
void bulk_store(void* global, const void* shared, uint32_t bytes);
void bulk_add_float(float* global, const float* shared, uint32_t bytes);

void tensor_load(void* shared, const TensorMap* map, const int32_t* at, int rank, uint64_t* barrier);
void tensor_load_multicast(void* shared, const TensorMap* map, const int32_t* at, int rank, uint64_t* barrier,
                           uint16_t blocks);
void tensor_store(const TensorMap* map, const int32_t* at, int rank, const void* shared);
void tensor_add(const TensorMap* map, const int32_t* at, int rank, const void* shared);

void bulk_commit();
void bulk_wait(int groups_left);
void bulk_wait_read(int groups_left);

}  // namespace cuda_emulation

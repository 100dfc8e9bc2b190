// The C interface for browsers and node. Pointers are addresses in the module's memory, got from sparsecore_malloc;
// sizes are counted in elements; every operation returns a Status as a number, 0 for success.
#include <cstdlib>

#include "sparsecore/bitmap_decode.h"
#include "sparsecore/cpu.h"
#include "sparsecore/nm_decode.h"
#include "sparsecore/parallel.h"
#include "sparsecore/row_lists.h"
#include "sparsecore/shared_lists.h"
#include "sparsecore/variable_nm.h"
#include "wasm/dense.h"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

// The dense side of every linear layer, flat. Rows of x and y follow each other without gaps.
#define IO_PARAMETERS                                                                                                  \
  const void *x, void *y, const void *bias, const float *weight_scale, int32_t m, int32_t n, int32_t k, int32_t dtype, \
      int32_t bias_dtype, int32_t weight_dtype, int32_t activation, int32_t compute
#define IO_ARGUMENTS x, y, bias, weight_scale, m, n, k, dtype, bias_dtype, weight_dtype, activation, compute

namespace sparsecore {
namespace {

bool known(int32_t value, int32_t last) { return value >= 0 && value <= last; }

// Numbers from outside become enumerators only once they are known to be one.
Status make_io(IO_PARAMETERS, LinearIo* io) {
  if (!known(dtype, 3) || !known(bias_dtype, 3) || !known(weight_dtype, 3) || !known(activation, kLastActivation) ||
      !known(compute, 2))
    return Status::kUnsupportedDType;
  io->x = x;
  io->y = y;
  io->bias = bias;
  io->weight_scale = weight_scale;
  io->m = m;
  io->n = n;
  io->k = k;
  io->x_row_stride = k;
  io->y_row_stride = n;
  io->dtype = static_cast<DType>(dtype);
  io->bias_dtype = static_cast<DType>(bias_dtype);
  io->weight_dtype = static_cast<DType>(weight_dtype);
  io->activation = static_cast<Activation>(activation);
  io->compute = static_cast<Compute>(compute);
  return check_io(*io);
}

template <typename Weight>
int32_t run(Status made, const LinearIo& io, const Weight& weight, Status (*linear)(const LinearIo&, const Weight&)) {
  return static_cast<int32_t>(made == Status::kOk ? linear(io, weight) : made);
}

RowLists row_lists(const void* values, const uint8_t* offsets, const int32_t* block_ptr, int32_t nnz, int32_t block) {
  return {values, offsets, block_ptr, nnz, block};
}

}  // namespace

EXPORT(sparsecore_malloc) void* export_malloc(uint32_t bytes) {
  // A multiple of the alignment, never zero: a null pointer then always means that memory ran out.
  return bytes > UINT32_MAX - 64 ? nullptr : std::aligned_alloc(64, (bytes / 64 + 1) * 64);
}
EXPORT(sparsecore_free) void export_free(void* memory) { std::free(memory); }
EXPORT(sparsecore_release_scratch) void export_release_scratch() { release_scratch(); }
EXPORT(sparsecore_describe) const char* export_describe(int32_t status) {
  return describe(static_cast<Status>(status));
}
EXPORT(sparsecore_isa) const char* export_isa() { return isa_name(current_isa()); }

EXPORT(row_lists_linear)
int32_t export_row_lists_linear(IO_PARAMETERS, const void* values, const uint8_t* offsets, const int32_t* block_ptr,
                                int32_t nnz, int32_t block) {
  LinearIo io;
  const Status made = make_io(IO_ARGUMENTS, &io);
  return run(made, io, row_lists(values, offsets, block_ptr, nnz, block), row_lists_linear);
}
EXPORT(row_lists_validate)
int32_t export_row_lists_validate(const void* values, const uint8_t* offsets, const int32_t* block_ptr, int32_t nnz,
                                  int32_t block, int32_t n, int32_t k) {
  return static_cast<int32_t>(row_lists_validate(row_lists(values, offsets, block_ptr, nnz, block), n, k, nullptr));
}

EXPORT(shared_lists_linear)
int32_t export_shared_lists_linear(IO_PARAMETERS, const void* values, const uint16_t* columns, const int32_t* group_ptr,
                                   int32_t records, int32_t vector) {
  LinearIo io;
  const Status made = make_io(IO_ARGUMENTS, &io);
  return run(made, io, SharedLists{values, columns, group_ptr, records, vector}, shared_lists_linear);
}
EXPORT(shared_lists_validate)
int32_t export_shared_lists_validate(const void* values, const uint16_t* columns, const int32_t* group_ptr,
                                     int32_t records, int32_t vector, int32_t n, int32_t k) {
  return static_cast<int32_t>(
      shared_lists_validate(SharedLists{values, columns, group_ptr, records, vector}, n, k, nullptr));
}

EXPORT(nm_decode_linear)
int32_t export_nm_decode_linear(IO_PARAMETERS, const void* values, const uint32_t* codes, int32_t value_count,
                                int32_t code_count, int32_t n_kept, int32_t group) {
  LinearIo io;
  const Status made = make_io(IO_ARGUMENTS, &io);
  return run(made, io, NMDecode{values, codes, value_count, code_count, n_kept, group}, nm_decode_linear);
}
EXPORT(nm_decode_validate)
int32_t export_nm_decode_validate(const void* values, const uint32_t* codes, int32_t value_count, int32_t code_count,
                                  int32_t n_kept, int32_t group, int32_t weight_dtype, int32_t n, int32_t k) {
  if (!known(weight_dtype, 3)) return static_cast<int32_t>(Status::kUnsupportedDType);
  return static_cast<int32_t>(nm_decode_validate(NMDecode{values, codes, value_count, code_count, n_kept, group},
                                                 static_cast<DType>(weight_dtype), n, k, nullptr));
}

EXPORT(bitmap_decode_linear)
int32_t export_bitmap_decode_linear(IO_PARAMETERS, const void* values, const uint64_t* bitmap, const int32_t* row_ptr,
                                    int32_t nnz) {
  LinearIo io;
  const Status made = make_io(IO_ARGUMENTS, &io);
  return run(made, io, BitmapDecode{values, bitmap, row_ptr, nnz}, bitmap_decode_linear);
}
EXPORT(bitmap_decode_validate)
int32_t export_bitmap_decode_validate(const void* values, const uint64_t* bitmap, const int32_t* row_ptr, int32_t nnz,
                                      int32_t n, int32_t k) {
  return static_cast<int32_t>(bitmap_decode_check(BitmapDecode{values, bitmap, row_ptr, nnz}, n, k));
}

EXPORT(variable_nm_linear)
int32_t export_variable_nm_linear(IO_PARAMETERS, const void* values, const uint8_t* indices, const uint8_t* codes,
                                  int32_t value_count, int32_t index_count, int32_t code_count) {
  LinearIo io;
  const Status made = make_io(IO_ARGUMENTS, &io);
  return run(made, io, VariableNM{values, indices, codes, value_count, index_count, code_count}, variable_nm_linear);
}
EXPORT(variable_nm_validate)
int32_t export_variable_nm_validate(const void* values, const uint8_t* indices, const uint8_t* codes,
                                    int32_t value_count, int32_t index_count, int32_t code_count, int32_t n,
                                    int32_t k) {
  return static_cast<int32_t>(
      variable_nm_validate(VariableNM{values, indices, codes, value_count, index_count, code_count}, n, k, nullptr));
}

EXPORT(dense_packed_count) int32_t export_dense_packed_count(int32_t n, int32_t k) {
  const int64_t count = n < 0 || k < 0 ? -1 : wasm::dense_packed_count(n, k);
  return count > INT32_MAX ? -1 : static_cast<int32_t>(count);
}
EXPORT(dense_pack) void export_dense_pack(const float* weight, int32_t n, int32_t k, float* packed) {
  wasm::dense_pack(weight, n, k, packed);
}
EXPORT(dense_linear)
int32_t export_dense_linear(const float* x, const float* packed, const float* bias, float* y, int32_t m, int32_t n,
                            int32_t k, int32_t activation) {
  if (!known(activation, kLastActivation)) return static_cast<int32_t>(Status::kUnsupportedDType);
  return static_cast<int32_t>(wasm::dense_linear(x, packed, bias, y, m, n, k, static_cast<Activation>(activation)));
}

}  // namespace sparsecore

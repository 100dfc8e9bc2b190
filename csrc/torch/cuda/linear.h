// What every linear operator on a GPU needs between tensors and DeviceLinear, whatever the weight's format.
#pragma once

#include "sparsecore/linear_cuda.h"
#include "torch/cuda/device.h"

namespace sparsecore {

// Raises RuntimeError with cuda_message() unless the status is kOk.
void raise_unless_launched(Status status);

// On a CUDA device; on the one that `beside` is on.
void require_on_device(const char* function, const char* name, const Tensor& tensor);
void require_beside(const char* function, const char* name, const Tensor& tensor, const Tensor& beside);
// Contiguous, one dimension, on the device of `beside`.
void require_vector(const char* function, const char* name, const Tensor& tensor, const Tensor& beside,
                    int64_t entries);

// New memory beside `like`. Where there is none the error says what for, and how much.
Tensor allocate(const char* function, const char* what, const Tensor& like, const std::vector<int64_t>& sizes,
                ScalarType type);
// torch's product a b of a matrix b, in new memory.
Tensor multiply(const char* function, const Tensor& a, const Tensor& b);
Tensor allocate_workspace(const char* function, const Tensor& like, int64_t bytes);

// The tensor itself, or a contiguous copy where its rows are not dense or not evenly spaced.
Tensor dense_rows(const char* function, const char* name, const Tensor& tensor);
// The tensor itself, or a contiguous copy.
Tensor contiguous(const char* function, const char* name, const Tensor& tensor);

// A contiguous tensor on the device of `beside`, as it is or, where it does not begin at a multiple of 16 bytes, a
// copy: kernels load weights 16 bytes at a time.
Tensor aligned(const char* function, const char* name, const Tensor& tensor, const Tensor& beside);

// Elements that tensor cores multiply: bfloat16, float16, int8, float8_e4m3fn.
DType matrix_type(const char* function, const char* name, const Tensor& tensor);
// float32, bfloat16, float16.
DType float_type(const char* function, const char* name, ScalarType type);

// What a linear operator may be given beside its input and weight.
struct LinearExtras {
  std::optional<Tensor> scale;        // [n] float32
  std::optional<Tensor> token_scale;  // [m] float32
  std::optional<Tensor> bias;         // [n]
  std::optional<Tensor> residual;     // as the output
};

// Sizes, scales, bias and activation of a product; not x, y and the residual.
void fill_epilogue(const char* function, DeviceLinear* params, const Tensor& input, const LinearExtras& extras,
                   int64_t out_features, int64_t activation, ScalarType out_dtype);

// input [.., k] and the others, checked, and an output [.., n] of out_dtype. The parameters point into these tensors.
struct DeviceSide {
  Tensor input, output;
  std::optional<Tensor> residual;
  std::optional<Tensor> workspace;

  // Fills all of `params` but the weight and the workspace. `weight` is a tensor of the weight's values: its type and
  // device are the input's.
  DeviceSide(const char* function, DeviceLinear* params, const Tensor& input, const Tensor& weight,
             const LinearExtras& extras, int64_t out_features, int64_t activation, ScalarType out_dtype);
  void add_workspace(const char* function, DeviceLinear* params, int64_t bytes);
};

}  // namespace sparsecore

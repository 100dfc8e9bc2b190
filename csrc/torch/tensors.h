// What every operator file needs between tensors and the plain structs of the kernels. No arithmetic here.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "sparsecore/linear.h"
#include "sparsecore/row_lists.h"

namespace sparsecore {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// float32, bfloat16, float16 and, where allow_int8, int8.
DType dtype_of(const char* function, const char* name, const Tensor& tensor, bool allow_int8 = false);

const char* type_name(ScalarType type);

// Leading dimensions seen as one: how many rows, and the distance between them or -1 where no single distance serves.
int64_t leading_count(const Tensor& tensor);
int64_t row_stride(const Tensor& tensor);
// The tensor itself, or a contiguous copy where its rows are not dense or not evenly spaced.
Tensor with_dense_rows(const Tensor& tensor);

// A CPU tensor of this element type, contiguous. `shape` is what it should have been, in words, for the message.
void require(const char* function, const char* name, const Tensor& tensor, ScalarType type, int64_t dims);

// Raises RuntimeError with the function and the reason unless the status is kOk.
void raise_unless_ok(const char* function, Status status);

// One of the activations of types.h.
void require_activation(const char* function, int64_t activation);

// What belongs to the output channels: scale float32, required beside int8 values, and bias, each with `channels`
// entries or absent.
struct Channelwise {
  const float* scale = nullptr;
  const void* bias = nullptr;
  DType bias_dtype = DType::kFloat32;
};
Channelwise channelwise(const char* function, const Tensor& values, const std::optional<Tensor>& scale,
                        const std::optional<Tensor>& bias, int64_t channels);

Tensor empty(std::vector<int64_t> sizes, ScalarType type);

// The dense side of a linear operator: checks it, flattens leading dimensions, makes or takes the output.
struct DenseSide {
  Tensor input;  // keeps a contiguous copy alive where one was needed
  Tensor output;
  LinearIo io;
};
DenseSide dense_side(const char* function, const Tensor& input, const Tensor& values,
                     const std::optional<Tensor>& scale, const std::optional<Tensor>& bias, int64_t out_features,
                     int64_t activation, int64_t compute, const std::optional<Tensor>& out);

// The two dense operands of a weight gradient.
struct GradSide {
  Tensor grad_output, input;
  WeightGradIo io;
};
GradSide grad_side(const char* function, const Tensor& grad_output, const Tensor& input);

}  // namespace sparsecore

// Every operator schema. Implementations register beside themselves, in <family>_ops.cpp; fake kernels, autograd and
// autocast are Python's (sparsecore/ops). `activation` and `compute` are the values of the enums in sparsecore/types.h
// and sparsecore/linear.h. Each *_out form writes into a tensor it is given and allocates nothing.
// The transposed structure (what *_transpose returns) serves the backward pass alone,
// which makes it anew where it is not given.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sparsecore, m) {
  // Row lists: values [nnz], offsets uint8 [nnz], block_ptr int32 [blocks, n + 1].
  m.def("row_lists_block(float density) -> int");
  m.def(
      "row_lists_linear(Tensor input, Tensor values, Tensor offsets, Tensor block_ptr, Tensor? scale, Tensor? bias, "
      "int out_features, int block, int activation, int compute, "
      "Tensor? offsets_t=None, Tensor? block_ptr_t=None, Tensor? order=None) -> Tensor");
  m.def(
      "row_lists_linear_out(Tensor input, Tensor values, Tensor offsets, Tensor block_ptr, Tensor? scale, Tensor? "
      "bias, "
      "int out_features, int block, int activation, int compute, Tensor(a!) out) -> ()");
  m.def(
      "row_lists_weight_grad(Tensor grad_output, Tensor input, Tensor offsets, Tensor block_ptr, int block) -> Tensor");
  m.def("row_lists_pack(Tensor weight, Tensor mask, int block) -> (Tensor, Tensor, Tensor)");
  m.def(
      "row_lists_unpack(Tensor values, Tensor offsets, Tensor block_ptr, int out_features, int in_features, int block) "
      "-> Tensor");
  m.def(
      "row_lists_validate(Tensor offsets, Tensor block_ptr, int out_features, int in_features, int block) -> (int, "
      "int)");
  m.def(
      "row_lists_transpose(Tensor offsets, Tensor block_ptr, int out_features, int in_features, int block, int "
      "block_t) "
      "-> (Tensor, Tensor, Tensor)");

  // Shared lists: values [records, vector], columns int16 (the bits of uint16) [records], group_ptr int32 [groups + 1].
  m.def(
      "shared_lists_linear(Tensor input, Tensor values, Tensor columns, Tensor group_ptr, Tensor? scale, Tensor? bias, "
      "int out_features, int activation, int compute, "
      "Tensor? offsets_t=None, Tensor? block_ptr_t=None, Tensor? order=None) -> Tensor");
  m.def(
      "shared_lists_linear_out(Tensor input, Tensor values, Tensor columns, Tensor group_ptr, Tensor? scale, "
      "Tensor? bias, int out_features, int activation, int compute, Tensor(a!) out) -> ()");
  m.def(
      "shared_lists_weight_grad(Tensor grad_output, Tensor input, Tensor columns, Tensor group_ptr, int vector) "
      "-> Tensor");
  m.def("shared_lists_pack(Tensor weight, Tensor mask, int vector) -> (Tensor, Tensor, Tensor)");
  m.def(
      "shared_lists_unpack(Tensor values, Tensor columns, Tensor group_ptr, int out_features, int in_features) -> "
      "Tensor");
  m.def(
      "shared_lists_validate(Tensor columns, Tensor group_ptr, int vector, int out_features, int in_features) "
      "-> (int, int)");
  // The same by the CUDA operator library, on the device: int64 [2], status and place, kOk and -1 without a fault.
  m.def(
      "shared_lists_fault(Tensor columns, Tensor group_ptr, int vector, int out_features, int in_features) -> Tensor");
  m.def(
      "shared_lists_transpose(Tensor columns, Tensor group_ptr, int vector, int out_features, int in_features, "
      "int block_t) -> (Tensor, Tensor, Tensor)");

  // Group lists: values [records + 1, cols, rows], index uint8 or int16 (the bits of uint16) [records + 1], order uint8
  // [panels, groups], starts int32 [panels, groups + 1]. Sizes of images are pairs, vertical first; padding is top,
  // left, bottom, right. The transposed structure is index_t, order_t, starts_t and source.
  m.def("group_lists_depth(int rows, int cols, int in_features, float density) -> int");
  m.def("group_lists_window(int rows, int out_features) -> int");
  m.def(
      "group_lists_linear(Tensor input, Tensor values, Tensor index, Tensor order, Tensor starts, Tensor? scale, "
      "Tensor? bias, int out_features, int depth, int window, int activation, int compute, Tensor? index_t=None, "
      "Tensor? order_t=None, Tensor? starts_t=None, Tensor? source=None) -> Tensor");
  m.def(
      "group_lists_linear_out(Tensor input, Tensor values, Tensor index, Tensor order, Tensor starts, Tensor? scale, "
      "Tensor? bias, int out_features, int depth, int window, int activation, int compute, Tensor(a!) out) -> ()");
  m.def(
      "group_lists_weight_grad(Tensor grad_output, Tensor input, Tensor index, Tensor order, Tensor starts, int rows, "
      "int cols, int depth, int window) -> Tensor");
  m.def(
      "group_lists_conv2d(Tensor input, Tensor values, Tensor index, Tensor order, Tensor starts, Tensor? scale, "
      "Tensor? bias, Tensor? residual, int out_channels, int[] kernel_size, int[] stride, int[] padding, int[] "
      "dilation, int depth, int window, int activation, int compute, Tensor? index_t=None, Tensor? order_t=None, "
      "Tensor? starts_t=None, Tensor? source=None, float x_scale=0.0) -> Tensor");
  m.def(
      "group_lists_conv2d_out(Tensor input, Tensor values, Tensor index, Tensor order, Tensor starts, Tensor? scale, "
      "Tensor? bias, Tensor? residual, int out_channels, int[] kernel_size, int[] stride, int[] padding, int[] "
      "dilation, int depth, int window, int activation, int compute, Tensor(a!) out, float x_scale=0.0) -> ()");
  m.def(
      "group_lists_conv2d_bind(Tensor input, Tensor values, Tensor index, Tensor order, Tensor starts, Tensor? scale, "
      "Tensor? bias, Tensor? residual, int out_channels, int[] kernel_size, int[] stride, int[] padding, int[] "
      "dilation, int depth, int window, int activation, int compute, Tensor out, float x_scale=0.0) -> int");
  m.def(
      "group_lists_conv2d_weight_grad(Tensor grad_output, Tensor input, Tensor index, Tensor order, Tensor starts, int "
      "rows, int cols, int[] kernel_size, int[] stride, int[] padding, int[] dilation, int depth, int window) -> "
      "Tensor");
  m.def(
      "group_lists_pack(Tensor weight, Tensor mask, int rows, int cols, int depth, int window) -> (Tensor, Tensor, "
      "Tensor, Tensor)");
  m.def(
      "group_lists_unpack(Tensor values, Tensor index, Tensor order, Tensor starts, int out_features, int "
      "in_features, int depth, int window) -> Tensor");
  m.def(
      "group_lists_validate(Tensor index, Tensor order, Tensor starts, int rows, int cols, int out_features, int "
      "in_features, int depth, int window) -> (int, int)");
  // The same by the CUDA operator library, on the device: int64 [2], status and place, kOk and -1 without a fault.
  m.def(
      "group_lists_fault(Tensor index, Tensor order, Tensor starts, int rows, int cols, int out_features, int "
      "in_features, int depth, int window) -> Tensor");
  m.def(
      "group_lists_transpose(Tensor index, Tensor order, Tensor starts, int rows, int cols, int out_features, int "
      "in_features, int depth, int window, int depth_t, int window_t) -> (Tensor, Tensor, Tensor, Tensor)");

  // Per-row N:M for decoding: values [tiles, slots, 16], codes int32 bits [tiles, words, 16].
  m.def(
      "nm_decode_linear(Tensor input, Tensor values, Tensor codes, Tensor? scale, Tensor? bias, int out_features, int "
      "n, "
      "int m, int activation, int compute) -> Tensor");
  m.def(
      "nm_decode_linear_out(Tensor input, Tensor values, Tensor codes, Tensor? scale, Tensor? bias, int out_features, "
      "int n, int m, int activation, int compute, Tensor(a!) out) -> ()");
  m.def("nm_decode_pack(Tensor weight, Tensor mask, int n, int m) -> (Tensor, Tensor)");
  m.def("nm_decode_unpack(Tensor values, Tensor codes, int out_features, int in_features, int n, int m) -> Tensor");
  m.def(
      "nm_decode_validate(Tensor values, Tensor codes, int out_features, int in_features, int n, int m) -> (int, int)");

  // Unstructured for decoding: values [nnz], bitmap int64 bits [n, words], row_ptr int32 [n + 1].
  m.def(
      "bitmap_decode_linear(Tensor input, Tensor values, Tensor bitmap, Tensor row_ptr, Tensor? scale, Tensor? bias, "
      "int out_features, int activation, int compute) -> Tensor");
  m.def(
      "bitmap_decode_linear_out(Tensor input, Tensor values, Tensor bitmap, Tensor row_ptr, Tensor? scale, Tensor? "
      "bias, "
      "int out_features, int activation, int compute, Tensor(a!) out) -> ()");
  m.def("bitmap_decode_pack(Tensor weight, Tensor mask) -> (Tensor, Tensor, Tensor)");
  m.def(
      "bitmap_decode_unpack(Tensor values, Tensor bitmap, Tensor row_ptr, int out_features, int in_features) -> "
      "Tensor");
  m.def("bitmap_decode_gather(Tensor dense, Tensor bitmap, Tensor row_ptr, int stored) -> Tensor");
  m.def(
      "bitmap_decode_validate(Tensor values, Tensor bitmap, Tensor row_ptr, int out_features, int in_features) -> int");
  // The same by the CUDA operator library, on the device: int64 [2], status and place, kOk and -1 without a fault.
  m.def(
      "bitmap_decode_fault(Tensor values, Tensor bitmap, Tensor row_ptr, int out_features, int in_features) -> Tensor");

  // Dense operators of image networks. stride and dilation are [vertical, horizontal], padding [top, left, bottom,
  // right]; the stem's weight is [out_channels, kernel_h, kernel_w, channels].
  m.def(
      "depthwise_conv2d(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, "
      "int activation) -> Tensor");
  m.def(
      "stem_conv2d(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, "
      "int activation) -> Tensor");
  m.def(
      "squeeze_excite(Tensor input, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2, int inner, int gate) "
      "-> Tensor");

  // Blocks of 16 x 16 with an N each: values [slots, 16], indices uint8 [pairs, 16], codes uint8 [n / 16, k / 16].
  m.def(
      "variable_nm_linear(Tensor input, Tensor values, Tensor indices, Tensor codes, Tensor? scale, Tensor? bias, "
      "int out_features, int activation, int compute) -> Tensor");
  m.def(
      "variable_nm_linear_out(Tensor input, Tensor values, Tensor indices, Tensor codes, Tensor? scale, Tensor? bias, "
      "int out_features, int activation, int compute, Tensor(a!) out) -> ()");
  m.def("variable_nm_pack(Tensor weight, Tensor mask, Tensor codes) -> (Tensor, Tensor)");
  m.def("variable_nm_unpack(Tensor values, Tensor indices, Tensor codes, int out_features, int in_features) -> Tensor");
  m.def(
      "variable_nm_validate(Tensor values, Tensor indices, Tensor codes, int out_features, int in_features) "
      "-> (int, int)");

  // Square blocks on CUDA. values [blocks, size, size]; the index as in torch's BSR, int32: crow_indices [rows + 1],
  // col_indices [blocks], and order [rows], the rows from the longest to the shortest. Of the transposed matrix as in
  // BSC: ccol_indices, row_indices, order_t, and source, the block of each entry.
  // Only the CUDA operator library implements these.
  m.def(
      "block_sparse_linear(Tensor input, Tensor values, Tensor crow_indices, Tensor col_indices, Tensor order, Tensor? "
      "scale, Tensor? token_scale, Tensor? bias, Tensor? residual, int out_features, int activation, ScalarType "
      "out_dtype, Tensor? ccol_indices=None, Tensor? row_indices=None, Tensor? order_t=None, Tensor? source=None) -> "
      "Tensor");
  m.def(
      "block_sparse_input_grad(Tensor grad_output, Tensor values, Tensor ccol_indices, Tensor row_indices, Tensor "
      "order_t, Tensor source, int in_features) -> Tensor");
  m.def(
      "block_sparse_weight_grad(Tensor grad_output, Tensor input, Tensor crow_indices, Tensor col_indices, int "
      "block_size, ScalarType out_dtype) -> Tensor");
  m.def(
      "block_sparse_validate(Tensor crow_indices, Tensor col_indices, Tensor order, Tensor? ccol_indices, Tensor? "
      "row_indices, Tensor? order_t, Tensor? source, int out_features, int in_features, int block_size) -> Tensor");

  // A kernel's name, or "" for the rule; returns the one before. Only the CUDA operator library implements it.
  m.def("cuda_use_kernel(str name) -> str");

  // 2:4 on CUDA. values of the weight's type [n blocks, k blocks, 4096 / bytes of a weight], metadata int32 (the
  // bits of uint32) [n blocks, k blocks, 256 / bytes of a weight]. selection: the enum of sparsecore/semi_structured.h.
  // Only the CUDA operator library implements these.
  m.def(
      "semi_structured_compress(Tensor weight, Tensor? mask, int selection, bool transposed) -> (Tensor, Tensor, "
      "Tensor, Tensor)");
  m.def("semi_structured_decompress(Tensor values, Tensor metadata, int out_features, int in_features) -> Tensor");
  m.def("semi_structured_validate(Tensor values, Tensor metadata, int out_features, int in_features) -> Tensor");
  m.def(
      "semi_structured_linear(Tensor input, Tensor values, Tensor metadata, Tensor? scale, Tensor? token_scale, "
      "Tensor? "
      "bias, Tensor? residual, int out_features, int activation, ScalarType out_dtype, Tensor? values_t=None, Tensor? "
      "metadata_t=None, int group=4, int weight_gradient=0) -> Tensor");

  // The product of the packed part of a dense weight, whose gradient is the dense weight's, decay included.
  m.def(
      "semi_structured_masked_linear(Tensor input, Tensor weight, Tensor? bias, Tensor values, Tensor metadata, "
      "Tensor? values_t, Tensor? metadata_t, float decay) -> Tensor");

  // Gradients of 2:4 weights of 16 bits: a dense gradient at the stored places; the product grad^T input there alone;
  // grad + decay (weight - what is packed of it).
  m.def("semi_structured_gather(Tensor dense, Tensor metadata) -> Tensor");
  m.def("semi_structured_sampled(Tensor grad, Tensor input, Tensor metadata) -> Tensor");
  m.def(
      "semi_structured_straight_through(Tensor grad, Tensor weight, Tensor values, Tensor metadata, float decay) -> "
      "Tensor");

  // V:N:M on CUDA: values and metadata as above, of the picked matrix, columns int16 (the bits of uint16) [runs,
  // picked].
  m.def(
      "vnm_linear(Tensor input, Tensor values, Tensor metadata, Tensor columns, Tensor? scale, Tensor? token_scale, "
      "Tensor? bias, Tensor? residual, int out_features, int vector, int activation, ScalarType out_dtype) -> Tensor");
}

// A product with a block-sparse weight and its gradients, with answers in float64, for the tests of the family.
#pragma once

#include <algorithm>
#include <numeric>

#include "cuda/block_sparse/block_sparse.h"
#include "cuda/tests/semi_structured_problem.h"

namespace sparsecore {

// An index on the device, from the mask of kept blocks (row by row), with the transposed one.
struct BlockIndex {
  int64_t rows, columns;
  std::vector<int32_t> starts, index, order, source;  // source: empty, or of a transposed index

  BlockIndex(int64_t rows, int64_t columns, const std::vector<uint8_t>& mask) : rows(rows), columns(columns) {
    starts.push_back(0);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < columns; ++column)
        if (mask[row * columns + column]) index.push_back(static_cast<int32_t>(column));
      starts.push_back(static_cast<int32_t>(index.size()));
    }
    sort_rows();
  }
  BlockIndex transposed() const {
    std::vector<uint8_t> mask(rows * columns);
    std::vector<int32_t> entry(rows * columns);
    for (int64_t row = 0; row < rows; ++row)
      for (int32_t j = starts[row]; j < starts[row + 1]; ++j) {
        mask[index[j] * rows + row] = 1;
        entry[index[j] * rows + row] = j;
      }
    BlockIndex result(columns, rows, mask);
    for (int64_t row = 0; row < columns; ++row)
      for (int32_t j = result.starts[row]; j < result.starts[row + 1]; ++j)
        result.source.push_back(entry[row * rows + result.index[j]]);
    return result;
  }

 private:
  void sort_rows() {
    order.resize(rows);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return starts[a + 1] - starts[a] > starts[b + 1] - starts[b]; });
  }
};

struct DeviceIndex {
  cuda_emulation::GlobalBuffer<int32_t> starts, index, order, source;

  explicit DeviceIndex(const BlockIndex& host)
      : starts(host.starts), index(host.index), order(host.order), source(host.source) {}
  BlockSparse weight(const void* values, int32_t size) const {
    BlockSparse w;
    w.values = values;
    w.starts = starts.data();
    w.index = index.data();
    w.order = order.data();
    w.source = source.size() > 0 ? source.data() : nullptr;
    w.blocks = static_cast<int64_t>(index.size());
    w.size = size;
    return w;
  }
};

struct BlockOptions {
  DType dtype = DType::kBFloat16, out_dtype = DType::kFloat32, bias_dtype = DType::kFloat32;
  bool bias = true, weight_scale = false, token_scale = false, residual = false;
  Activation activation = Activation::kNone;
  int64_t x_offset = 0, x_pad = 0, y_offset = 0, y_pad = 0;
  bool transposed = false;  // the product with the transposed weight
  double density = 0.5;
  bool integers = true;  // every sum exact, whatever its order
  unsigned seed = 1;
};

// W [n, k] as the product sees it; what is stored is its transpose where the options say so.
struct BlockProblem {
  BlockOptions options;
  int64_t m, n, k;
  int32_t size;
  BlockIndex stored, used;
  DeviceIndex index;
  DeviceMatrix x, y, residual;
  cuda_emulation::GlobalBuffer<char> values, bias;
  cuda_emulation::GlobalBuffer<float> weight_scale, token_scale;
  std::vector<double> expected, magnitude;  // sum of |terms|, what rounding is measured against
  std::optional<cuda_emulation::GlobalBuffer<char>> workspace;

  static BlockIndex draw(int64_t rows, int64_t columns, const BlockOptions& o) {
    std::mt19937 random(o.seed + 100);
    std::vector<uint8_t> mask(rows * columns);
    // The densities of rows differ, some are empty, one may be full.
    for (int64_t row = 0; row < rows; ++row) {
      const double density = row == 1 ? 0.0 : std::min(1.0, o.density * (0.5 + random() % 100 / 66.0));
      for (int64_t column = 0; column < columns; ++column)
        mask[row * columns + column] = random() % 1000 < 1000 * density;
    }
    return BlockIndex(rows, columns, mask);
  }

  BlockProblem(int64_t m, int64_t n, int64_t k, int32_t size, const BlockOptions& o)
      : options(o),
        m(m),
        n(n),
        k(k),
        size(size),
        stored(o.transposed ? draw(cuda_linear::ceil_div(k, size), cuda_linear::ceil_div(n, size), o)
                            : draw(cuda_linear::ceil_div(n, size), cuda_linear::ceil_div(k, size), o)),
        used(o.transposed ? stored.transposed() : stored),
        index(used),
        x(o.dtype, m, k, cuda_linear::ceil_div(k, 8) * 8 + o.x_pad, o.x_offset),
        y(o.out_dtype, m, n, cuda_linear::ceil_div(n, 8) * 8 + o.y_pad, o.y_offset),
        residual(o.out_dtype, m, n, cuda_linear::ceil_div(n, 8) * 8 + o.y_pad, o.y_offset),
        values(stored.index.size() * size * size * 2),
        bias(n * size_of(o.bias_dtype)),
        weight_scale(n),
        token_scale(m),
        expected(m * n),
        magnitude(m * n) {
    std::mt19937 random(o.seed);
    std::normal_distribution<float> normal;
    const auto draw = [&] {
      return o.integers ? static_cast<float>(static_cast<int>(random() % 9) - 4) : normal(random);
    };
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < k; ++i) x.set(t, i, draw());
    std::vector<float> dense(n * k);
    std::vector<uint8_t> kept(n * k);
    for (int64_t row = 0; row < stored.rows; ++row)
      for (int32_t j = stored.starts[row]; j < stored.starts[row + 1]; ++j)
        for (int64_t r = 0; r < size; ++r)
          for (int64_t c = 0; c < size; ++c) {
            const int64_t up = row * size + r, across = stored.index[j] * size + c;
            const int64_t o_channel = o.transposed ? across : up, i = o.transposed ? up : across;
            char* at = values.data() + ((static_cast<int64_t>(j) * size + r) * size + c) * 2;
            const bool inside = o_channel < n && i < k;
            encode(inside ? draw() : 0, o.dtype, at);
            if (inside) {
              dense[o_channel * k + i] = decode(at, o.dtype);
              kept[o_channel * k + i] = 1;
            }
          }
    for (int64_t i = 0; i < n; ++i) {
      encode(draw(), o.bias_dtype, bias.data() + i * size_of(o.bias_dtype));
      weight_scale[i] = o.integers ? 0.5f : 0.5f + 0.1f * std::abs(normal(random));
    }
    for (int64_t t = 0; t < m; ++t) token_scale[t] = o.integers ? 2.0f : 0.1f + 0.1f * std::abs(normal(random));
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < n; ++i) residual.set(t, i, draw());
    for (int64_t t = 0; t < m; ++t)
      for (int64_t channel = 0; channel < n; ++channel) {
        double sum = 0, absolute = 0;
        for (int64_t i = 0; i < k; ++i)
          if (kept[channel * k + i]) {
            const double term = static_cast<double>(dense[channel * k + i]) * x.get(t, i);
            sum += term;
            absolute += std::abs(term);
          }
        const double scale = (o.weight_scale ? weight_scale[channel] : 1.0) * (o.token_scale ? token_scale[t] : 1.0);
        double value = sum * scale;
        if (o.bias) value += decode(bias.data() + channel * size_of(o.bias_dtype), o.bias_dtype);
        if (o.activation != Activation::kNone) value = activate(static_cast<float>(value), o.activation);
        if (o.residual) value += residual.get(t, channel);
        expected[t * n + channel] = value;
        magnitude[t * n + channel] = absolute * scale + std::abs(value) + 1;
      }
  }

  BlockSparseParams params(int64_t workspace_bytes) {
    BlockSparseParams p;
    workspace.emplace(workspace_bytes);
    p.x = x.data();
    p.weight = index.weight(values.data(), size);
    p.y = y.data();
    if (options.bias) p.bias = bias.data();
    if (options.weight_scale) p.weight_scale = weight_scale.data();
    if (options.token_scale) p.token_scale = token_scale.data();
    if (options.residual) {
      p.residual = residual.data();
      p.residual_row_stride = residual.stride;
    }
    p.m = m;
    p.n = n;
    p.k = k;
    p.x_row_stride = x.stride;
    p.y_row_stride = y.stride;
    p.dtype = options.dtype;
    p.out_dtype = options.out_dtype;
    p.bias_dtype = options.bias_dtype;
    p.activation = options.activation;
    p.workspace = workspace_bytes > 0 ? workspace->data() : nullptr;
    p.workspace_bytes = workspace_bytes;
    return p;
  }

  void forget() { std::memset(y.buffer.data(), 0xff, y.buffer.size()); }
  // Whether anything of y's buffer changed that is no output: what lies in front of it and between its rows.
  bool strayed() {
    const int64_t bytes = size_of(options.out_dtype), count = static_cast<int64_t>(y.buffer.size()) / bytes;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = i - y.offset;
      if (at >= 0 && at % y.stride < n) continue;
      for (int64_t byte = 0; byte < bytes; ++byte)
        if (y.buffer[i * bytes + byte] != static_cast<char>(0xff)) return true;
    }
    return false;
  }
  // Index of the first output that is not the expected one, or -1. NaN never is.
  int64_t first_wrong(double tolerance) {
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = 0; i < n; ++i) {
        char rounded[4];
        encode(static_cast<float>(expected[t * n + i]), options.out_dtype, rounded);
        const double want = tolerance == 0 ? decode(rounded, options.out_dtype) : expected[t * n + i];
        if (!(std::abs(y.get(t, i) - want) <= tolerance * magnitude[t * n + i])) return t * n + i;
      }
    return -1;
  }
};

// The gradient of the kept blocks of W [n, k], from small integers: every sum is exact.
struct BlockGradProblem {
  static constexpr size_t kBehind = 4096;  // bytes behind the result, which nobody may touch
  int64_t m, n, k;
  int32_t size;
  DType dtype, out_dtype;
  BlockIndex host;
  DeviceIndex index;
  DeviceMatrix grad_y, x;
  cuda_emulation::GlobalBuffer<char> out;
  std::optional<cuda_emulation::GlobalBuffer<char>> workspace;

  BlockGradProblem(int64_t m, int64_t n, int64_t k, int32_t size, DType dtype, DType out_dtype, int64_t offset,
                   int64_t pad, unsigned seed)
      : m(m),
        n(n),
        k(k),
        size(size),
        dtype(dtype),
        out_dtype(out_dtype),
        host(BlockProblem::draw(cuda_linear::ceil_div(n, size), cuda_linear::ceil_div(k, size), {.seed = seed})),
        index(host),
        grad_y(dtype, m, n, cuda_linear::ceil_div(n, 8) * 8 + pad, offset),
        x(dtype, m, k, cuda_linear::ceil_div(k, 8) * 8 + pad, offset),
        out(host.index.size() * size * size * size_of(out_dtype) + kBehind) {
    std::mt19937 random(seed);
    for (DeviceMatrix* matrix : {&grad_y, &x})
      for (int64_t t = 0; t < m; ++t)
        for (int64_t i = 0; i < matrix->columns; ++i) matrix->set(t, i, static_cast<float>(random() % 5) - 2);
  }

  BlockSparseGradParams params(int32_t splits) {
    const int64_t bytes = block_sparse::grad_workspace_bytes(splits, static_cast<int64_t>(host.index.size()), size);
    workspace.emplace(bytes);
    std::memset(out.data(), 0xff, out.size());
    BlockSparseGradParams p;
    p.grad_y = grad_y.data();
    p.x = x.data();
    p.out = out.data();
    p.weight = index.weight(nullptr, size);
    p.m = m;
    p.n = n;
    p.k = k;
    p.grad_y_row_stride = grad_y.stride;
    p.x_row_stride = x.stride;
    p.dtype = dtype;
    p.out_dtype = out_dtype;
    p.workspace = bytes > 0 ? workspace->data() : nullptr;
    p.workspace_bytes = bytes;
    return p;
  }
  bool strayed() {
    for (size_t i = out.size() - kBehind; i < out.size(); ++i)
      if (out[i] != static_cast<char>(0xff)) return true;
    return false;
  }
  // Index of the first gradient that is not the expected one, or -1.
  int64_t first_wrong() {
    for (int64_t row = 0; row < host.rows; ++row)
      for (int32_t j = host.starts[row]; j < host.starts[row + 1]; ++j)
        for (int64_t o = 0; o < size; ++o)
          for (int64_t i = 0; i < size; ++i) {
            const int64_t channel = row * size + o, input = host.index[j] * size + i;
            double sum = 0;
            if (channel < n && input < k)
              for (int64_t t = 0; t < m; ++t) sum += static_cast<double>(grad_y.get(t, channel)) * x.get(t, input);
            char rounded[4];
            encode(static_cast<float>(sum), out_dtype, rounded);
            const int64_t at = (j * size + o) * size + i;
            if (!(decode(out.data() + at * size_of(out_dtype), out_dtype) == decode(rounded, out_dtype))) return at;
          }
    return -1;
  }
};

}  // namespace sparsecore

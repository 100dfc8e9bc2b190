// A product with a block-sparse weight and its gradients, with answers in float64, for the tests of the family.
#pragma once

#include <algorithm>
#include <limits>
#include <numeric>

#include "cuda/block_sparse/block_sparse.h"
#include "cuda/tests/linear_problem.h"

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

struct BlockOptions : LinearOptions {
  bool transposed = false;  // the product with the transposed weight
  double density = 0.5;
};

// W [n, k] as the product sees it; what is stored is its transpose where the options say so.
struct BlockProblem : LinearProblem<BlockOptions> {
  int32_t size;
  BlockIndex stored, used;
  DeviceIndex index;
  cuda_emulation::GlobalBuffer<char> values;

  static BlockIndex draw(int64_t rows, int64_t columns, double density, unsigned seed) {
    std::mt19937 random(seed + 100);
    std::vector<uint8_t> mask(rows * columns);
    // The densities of rows differ, some are empty, one may be full.
    for (int64_t row = 0; row < rows; ++row) {
      const double of_row = row == 1 ? 0.0 : std::min(1.0, density * (0.5 + random() % 100 / 66.0));
      for (int64_t column = 0; column < columns; ++column)
        mask[row * columns + column] = random() % 1000 < 1000 * of_row;
    }
    return BlockIndex(rows, columns, mask);
  }
  // Of a weight with so many channels up and across.
  static BlockIndex draw_weight(int64_t up, int64_t across, int32_t size, double density, unsigned seed) {
    return draw(cuda_linear::ceil_div(up, size), cuda_linear::ceil_div(across, size), density, seed);
  }

  BlockProblem(int64_t m, int64_t n, int64_t k, int32_t size, const BlockOptions& o)
      : LinearProblem(m, n, k, o),
        size(size),
        stored(o.transposed ? draw_weight(k, n, size, o.density, o.seed) : draw_weight(n, k, size, o.density, o.seed)),
        used(o.transposed ? stored.transposed() : stored),
        index(used),
        values(stored.index.size() * size * size * 2) {
    Numbers numbers(o.seed + 200, o.integers);
    std::vector<float> dense(n * k);
    std::vector<uint8_t> kept(n * k);
    for (int64_t row = 0; row < stored.rows; ++row)
      for (int32_t j = stored.starts[row]; j < stored.starts[row + 1]; ++j)
        for (int64_t r = 0; r < size; ++r)
          for (int64_t c = 0; c < size; ++c) {
            const int64_t up = row * size + r, across = stored.index[j] * size + c;
            const int64_t channel = o.transposed ? across : up, input = o.transposed ? up : across;
            char* at = values.data() + ((static_cast<int64_t>(j) * size + r) * size + c) * 2;
            const bool inside = channel < n && input < k;
            encode(inside ? numbers() : 0, o.dtype, at);
            if (!inside) continue;
            dense[channel * k + input] = decode(at, o.dtype);
            kept[channel * k + input] = 1;
          }
    expect(dense, kept);
  }

  BlockSparseParams params(int64_t workspace_bytes) {
    BlockSparseParams p;
    fill(p, workspace_bytes);
    p.weight = index.weight(values.data(), size);
    return p;
  }
  // x of a column of blocks becomes infinite: only outputs that keep a block of it may notice.
  void make_infinite(int64_t column) {
    for (int64_t t = 0; t < m; ++t)
      for (int64_t i = column * size; i < std::min(k, (column + 1) * size); ++i)
        x.set(t, i, std::numeric_limits<float>::infinity());
  }
  // And the weights of an entry: only outputs of its row of blocks may notice.
  void make_entry_infinite(int64_t entry) {
    const int64_t block = used.source.empty() ? entry : used.source[entry];
    for (int64_t i = 0; i < int64_t{size} * size; ++i)
      encode(std::numeric_limits<float>::infinity(), options.dtype, values.data() + (block * size * size + i) * 2);
  }
  int64_t first_wrong_without_row(int64_t row) {
    return first_wrong(0, [&](int64_t channel) { return channel / size == row; });
  }
  bool keeps(int64_t row, int64_t column) const {
    return std::find(used.index.begin() + used.starts[row], used.index.begin() + used.starts[row + 1], column) !=
           used.index.begin() + used.starts[row + 1];
  }
  int64_t first_wrong_without(int64_t column) {
    return first_wrong(0, [&](int64_t channel) { return keeps(channel / size, column); });
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
                   int64_t pad, unsigned seed, double density = 0.5)
      : m(m),
        n(n),
        k(k),
        size(size),
        dtype(dtype),
        out_dtype(out_dtype),
        host(BlockProblem::draw_weight(n, k, size, density, seed)),
        index(host),
        grad_y(dtype, m, n, cuda_linear::ceil_div(n, 8) * 8 + pad, offset),
        x(dtype, m, k, cuda_linear::ceil_div(k, 8) * 8 + pad, offset),
        out(host.index.size() * size * size * size_of(out_dtype) + kBehind) {
    Numbers numbers(seed);
    grad_y.fill(numbers);
    x.fill(numbers);
  }

  BlockSparseGradParams params(int32_t splits) {
    const block_sparse::GradPlan plan = {block_sparse::Plan::Kernel::kSm80, splits};
    const int64_t bytes = block_sparse::grad_workspace_bytes(plan, static_cast<int64_t>(host.index.size()), size);
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
            const int64_t at = (j * size + o) * size + i;
            if (!(decode(out.data() + at * size_of(out_dtype), out_dtype) == rounded(sum, out_dtype))) return at;
          }
    return -1;
  }
};

}  // namespace sparsecore

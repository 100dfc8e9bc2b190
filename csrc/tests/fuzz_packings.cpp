// Malformed packings of every family through validate, check, linear and the gradients: whatever the arrays hold, a
// call either refuses them or stays inside them. Made for the address sanitizer: every array is a heap block of exactly
// the size it is said to have.
//
//   fuzz_packings [cases] [first case] [seed]
//
// Case i depends on seed and i alone, so a failing case, named on the way out, can be run again by itself.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "sparsecore/bitmap_decode.h"
#include "sparsecore/cpu.h"
#include "sparsecore/group_lists.h"
#include "sparsecore/nm_decode.h"
#include "sparsecore/parallel.h"
#include "sparsecore/row_lists.h"
#include "sparsecore/shared_lists.h"
#include "sparsecore/variable_nm.h"

using namespace sparsecore;

namespace {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t count) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(count)); }
  bool one_in(int64_t count) { return below(count) == 0; }
  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[below(static_cast<int64_t>(choices.size()))];
  }

 private:
  uint64_t state_;
};

// What went wrong; the case is repeated from its number.
[[noreturn]] void fail(const char* what);

// Exactly `count` elements on the heap; may be missing altogether.
template <typename T>
struct Array {
  std::unique_ptr<T[]> data;
  int64_t count = 0;
  bool missing = false;

  void resize(int64_t wanted) {
    std::unique_ptr<T[]> moved(new T[wanted]());
    std::copy_n(data.get(), std::min(count, wanted), moved.get());
    data = std::move(moved);
    count = wanted;
  }
  // Wraps around.
  void add(int64_t i, int64_t by) {
    data[i] = static_cast<T>(static_cast<uint64_t>(data[i]) + static_cast<uint64_t>(by));
  }
  T* get() const { return missing ? nullptr : data.get(); }

  // One of the ways in which an array of indices goes bad.
  void damage(Random& random) {
    if (random.one_in(24)) missing = true;
    if (!count) return;
    const int64_t i = random.below(count), j = random.below(count);
    switch (random.below(6)) {
      case 0: data[i] = static_cast<T>(random.bits()); break;
      case 1: add(i, random.pick<int64_t>({-1, 1, 16, -16, 64})); break;
      case 2: data[i] = static_cast<T>(random.pick<int64_t>({0, -1, INT32_MAX, INT32_MIN, 255, 65535, 1})); break;
      case 3: std::swap(data[i], data[j]); break;
      case 4: {
        const int64_t by = random.pick<int64_t>({-1, 1, 2, -5, 100});
        for (int64_t p = i; p < count; ++p) add(p, by);
        break;
      }
      default:
        for (int64_t p = std::min(i, j); p < count; ++p) data[p] = static_cast<T>(random.bits());
    }
  }
};

using Bytes = Array<uint8_t>;

DType any_dtype(Random& random) { return random.pick({DType::kFloat32, DType::kBFloat16, DType::kFloat16}); }

// A damaged count: arrays are cut or extended to it, so that it is true, however little it fits the rest.
int64_t damaged_count(Random& random, int64_t count) {
  return std::max<int64_t>(0, random.pick<int64_t>({count - 1, count + 1, count / 2, 0, count + 40, 2 * count}));
}

// Everything around the weight: activations, output with a strip behind every row that nobody may write.
struct Surroundings {
  static constexpr uint8_t kCanary = 0xa5;
  LinearIo io;
  Bytes x, y, bias, grad_y;
  Array<float> scale;
  int64_t claimed_rows = 0;

  Surroundings(Random& random, int64_t m, int64_t n, int64_t k, DType weights) {
    io.m = m, io.n = n, io.k = k;
    io.dtype = any_dtype(random);
    io.bias_dtype = any_dtype(random);
    io.weight_dtype = weights;
    io.x_row_stride = k + random.below(3);
    io.y_row_stride = n + random.below(3);
    io.activation = static_cast<Activation>(random.below(5));
    io.compute = weights == DType::kInt8 && random.one_in(2) ? Compute::kInt8
                 : random.one_in(6)                          ? Compute::kFloat16
                                                             : Compute::kFloat32;
    fill(random, x, io.dtype, m ? (m - 1) * io.x_row_stride + k : 0);
    fill(random, grad_y, io.dtype, m ? (m - 1) * io.y_row_stride + n : 0);
    y.resize((m ? (m - 1) * io.y_row_stride + n : 0) * size_of(io.dtype));
    std::fill_n(y.data.get(), y.count, kCanary);
    if (random.one_in(2)) fill(random, bias, io.bias_dtype, n);
    if (weights == DType::kInt8) {
      scale.resize(n);
      for (int64_t i = 0; i < n; ++i) scale.data[i] = random.one_in(30) ? std::nanf("") : 0.01f;
      scale.missing = random.one_in(40);
    }
    io.x = x.get();
    io.y = y.get();
    io.bias = bias.count ? bias.get() : nullptr;
    io.weight_scale = weights == DType::kInt8 ? scale.get() : nullptr;
  }

  static void fill(Random& random, Bytes& array, DType dtype, int64_t count) {
    array.resize(count * size_of(dtype));
    const bool wild = random.one_in(4);  // NaN, infinities and denormals included
    for (int64_t i = 0; i < array.count; ++i) {
      array.data[i] = static_cast<uint8_t>(random.bits());
      if (!wild && i % size_of(dtype) == size_of(dtype) - 1) array.data[i] = random.pick<uint8_t>({0x3b, 0xbb, 0x3a});
    }
  }

  void check_canaries() const {
    const int64_t width = io.n * size_of(io.dtype), pitch = io.y_row_stride * size_of(io.dtype);
    for (int64_t t = 0; t + 1 < io.m; ++t)
      for (int64_t b = width; b < pitch; ++b)
        if (y.data[t * pitch + b] != kCanary) fail("linear wrote between the rows of y");
  }

  WeightGradIo gradient(Array<float>& out, int64_t count) const {
    out.resize(count);
    WeightGradIo gradient;
    gradient.grad_y = grad_y.get(), gradient.x = x.get(), gradient.out = out.get();
    gradient.m = io.m, gradient.n = io.n, gradient.k = io.k;
    gradient.grad_y_row_stride = io.y_row_stride, gradient.x_row_stride = io.x_row_stride;
    gradient.dtype = io.dtype;
    return gradient;
  }
};

struct Shape {
  int64_t m, n, k;
};

Shape any_shape(Random& random) {
  return {random.pick<int64_t>({0, 1, 1, 2, 3, 4, 5, 8, 9, 17, 33}),
          random.one_in(3) ? random.pick<int64_t>({0, 1, 15, 16, 17, 31, 33, 64, 65}) : random.below(70),
          random.one_in(3) ? random.pick<int64_t>({0, 1, 16, 63, 64, 65, 128, 255, 257}) : random.below(90)};
}

Array<uint8_t> any_mask(Random& random, int64_t count) {
  Array<uint8_t> mask;
  mask.resize(count);
  const int64_t kept_in_eight = random.below(9);
  for (int64_t i = 0; i < count; ++i) mask.data[i] = random.below(8) < kept_in_eight;
  return mask;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How often each status came back, per family: the run must have seen both good and bad packings.
constexpr int kStatuses = static_cast<int>(Status::kOutOfMemory) + 1;
constexpr int kFamilyCount = 6;
int64_t seen[kFamilyCount][kStatuses];
int64_t current_case;
uint64_t current_seed;
const char* const kFamilies[] = {"row_lists",     "shared_lists", "nm_decode",
                                 "bitmap_decode", "group_lists",  "variable_nm"};

void fail(const char* what) {
  std::fprintf(stderr, "case %lld (seed %llu, %s): %s\nagain: fuzz_packings 1 %lld %llu\n",
               static_cast<long long>(current_case), static_cast<unsigned long long>(current_seed),
               isa_name(current_isa()), what, static_cast<long long>(current_case),
               static_cast<unsigned long long>(current_seed));
  std::abort();
}

// The rules that hold for every family. `validated` and `checked` are what the two checks said of the same packing.
void judge(int family, const Surroundings& around, bool damaged, Status validated, Status checked, Status ran) {
  ++seen[family][static_cast<int>(checked)];
  around.check_canaries();
  if (!damaged && validated != Status::kOk) fail(describe(validated));
  if (validated == Status::kOk && checked != Status::kOk) fail("valid in full, yet the quick check refuses it");
  if (ran == Status::kOutOfMemory) fail("linear wanted more memory than there is");
  // Indices are looked at by linear only, and by the check of everything.
  const bool found_later = ran == Status::kUnsupportedDType || ran == Status::kBadScale ||
                           (ran == Status::kBadIndex && validated != Status::kOk);
  if (checked == Status::kOk && ran != Status::kOk && !found_later) fail("linear refuses what its own check accepts");
  if (checked != Status::kOk && ran == Status::kOk && around.io.m > 0 && around.io.n > 0)
    fail("linear runs what its own check refuses");
}

// Packings are made from random masks, then damaged `times` times.
void fuzz_row_lists(Random& random, Shape shape, DType dtype, int times) {
  RowLists weight;
  weight.block = static_cast<int32_t>(16 * (1 + random.below(16)));
  const Array<uint8_t> mask = any_mask(random, shape.n * shape.k);
  Bytes dense, values;
  Surroundings::fill(random, dense, dtype, shape.n * shape.k);
  Array<uint8_t> offsets;
  Array<int32_t> block_ptr;
  weight.nnz = row_lists_count(mask.get(), shape.n, shape.k);
  const auto fit = [&] {
    values.resize(weight.nnz * size_of(dtype));
    offsets.resize(weight.nnz);
    if (weight.block > 0) block_ptr.resize(ceil_div(shape.k, weight.block) * (shape.n + 1));
  };
  fit();
  if (row_lists_pack(dense.get(), dtype, mask.get(), shape.n, shape.k, weight.block, values.get(), offsets.get(),
                     block_ptr.get()) != Status::kOk)
    fail("row_lists_pack refuses a good mask");
  for (int i = 0; i < times; ++i) switch (random.below(6)) {
      case 0:
      case 1: block_ptr.damage(random); break;
      case 2:
      case 3: offsets.damage(random); break;
      case 4: weight.nnz = damaged_count(random, weight.nnz); break;
      default: weight.block = random.pick<int32_t>({0, -16, 8, 17, 272, 16, 32, 256, INT32_MAX});
    }
  fit();
  weight.values = values.get(), weight.offsets = offsets.get(), weight.block_ptr = block_ptr.get();
  Surroundings around(random, shape.m, shape.n, shape.k, dtype);
  int64_t where = 0;
  const Status validated = row_lists_validate(weight, shape.n, shape.k, &where);
  const Status checked = row_lists_check(weight, shape.n, shape.k);
  judge(0, around, times > 0, validated, checked, row_lists_linear(around.io, weight));
  Array<float> gradient;
  row_lists_weight_grad(around.gradient(gradient, weight.nnz), weight);
  if (validated != Status::kOk) return;
  if (row_lists_unpack(weight, dtype, shape.n, shape.k, dense.get()) != Status::kOk) fail("unpack refuses it");
  Array<uint8_t> offsets_t;
  Array<int32_t> block_ptr_t, order;
  offsets_t.resize(weight.nnz), order.resize(weight.nnz), block_ptr_t.resize(ceil_div(shape.n, 64) * (shape.k + 1));
  if (row_lists_transpose(weight, shape.n, shape.k, 64, offsets_t.get(), block_ptr_t.get(), order.get()) != Status::kOk)
    fail("transpose refuses it");
}

void fuzz_shared_lists(Random& random, Shape shape, DType dtype, int times) {
  SharedLists weight;
  weight.vector = random.pick<int32_t>({4, 8, 16, 32, 64});
  const int64_t groups = ceil_div(shape.n, weight.vector);
  const Array<uint8_t> mask = any_mask(random, groups * shape.k);
  Bytes dense, values;
  Surroundings::fill(random, dense, dtype, shape.n * shape.k);
  Array<uint16_t> columns;
  Array<int32_t> group_ptr;
  weight.records = shared_lists_count(mask.get(), groups, shape.k);
  const auto fit = [&] {
    if (weight.vector > 0 && weight.vector <= 1024) {
      values.resize(weight.records * weight.vector * size_of(dtype));
      group_ptr.resize(ceil_div(shape.n, weight.vector) + 1);
    }
    columns.resize(weight.records);
  };
  fit();
  if (shared_lists_pack(dense.get(), dtype, mask.get(), shape.n, shape.k, weight.vector, values.get(), columns.get(),
                        group_ptr.get()) != Status::kOk)
    fail("shared_lists_pack refuses a good mask");
  for (int i = 0; i < times; ++i) switch (random.below(6)) {
      case 0:
      case 1: group_ptr.damage(random); break;
      case 2:
      case 3: columns.damage(random); break;
      case 4: weight.records = damaged_count(random, weight.records); break;
      default: weight.vector = random.pick<int32_t>({0, -4, 1, 5, 48, 128, 4, 64, INT32_MAX});
    }
  fit();
  weight.values = values.get(), weight.columns = columns.get(), weight.group_ptr = group_ptr.get();
  Surroundings around(random, shape.m, shape.n, shape.k, dtype);
  int64_t where = 0;
  const Status validated = shared_lists_validate(weight, shape.n, shape.k, &where);
  const Status checked = shared_lists_check(weight, shape.n, shape.k);
  judge(1, around, times > 0, validated, checked, shared_lists_linear(around.io, weight));
  Array<float> gradient;
  shared_lists_weight_grad(around.gradient(gradient, std::clamp<int64_t>(weight.vector, 0, 1024) * weight.records),
                           weight);
  if (validated != Status::kOk) return;
  if (shared_lists_unpack(weight, dtype, shape.n, shape.k, dense.get()) != Status::kOk) fail("unpack refuses it");
}

// A small convolution of as many columns as the weight has, planes as long as they are said to be.
void fuzz_group_lists_conv(Random& random, const GroupLists& weight, int64_t n, int64_t k, DType weights,
                           Status checked) {
  ConvIo io;
  Window& w = io.window;
  w.kernel_h = random.pick<int64_t>({1, 1, 2, 3}), w.kernel_w = random.pick<int64_t>({1, 1, 3});
  if (k % (w.kernel_h * w.kernel_w)) w.kernel_h = w.kernel_w = 1;
  w.height = 1 + random.below(9), w.width = 1 + random.below(20);
  w.out_height = random.one_in(3) ? 1 + random.below(9) : w.height;
  w.out_width = random.one_in(3) ? 1 + random.below(20) : w.width;
  w.stride_h = 1 + random.below(2), w.stride_w = 1 + random.below(3);
  w.pad_top = random.below(3), w.pad_left = random.below(3);
  w.dilation_h = 1 + random.below(2);
  if (random.one_in(2)) w.stride_h = w.stride_w = 1, w.pad_top = w.pad_left = 0;
  io.images = random.below(3);
  io.channels = k / (w.kernel_h * w.kernel_w), io.out_channels = n;
  io.dtype = any_dtype(random), io.weight_dtype = weights;
  io.x_layout = random.pick({ImageLayout::kChw, ImageLayout::kHwc});
  io.y_layout = random.pick({ImageLayout::kChw, ImageLayout::kHwc});
  io.padded = random.one_in(3);
  io.activation = static_cast<Activation>(random.below(kLastActivation + 1));
  const auto side = [&](ImageLayout layout, int64_t channels, int64_t pixels, int64_t* image_stride, int64_t* stride) {
    const int64_t plane = io.padded ? ceil_div(pixels, kPlaneLanes) * kPlaneLanes : pixels;
    *stride = layout == ImageLayout::kHwc ? channels : plane;
    *image_stride = std::max<int64_t>(1, channels * (layout == ImageLayout::kHwc ? pixels : plane));
    return io.images * *image_stride;
  };
  Bytes x, y, residual;
  Surroundings::fill(random, x, io.dtype,
                     side(io.x_layout, io.channels, w.height * w.width, &io.x_image_stride, &io.x_stride));
  const int64_t outputs = side(io.y_layout, n, w.out_height * w.out_width, &io.y_image_stride, &io.y_stride);
  y.resize(outputs * size_of(io.dtype));
  if (random.one_in(2)) {
    Surroundings::fill(random, residual, io.dtype, outputs);
    io.residual = residual.get();
    io.residual_image_stride = io.y_image_stride, io.residual_stride = io.y_stride;
  }
  Array<float> scale;
  scale.resize(n);
  io.weight_scale = scale.get();
  io.x = x.get(), io.y = y.get();
  const Status ran = group_lists_conv(io, weight);
  if (ran == Status::kOk && checked != Status::kOk) fail("conv runs what its own check refuses");
  if (ran != Status::kOk && ran != checked && ran != Status::kBadIndex && check_window(w) == Status::kOk)
    fail("conv refuses what its check accepts");
  Array<float> out;
  out.resize((weight.records + 1) * std::clamp(weight.rows, 0, 32) * std::clamp(weight.cols, 0, 32));
  ConvGradIo gradient;
  gradient.grad_y = y.get(), gradient.x = x.get(), gradient.out = out.get();
  gradient.images = io.images, gradient.channels = io.channels, gradient.out_channels = n;
  gradient.x_image_stride = io.x_image_stride, gradient.x_stride = io.x_stride;
  gradient.grad_y_image_stride = io.y_image_stride, gradient.grad_y_stride = io.y_stride;
  gradient.layout = io.x_layout, gradient.window = w, gradient.dtype = io.dtype;
  if (io.x_layout == io.y_layout) group_lists_conv_weight_grad(gradient, weight);
}

void fuzz_group_lists(Random& random, Shape shape, DType dtype, int times) {
  GroupLists weight;
  weight.rows = random.pick<int32_t>({1, 1, 2, 4, 8, 16, 32}), weight.cols = random.pick<int32_t>({1, 1, 2, 4, 16});
  weight.depth = 16 * static_cast<int32_t>(1 + random.below(20));
  if (random.one_in(20)) weight.depth = random.pick<int32_t>({512, 4096, 65536});
  weight.window = static_cast<int32_t>(1 + random.below(random.one_in(2) ? 256 : 12));
  const int64_t groups = ceil_div(shape.n, weight.rows), blocks = ceil_div(shape.k, weight.cols);
  const Array<uint8_t> mask = any_mask(random, groups * blocks);
  Bytes dense, values, index;
  Array<uint16_t> wide_index;
  Surroundings::fill(random, dense, dtype, shape.n * shape.k);
  Array<uint8_t> order;
  Array<int32_t> starts;
  weight.records = group_lists_count(mask.get(), groups, blocks);
  bool wide = false;
  // Arrays as long as the pattern says, as far as it says anything.
  const auto fit = [&] {
    if (weight.rows < 1 || weight.rows > 32 || weight.cols < 1 || weight.cols > 32 || weight.depth < 1) return;
    wide = group_lists_index_bytes(weight.cols, weight.depth) == 2;
    values.resize((weight.records + 1) * weight.rows * weight.cols * size_of(dtype));
    index.resize(weight.records + 1), wide_index.resize(weight.records + 1);
    const int64_t now = ceil_div(shape.n, weight.rows), panels = ceil_div(shape.k, weight.depth);
    order.resize(panels * now), starts.resize(panels * (now + 1));
  };
  fit();
  void* indices = wide ? static_cast<void*>(wide_index.get()) : index.get();
  if (group_lists_pack(dense.get(), dtype, mask.get(), shape.n, shape.k, weight.rows, weight.cols, weight.depth,
                       weight.window, values.get(), indices, order.get(), starts.get()) != Status::kOk)
    fail("group_lists_pack refuses a good mask");
  for (int i = 0; i < times; ++i) switch (random.below(8)) {
      case 0:
      case 1: starts.damage(random); break;
      case 2:
      case 3: index.damage(random), wide_index.damage(random); break;
      case 4: order.damage(random); break;
      case 5: weight.records = damaged_count(random, weight.records); break;
      case 6: weight.window = random.pick<int32_t>({0, -1, 1, 7, 256, 257, INT32_MAX}); break;
      default:
        if (random.one_in(2))
          weight.depth = random.pick<int32_t>({0, -16, 8, 16, 24, 32, 272, 65536, 65552, INT32_MAX});
        else
          (random.one_in(2) ? weight.rows : weight.cols) = random.pick<int32_t>({0, -1, 1, 2, 3, 8, 32, 64, INT32_MAX});
    }
  fit();
  weight.values = values.get(), weight.order = order.get(), weight.starts = starts.get();
  weight.index = wide ? static_cast<void*>(wide_index.get()) : index.get();
  Surroundings around(random, shape.m, shape.n, shape.k, dtype);
  int64_t where = 0;
  const Status validated = group_lists_validate(weight, shape.n, shape.k, &where);
  const Status checked = group_lists_check(weight, shape.n, shape.k);
  judge(4, around, times > 0, validated, checked, group_lists_linear(around.io, weight));
  Array<float> gradient;
  const int64_t record = std::clamp(weight.rows, 0, 32) * std::clamp(weight.cols, 0, 32);
  group_lists_weight_grad(around.gradient(gradient, (weight.records + 1) * record), weight);
  fuzz_group_lists_conv(random, weight, shape.n, shape.k, dtype, checked);
  if (validated != Status::kOk) return;
  if (group_lists_unpack(weight, dtype, shape.n, shape.k, dense.get()) != Status::kOk) fail("unpack refuses it");
  const int64_t groups_t = ceil_div(shape.k, weight.cols), panels_t = ceil_div(shape.n, 64);
  Array<uint8_t> index_t, order_t;
  Array<int32_t> starts_t, source;
  index_t.resize(weight.records + 1), source.resize(weight.records);
  order_t.resize(panels_t * groups_t), starts_t.resize(panels_t * (groups_t + 1));
  if (group_lists_transpose(weight, shape.n, shape.k, 64, 16, index_t.get(), order_t.get(), starts_t.get(),
                            source.get()) != Status::kOk)
    fail("transpose refuses it");
}

void fuzz_nm_decode(Random& random, Shape shape, DType dtype, int times) {
  NMDecode weight;
  weight.m = static_cast<int32_t>(2 + random.below(31));
  weight.n_kept = static_cast<int32_t>(1 + random.below(weight.m - 1));
  Array<uint8_t> mask = any_mask(random, shape.n * shape.k);
  for (int64_t o = 0; o < shape.n; ++o)
    for (int64_t c = 0, kept = 0; c < shape.k; ++c) {
      if (c % weight.m == 0) kept = 0;
      if ((kept += mask.data[o * shape.k + c]) > weight.n_kept) mask.data[o * shape.k + c] = 0;
    }
  Bytes dense, values;
  Surroundings::fill(random, dense, dtype, shape.n * shape.k);
  Array<uint32_t> codes;
  int32_t bits = 1;
  while ((1 << bits) < weight.m) ++bits;
  const int64_t tiles = ceil_div(shape.n, 16), slots = ceil_div(shape.k, weight.m) * weight.n_kept;
  weight.value_count = tiles * slots * 16;
  weight.code_count = tiles * ceil_div(slots, 32 / bits) * 16;
  const auto fit = [&] {
    values.resize(weight.value_count * size_of(dtype));
    codes.resize(weight.code_count);
  };
  fit();
  if (nm_decode_pack(dense.get(), dtype, mask.get(), shape.n, shape.k, weight.n_kept, weight.m, values.get(),
                     codes.get()) != Status::kOk)
    fail("nm_decode_pack refuses a good mask");
  for (int i = 0; i < times; ++i) switch (random.below(6)) {
      case 0:
      case 1:
      case 2: codes.damage(random); break;
      case 3: weight.value_count = damaged_count(random, weight.value_count); break;
      case 4: weight.code_count = damaged_count(random, weight.code_count); break;
      default:
        if (random.one_in(2))
          weight.n_kept = random.pick<int32_t>({0, -1, 1, 2, weight.m, 31, INT32_MAX});
        else
          weight.m = random.pick<int32_t>({0, -4, 1, 2, 4, 33, INT32_MAX, INT32_MIN});
    }
  fit();
  weight.values = values.get(), weight.codes = codes.get();
  Surroundings around(random, shape.m, shape.n, shape.k, dtype);
  int64_t where = 0;
  const Status validated = nm_decode_validate(weight, dtype, shape.n, shape.k, &where);
  const Status checked = nm_decode_check(weight, shape.n, shape.k);
  judge(2, around, times > 0, validated, checked, nm_decode_linear(around.io, weight));
  if (validated == Status::kOk && nm_decode_unpack(weight, dtype, shape.n, shape.k, dense.get()) != Status::kOk)
    fail("unpack refuses it");
}

void fuzz_bitmap_decode(Random& random, Shape shape, DType dtype, int times) {
  BitmapDecode weight;
  const Array<uint8_t> mask = any_mask(random, shape.n * shape.k);
  Bytes dense, values;
  Surroundings::fill(random, dense, dtype, shape.n * shape.k);
  Array<uint64_t> bitmap;
  Array<int32_t> row_ptr;
  weight.nnz = row_lists_count(mask.get(), shape.n, shape.k);
  values.resize(weight.nnz * size_of(dtype));
  bitmap.resize(shape.n * ceil_div(shape.k, 64));
  row_ptr.resize(shape.n + 1);
  if (bitmap_decode_pack(dense.get(), dtype, mask.get(), shape.n, shape.k, values.get(), bitmap.get(), row_ptr.get()) !=
      Status::kOk)
    fail("bitmap_decode_pack refuses a good mask");
  for (int i = 0; i < times; ++i) switch (random.below(4)) {
      case 0: row_ptr.damage(random); break;
      case 1:
      case 2:
        if (random.one_in(2) && bitmap.count)
          bitmap.data[random.below(bitmap.count)] ^= 1ull << random.below(64);
        else
          bitmap.damage(random);
        break;
      default: weight.nnz = damaged_count(random, weight.nnz);
    }
  values.resize(weight.nnz * size_of(dtype));
  weight.values = values.get(), weight.bitmap = bitmap.get(), weight.row_ptr = row_ptr.get();
  Surroundings around(random, shape.m, shape.n, shape.k, dtype);
  const Status checked = bitmap_decode_check(weight, shape.n, shape.k);
  judge(3, around, times > 0, checked, checked, bitmap_decode_linear(around.io, weight));
  if (checked == Status::kOk && bitmap_decode_unpack(weight, dtype, shape.n, shape.k, dense.get()) != Status::kOk)
    fail("unpack refuses it");
}

void fuzz_variable_nm(Random& random, Shape shape, DType dtype, int times) {
  shape.n = ceil_div(shape.n, 16) * 16, shape.k = ceil_div(shape.k, 16) * 16;
  Array<uint8_t> codes, mask, indices;
  codes.resize(shape.n / 16 * (shape.k / 16));
  mask.resize(shape.n * shape.k);
  for (int64_t b = 0; b < codes.count; ++b) codes.data[b] = random.pick<uint8_t>({0, 2, 4, 8, 16});
  for (int64_t row = 0; row < shape.n; ++row)
    for (int64_t b = 0; b < shape.k / 16; ++b)
      for (int i = 0; i < codes.data[row / 16 * (shape.k / 16) + b]; ++i)
        mask.data[row * shape.k + b * 16 + random.below(16)] = 1;
  Bytes dense, values;
  Surroundings::fill(random, dense, dtype, shape.n * shape.k);
  VariableNM weight;
  weight.code_count = codes.count;
  if (variable_nm_count(codes.get(), shape.n, shape.k, &weight.value_count, &weight.index_count) != Status::kOk)
    fail("variable_nm_count refuses good codes");
  const auto fit = [&] {
    values.resize(weight.value_count * size_of(dtype));
    indices.resize(weight.index_count), codes.resize(weight.code_count);
  };
  fit();
  if (variable_nm_pack(dense.get(), dtype, mask.get(), codes.get(), shape.n, shape.k, values.get(), indices.get()) !=
      Status::kOk)
    fail("variable_nm_pack refuses a good mask");
  for (int i = 0; i < times; ++i) switch (random.below(8)) {
      case 0:
      case 1: codes.damage(random); break;
      case 2:
      case 3: indices.damage(random); break;
      case 4: weight.value_count = damaged_count(random, weight.value_count); break;
      case 5: weight.index_count = damaged_count(random, weight.index_count); break;
      case 6: weight.code_count = damaged_count(random, weight.code_count); break;
      default: (random.one_in(2) ? shape.n : shape.k) += random.pick<int64_t>({1, 8, 16});
    }
  fit();
  weight.values = values.get(), weight.indices = indices.get(), weight.codes = codes.get();
  Surroundings around(random, shape.m, shape.n, shape.k, dtype);
  int64_t where = 0;
  const Status validated = variable_nm_validate(weight, shape.n, shape.k, &where);
  const Status checked = variable_nm_check(weight, shape.n, shape.k);
  judge(5, around, times > 0, validated, checked, variable_nm_linear(around.io, weight));
  dense.resize(shape.n * shape.k * size_of(dtype));
  if (validated == Status::kOk && variable_nm_unpack(weight, dtype, shape.n, shape.k, dense.get()) != Status::kOk)
    fail("unpack refuses it");
}

// Tasks one after the other, cut as for several threads.
int threads = 1;
void run_serially(int64_t count, Task task, void* context) {
  for (int64_t i = count; i-- > 0;) task(context, i);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t cases = argc > 1 ? std::atoll(argv[1]) : 200000, first = argc > 2 ? std::atoll(argv[2]) : 0;
  current_seed = argc > 3 ? static_cast<uint64_t>(std::atoll(argv[3])) : 1;
  set_parallel_host({run_serially, [] { return threads; }});
  Isa levels[16];
  const int level_count = available_isas(levels, 16);
  for (current_case = first; current_case < first + cases; ++current_case) {
    Random random(current_seed * 0x9e3779b97f4a7c15u ^ static_cast<uint64_t>(current_case) * 0xd1342543de82ef95u);
    set_isa_cap(levels[random.below(level_count)]);
    threads = static_cast<int>(1 + random.below(4));
    const Shape shape = any_shape(random);
    const DType dtype = random.one_in(3) ? DType::kInt8 : any_dtype(random);
    const int times = random.one_in(8) ? 0 : static_cast<int>(1 + random.below(3));
    switch (current_case % kFamilyCount) {
      case 0: fuzz_row_lists(random, shape, dtype, times); break;
      case 1: fuzz_shared_lists(random, shape, dtype, times); break;
      case 2: fuzz_nm_decode(random, shape, dtype, times); break;
      case 3: fuzz_group_lists(random, shape, dtype, times); break;
      case 4: fuzz_variable_nm(random, shape, dtype, times); break;
      default: fuzz_bitmap_decode(random, shape, dtype, times);
    }
  }
  bool both = true;
  for (int family = 0; family < kFamilyCount; ++family) {
    int64_t total = 0;
    for (int64_t count : seen[family]) total += count;
    std::printf("%s: %lld packings", kFamilies[family], static_cast<long long>(total));
    for (int status = 0; status < kStatuses; ++status)
      if (seen[family][status])
        std::printf("; %lld %s", static_cast<long long>(seen[family][status]), describe(static_cast<Status>(status)));
    std::printf("\n");
    const int64_t good = seen[family][0];
    both = both && (total < 1000 || (20 * good > total && 20 * (total - good) > total));
  }
  if (!both) std::printf("one of the families saw hardly any good or hardly any bad packings\n");
  return both ? 0 : 1;
}

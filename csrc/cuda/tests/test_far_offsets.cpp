// Offsets past 2^31 elements in every operand of every family. Rows lie gigabytes apart in memory that is reserved and
// never filled; packed weights lie behind gigabytes of weights that no list names, or that belong to blocks which the
// emulator does not run. Numbers are small integers: every sum is exact.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include "cuda/tests/bitmap_decode_dense_problem.h"
#include "cuda/tests/bitmap_decode_problem.h"
#include "cuda/tests/block_sparse_problem.h"
#include "cuda/tests/group_lists_problem.h"
#include "cuda/tests/semi_structured_problem.h"
#include "cuda/tests/vnm_problem.h"

using namespace sparsecore;

namespace {

constexpr int64_t kFar = int64_t{1} << 31;
constexpr int kEnough = 1 << 30;  // multiprocessors: persistent kernels have a block for each tile

const group_lists_cuda::Plan kGroupPlans[] = {
    {group_lists_cuda::kSmall, 8, 1}, {group_lists_cuda::kExpanding, 32, 1}, {group_lists_cuda::kExpanding, 128, 1}};
const block_sparse::Plan kBlockPlans[] = {{block_sparse::Plan::Kernel::kSmall, 8, 1},
                                          {block_sparse::Plan::Kernel::kSm80, 32, 1},
                                          {block_sparse::Plan::Kernel::kSm80, 128, 2},
                                          {block_sparse::Plan::Kernel::kSm90, 128, 1}};

// Zeros, of which only the pages that are touched exist.
class FarMemory {
 public:
  explicit FarMemory(int64_t bytes) : bytes_(static_cast<size_t>(std::max<int64_t>(bytes, 1))) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(data_ != MAP_FAILED);
  }
  ~FarMemory() { munmap(data_, bytes_); }
  FarMemory(const FarMemory&) = delete;
  FarMemory& operator=(const FarMemory&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

// A matrix and a copy of it with rows `stride` elements apart.
struct FarMatrix {
  DeviceMatrix& near;
  int64_t stride;
  FarMemory memory;

  FarMatrix(DeviceMatrix& near, int64_t stride)
      : near(near), stride(stride), memory(near.rows * stride * size_of(near.dtype)) {
    for (int64_t row = 0; row < near.rows; ++row) std::memcpy(at(row), near.at(row, 0), row_bytes());
  }
  char* data() const { return memory.data(); }
  void read_back() {
    for (int64_t row = 0; row < near.rows; ++row) std::memcpy(near.at(row, 0), at(row), row_bytes());
  }

 private:
  char* at(int64_t row) const { return memory.data() + row * stride * size_of(near.dtype); }
  size_t row_bytes() const { return near.columns * size_of(near.dtype); }
};

// Elements that begin at place `first` of an array that is otherwise zero.
template <class T>
struct FarArray {
  FarMemory memory;
  FarArray(const T* elements, int64_t count, int64_t first)
      : memory((first + count) * static_cast<int64_t>(sizeof(T))) {
    std::memcpy(memory.data() + first * sizeof(T), elements, count * sizeof(T));
  }
  T* data() const { return reinterpret_cast<T*>(memory.data()); }
};

// run(params) with x, y and the residual far apart.
template <class Problem, class Params, class Run>
void check_rows(Problem& problem, Params params, bool tensor_copies, const Run& run) {
  REQUIRE(problem.options.residual);
  for (const int64_t stride : {kFar, kFar + 1}) {
    if (tensor_copies && stride % 8) continue;
    CAPTURE(stride);
    problem.forget();
    FarMatrix x(problem.x, stride), y(problem.y, stride), residual(problem.residual, stride);
    params.x = x.data();
    params.y = y.data();
    params.residual = residual.data();
    params.x_row_stride = params.y_row_stride = params.residual_row_stride = stride;
    REQUIRE(run(params) == Status::kOk);
    y.read_back();
    CHECK(problem.first_wrong() == -1);
  }
}

}  // namespace

TEST_CASE("far offsets: persistent blocks end at the last of 2^31 - 1 works") {
  using cuda_linear::work_after;
  CHECK(work_after(0, 132, INT32_MAX) == 132);
  CHECK(work_after(INT32_MAX - 133, 132, INT32_MAX) == INT32_MAX - 1);
  for (const int step : {132, INT32_MAX}) CHECK(work_after(INT32_MAX - 132, step, INT32_MAX) == INT32_MAX);
  CHECK(work_after(3, 4, 7) == 7);
}

TEST_CASE("far offsets: rows of x, y and the residual, 2:4 and lifted") {
  using semi_structured::Plan;
  using Kernel = Plan::Kernel;
  for (const int32_t group : {4, 6})
    for (const Plan& plan : {Plan{Kernel::kSmallSm80, 8, 1}, Plan{Kernel::kSmallSm80, 8, 2},
                             Plan{Kernel::kTiledSm80, 64, 1}, Plan{Kernel::kWgmmaSm90, 64, 1}}) {
      ProblemOptions options;
      options.group = group;
      options.residual = true;
      MatmulProblem problem(3, 40, 72, options);
      const int64_t lifted = semi_structured::lifted_row_bytes(72, options.dtype, group);
      const auto params = problem.params(semi_structured::workspace_bytes(plan, 3, 40, lifted));
      const cuda_emulation::ScopedOptions scoped(next_adversary(90));
      check_rows(problem, params, plan.kernel == Kernel::kWgmmaSm90,
                 [&](const auto& p) { return semi_structured::run_plan(plan, p, nullptr); });
    }
}

TEST_CASE("far offsets: rows of x, y and the residual, gathered products") {
  using gathered::Plan;
  using Kernel = Plan::Kernel;
  for (const Plan& plan : {Plan{Kernel::kSmallSm80, 8, 1}, Plan{Kernel::kTiledSm80, 64, 2},
                           Plan{Kernel::kWgmmaSm90, 128, 1}, Plan{Kernel::kPickedSm90, 128, 1}}) {
    const int64_t bytes = gathered::workspace_bytes(plan, 3, 70, 200);
    const cuda_emulation::ScopedOptions scoped(next_adversary(90));
    VnmProblem<BFloat16> vnm({3, 70, 200, 64, 8});
    check_rows(vnm, vnm.params(bytes), false, [&](const auto& p) { return cuda_vnm::run_plan(plan, p, nullptr); });
    if (plan.kernel == Kernel::kPickedSm90) continue;
    SharedListsProblem<BFloat16> lists({3, 70, 200, 64});
    check_rows(lists, lists.params(bytes), false,
               [&](const auto& p) { return cuda_shared_lists::run_plan(plan, p, nullptr); });
  }
}

TEST_CASE("far offsets: rows of x, y and the residual, blocks, groups and bitmaps") {
  using BlockPlan = block_sparse::Plan;
  for (const BlockPlan& plan : kBlockPlans) {
    BlockOptions options;
    options.residual = true;
    BlockProblem problem(3, 100, 200, 64, options);
    const cuda_emulation::ScopedOptions scoped(next_adversary(90));
    check_rows(problem, problem.params(block_sparse::workspace_bytes(plan, 3, 100)),
               plan.kernel == BlockPlan::Kernel::kSm90,
               [&](const auto& p) { return block_sparse::run_plan(plan, p, nullptr); });
  }
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  for (const group_lists_cuda::Plan& plan : kGroupPlans) {
    GroupOptions options;
    options.residual = true;
    GroupProblem problem(3, 70, 200, 4, 1, 128, 8, options);
    check_rows(problem, problem.params(1), false,
               [&](const auto& p) { return group_lists_cuda::run_plan(plan, p, nullptr); });
  }
  for (const int tokens : {8, 32}) {
    BitmapOptions options;
    options.residual = true;
    BitmapProblem problem(3, 40, 300, options);
    check_rows(problem, problem.params(0), false,
               [&](const auto& p) { return cuda_bitmap_decode::run_plan({tokens, 1}, p, nullptr); });
  }
}

TEST_CASE("far offsets: rows of what gradients are made of") {
  for (const int64_t stride : {kFar, kFar + 1}) {
    CAPTURE(stride);
    const cuda_emulation::ScopedOptions scoped(next_adversary(90));
    using Kernel = block_sparse::Plan::Kernel;
    for (const auto& [kernel, size] : {std::pair{Kernel::kSm80, 16}, {Kernel::kSm90, 64}}) {
      if (kernel == Kernel::kSm90 && stride % 8) continue;
      BlockGradProblem problem(3, 100, 150, size, DType::kBFloat16, DType::kFloat32, 0, 0, 1);
      BlockSparseGradParams p = problem.params(1);
      FarMatrix grad_y(problem.grad_y, stride), x(problem.x, stride);
      p.grad_y = grad_y.data(), p.x = x.data();
      p.grad_y_row_stride = p.x_row_stride = stride;
      REQUIRE(block_sparse::run_grad({kernel, 1}, p, nullptr) == Status::kOk);
      CHECK(problem.first_wrong() == -1);
    }
    {
      GroupProblem problem(3, 70, 200, 4, 1, 128, 8, {});
      GroupListsGradParams p = problem.grad_params();
      FarMatrix grad_y(problem.grad_y, stride), x(problem.x, stride);
      p.grad_y = grad_y.data(), p.x = x.data();
      p.grad_y_row_stride = p.x_row_stride = stride;
      REQUIRE(group_lists_cuda_weight_grad(p, nullptr) == Status::kOk);
      CHECK(problem.first_wrong_gradient() == -1);
    }
    {
      SharedListsProblem<BFloat16> problem({3, 40, 100, 16});
      DeviceMatrix grads(DType::kBFloat16, 3, 40, 40, 0);
      Numbers numbers(5);
      grads.fill(numbers);
      cuda_emulation::GlobalBuffer<float> near_out(problem.records * 16), far_out(problem.records * 16);
      cuda_emulation::GlobalBuffer<char> workspace(shared_lists_weight_grad_workspace(3, 40, 100));
      SharedListsWeightGradParams p;
      p.weight = problem.weight();
      p.m = 3, p.n = 40, p.k = 100;
      p.workspace = workspace.data(), p.workspace_bytes = static_cast<int64_t>(workspace.size());
      p.grad_y = grads.data(), p.grad_y_row_stride = grads.stride;
      p.x = problem.x.data(), p.x_row_stride = problem.x.stride;
      p.out = near_out.data();
      REQUIRE(shared_lists_weight_grad_device(p, nullptr) == Status::kOk);
      FarMatrix grad_y(grads, stride), x(problem.x, stride);
      p.grad_y = grad_y.data(), p.x = x.data(), p.out = far_out.data();
      p.grad_y_row_stride = p.x_row_stride = stride;
      REQUIRE(shared_lists_weight_grad_device(p, nullptr) == Status::kOk);
      CHECK(far_out.to_vector() == near_out.to_vector());
    }
  }
}

TEST_CASE("far offsets: rows of dense matrices that become 2:4, come from it, or are its gradients") {
  constexpr int64_t n = 3, k = 72;
  constexpr DType dtype = DType::kBFloat16;
  for (const int64_t stride : {kFar, kFar + 1}) {
    CAPTURE(stride);
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    Numbers numbers(3);
    DeviceMatrix dense(dtype, n, k, k, 0), grad(dtype, n, k, k, 0), out(dtype, n, k, k, 0);
    dense.fill(numbers);
    grad.fill(numbers);
    FarMatrix far_dense(dense, stride), far_grad(grad, stride), far_out(out, stride);
    const int64_t value_bytes = semi_structured_value_bytes(n, k, dtype);
    const int64_t words = semi_structured_metadata_words(n, k, dtype);
    cuda_emulation::GlobalBuffer<char> values(value_bytes), far_values(value_bytes);
    cuda_emulation::GlobalBuffer<uint32_t> metadata(words), far_metadata(words);
    SemiStructuredCompressParams compress;
    compress.n = n, compress.k = k;
    compress.dense = dense.data(), compress.row_stride = k;
    compress.values = values.data(), compress.metadata = metadata.data();
    REQUIRE(semi_structured_compress(compress, nullptr) == Status::kOk);
    compress.dense = far_dense.data(), compress.row_stride = stride;
    compress.values = far_values.data(), compress.metadata = far_metadata.data();
    REQUIRE(semi_structured_compress(compress, nullptr) == Status::kOk);
    CHECK(far_values.to_vector() == values.to_vector());
    CHECK(far_metadata.to_vector() == metadata.to_vector());

    const SemiStructured weight{values.data(), metadata.data(), value_bytes, words};
    REQUIRE(semi_structured_decompress(weight, dtype, n, k, out.data(), k, nullptr) == Status::kOk);
    const std::vector<char> unpacked = out.buffer.to_vector();
    REQUIRE(semi_structured_decompress(weight, dtype, n, k, far_out.data(), stride, nullptr) == Status::kOk);
    far_out.read_back();
    CHECK(out.buffer.to_vector() == unpacked);

    SemiStructuredGatherParams gather;
    gather.n = n, gather.k = k, gather.metadata = metadata.data(), gather.metadata_words = words;
    gather.dense = dense.data(), gather.row_stride = k, gather.values = values.data();
    REQUIRE(semi_structured_gather(gather, nullptr) == Status::kOk);
    gather.dense = far_dense.data(), gather.row_stride = stride, gather.values = far_values.data();
    REQUIRE(semi_structured_gather(gather, nullptr) == Status::kOk);
    CHECK(far_values.to_vector() == values.to_vector());

    SemiStructuredStraightThroughParams through;
    through.n = n, through.k = k, through.weight = weight, through.decay = 0.5f;
    through.grad = grad.data(), through.dense = dense.data(), through.out = out.data();
    through.grad_row_stride = through.dense_row_stride = through.out_row_stride = k;
    REQUIRE(semi_structured_straight_through(through, nullptr) == Status::kOk);
    const std::vector<char> decayed = out.buffer.to_vector();
    through.grad = far_grad.data(), through.dense = far_dense.data(), through.out = far_out.data();
    through.grad_row_stride = through.dense_row_stride = through.out_row_stride = stride;
    REQUIRE(semi_structured_straight_through(through, nullptr) == Status::kOk);
    far_out.read_back();
    CHECK(out.buffer.to_vector() == decayed);

    // Three tokens of the same number of outputs and inputs.
    const int64_t square_words = semi_structured_metadata_words(k, k, dtype);
    const int64_t square_bytes = semi_structured_value_bytes(k, k, dtype);
    cuda_emulation::GlobalBuffer<char> sampled(square_bytes), far_sampled(square_bytes);
    cuda_emulation::GlobalBuffer<uint32_t> places(square_words);
    for (uint32_t& word : places) word = 0x44444444u;
    SemiStructuredSampledParams sample;
    sample.m = n, sample.n = k, sample.k = k, sample.metadata = places.data(), sample.metadata_words = square_words;
    sample.grad = grad.data(), sample.x = dense.data(), sample.values = sampled.data();
    sample.grad_row_stride = sample.x_row_stride = k;
    REQUIRE(semi_structured_sampled(sample, nullptr) == Status::kOk);
    sample.grad = far_grad.data(), sample.x = far_dense.data(), sample.values = far_sampled.data();
    sample.grad_row_stride = sample.x_row_stride = stride;
    REQUIRE(semi_structured_sampled(sample, nullptr) == Status::kOk);
    CHECK(far_sampled.to_vector() == sampled.to_vector());
  }
}

TEST_CASE("far offsets: weights of shared lists, their gradient, and the dense weight from them") {
  using gathered::Plan;
  using Kernel = Plan::Kernel;
  constexpr int vector = 64;
  constexpr int64_t first = kFar / vector + 1;
  SharedListsProblem<BFloat16> problem({5, 100, 200, vector});
  const FarArray<BFloat16> values(problem.values.data(), problem.records * vector, first * vector);
  const FarArray<uint16_t> columns(problem.columns.data(), problem.records, first);
  cuda_emulation::GlobalBuffer<int32_t> group_ptr(problem.group_ptr.to_vector());
  for (int32_t& start : group_ptr) start += static_cast<int32_t>(first);
  const SharedLists weight{values.data(), columns.data(), group_ptr.data(), first + problem.records, vector};
  for (const Plan& plan :
       {Plan{Kernel::kSmallSm80, 8, 1}, Plan{Kernel::kTiledSm80, 64, 2}, Plan{Kernel::kWgmmaSm90, 128, 1}}) {
    CAPTURE(static_cast<int>(plan.kernel));
    const cuda_emulation::ScopedOptions scoped(next_adversary(90));
    problem.forget();
    SharedListsLinearParams p = problem.params(gathered::workspace_bytes(plan, 5, 100, 200));
    p.weight = weight;
    REQUIRE(cuda_shared_lists::run_plan(plan, p, nullptr) == Status::kOk);
    CHECK(problem.first_wrong() == -1);
  }
  const cuda_emulation::ScopedOptions scoped(next_adversary(80));
  cuda_emulation::GlobalBuffer<uint16_t> near_dense(100 * 200), far_dense(100 * 200);
  REQUIRE(shared_lists_unpack_device(problem.weight(), DType::kBFloat16, 100, 200, near_dense.data(), nullptr) ==
          Status::kOk);
  REQUIRE(shared_lists_unpack_device(weight, DType::kBFloat16, 100, 200, far_dense.data(), nullptr) == Status::kOk);
  CHECK(far_dense.to_vector() == near_dense.to_vector());

  DeviceMatrix grads(DType::kBFloat16, 5, 100, 104, 0);
  Numbers numbers(5);
  grads.fill(numbers);
  cuda_emulation::GlobalBuffer<char> workspace(shared_lists_weight_grad_workspace(5, 100, 200));
  cuda_emulation::GlobalBuffer<float> near_out(problem.records * vector);
  const FarMemory far_out((first + problem.records) * vector * 4);
  SharedListsWeightGradParams p;
  p.m = 5, p.n = 100, p.k = 200;
  p.grad_y = grads.data(), p.grad_y_row_stride = grads.stride;
  // Without the column of NaN: it is in no list.
  p.x = problem.x.data(), p.x_row_stride = problem.x.stride;
  p.workspace = workspace.data(), p.workspace_bytes = static_cast<int64_t>(workspace.size());
  p.weight = problem.weight(), p.out = near_out.data();
  REQUIRE(shared_lists_weight_grad_device(p, nullptr) == Status::kOk);
  p.weight = weight, p.out = reinterpret_cast<float*>(far_out.data());
  REQUIRE(shared_lists_weight_grad_device(p, nullptr) == Status::kOk);
  CHECK(std::memcmp(p.out + first * vector, near_out.data(), near_out.size() * 4) == 0);
}

TEST_CASE("far offsets: values of blocks, and their gradient") {
  using block_sparse::Plan;
  for (const Plan& plan : kBlockPlans)
    for (const int32_t size : {64, 128}) {
      CAPTURE(static_cast<int>(plan.kernel));
      BlockProblem problem(5, 200, 300, size, {});
      const int64_t area = int64_t{size} * size, first = kFar / area + 1;
      const int64_t blocks = static_cast<int64_t>(problem.stored.index.size());
      const FarArray<char> values(problem.values.data(), blocks * area * 2, first * area * 2);
      const FarArray<int32_t> index(problem.stored.index.data(), blocks, first);
      for (int32_t& start : problem.index.starts) start += static_cast<int32_t>(first);
      BlockSparseParams p = problem.params(block_sparse::workspace_bytes(plan, 5, 200));
      p.weight.values = values.data(), p.weight.index = index.data(), p.weight.blocks = first + blocks;
      const cuda_emulation::ScopedOptions scoped(next_adversary(90));
      problem.forget();
      REQUIRE(block_sparse::run_plan(plan, p, nullptr) == Status::kOk);
      CHECK(problem.first_wrong() == -1);
    }
  constexpr int32_t size = 128;
  constexpr int64_t area = size * size, first = kFar / area + 1;
  BlockGradProblem problem(9, 200, 300, size, DType::kBFloat16, DType::kFloat32, 0, 0, 1);
  const int64_t blocks = static_cast<int64_t>(problem.host.index.size());
  const FarArray<int32_t> index(problem.host.index.data(), blocks, first);
  for (int32_t& start : problem.index.starts) start += static_cast<int32_t>(first);
  BlockSparseGradParams p = problem.params(1);
  const FarMemory out((first + blocks) * area * 4);
  p.weight.index = index.data(), p.weight.blocks = first + blocks;
  p.out = out.data();
  for (const Plan::Kernel kernel : {Plan::Kernel::kSm80, Plan::Kernel::kSm90}) {
    cuda_emulation::Options options = next_adversary(90);
    options.only_last = static_cast<uint64_t>(blocks);
    options.multiprocessors = kEnough;
    const cuda_emulation::ScopedOptions scoped(options);
    std::memset(out.data() + first * area * 4, 0xff, blocks * area * 4);
    REQUIRE(block_sparse::run_grad({kernel, 1}, p, nullptr) == Status::kOk);
    std::memcpy(problem.out.data(), out.data() + first * area * 4, blocks * area * 4);
    CHECK(problem.first_wrong() == -1);
  }
}

TEST_CASE("far offsets: values of groups, their gradient, and values behind a bitmap") {
  {
    GroupProblem problem(5, 70, 200, 16, 1, 128, 8, {});
    const int64_t area = 16, first = kFar / area + 1, records = problem.records + 1;
    const FarArray<char> values(problem.values.data(), records * area * 2, first * area * 2);
    const FarArray<char> index(problem.index.data(), records, first);  // of 8 bits
    GroupListsParams p = problem.params(1);
    GroupListsGradParams grad = problem.grad_params();
    const FarMemory out((first + records) * area * 4);
    for (int32_t& start : problem.starts) start += static_cast<int32_t>(first);
    p.weight.values = values.data();
    p.weight.index = grad.weight.index = index.data();
    p.weight.records = grad.weight.records = first + problem.records;
    grad.out = reinterpret_cast<float*>(out.data());
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    for (const group_lists_cuda::Plan& plan : kGroupPlans) {
      problem.forget();
      REQUIRE(group_lists_cuda::run_plan(plan, p, nullptr) == Status::kOk);
      CHECK(problem.first_wrong() == -1);
    }
    REQUIRE(group_lists_cuda_weight_grad(grad, nullptr) == Status::kOk);
    std::memcpy(problem.out.data(), grad.out + first * area, records * area * 4);
    for (int32_t& start : problem.starts) start -= static_cast<int32_t>(first);
    CHECK(problem.first_wrong_gradient() == -1);
  }
  {
    BitmapProblem problem(5, 40, 300);
    const int64_t first = INT32_MAX - problem.nnz;  // row_ptr has 32 bits, so that bytes alone pass 2^31
    const FarArray<char> values(problem.values.data(), problem.nnz * 2, first * 2);
    for (int32_t& start : problem.row_ptr) start += static_cast<int32_t>(first);
    BitmapDecodeMatmulParams p = problem.params(0);
    p.weight.values = values.data(), p.weight.nnz = INT32_MAX;
    const cuda_emulation::ScopedOptions scoped(next_adversary(80));
    for (const int tokens : {8, 32}) {
      problem.forget();
      REQUIRE(cuda_bitmap_decode::run_plan({tokens, 1}, p, nullptr) == Status::kOk);
      CHECK(problem.first_wrong() == -1);
    }
  }
}

namespace {

// A weight whose last 64 channels are the problem's, and 64 * rows channels in front of it that no block computes.
struct FarPacked {
  FarMemory values, metadata;
  SemiStructured weight;

  FarPacked(const SemiStructured& near, int64_t rows)
      : values((rows + 1) * near.value_bytes), metadata((rows + 1) * near.metadata_words * 4) {
    std::memcpy(values.data() + rows * near.value_bytes, near.values, near.value_bytes);
    uint32_t* words = reinterpret_cast<uint32_t*>(metadata.data());
    // What the last tiles may hold beside the last channels is padding.
    std::fill(words + (rows - 32) * near.metadata_words, words + rows * near.metadata_words, 0x44444444u);
    std::memcpy(words + rows * near.metadata_words, near.metadata, near.metadata_words * 4);
    weight = {values.data(), words, (rows + 1) * near.value_bytes, (rows + 1) * near.metadata_words};
  }
};

// run() with y, the residual and the bias as wide as the far weight; the last 64 channels are the problem's.
template <class Problem, class Params, class Run>
void check_last_channels(Problem& problem, Params p, int64_t rows, const Run& run) {
  const int64_t before = rows * 64;
  REQUIRE((problem.options.bias && problem.options.residual));
  p.n = before + 64;
  const FarArray<char> bias(problem.bias.data(), 64 * 4, before * 4);
  const FarMemory y(3 * p.n * 4), residual(3 * p.n * 4);
  for (int64_t t = 0; t < 3; ++t)
    std::memcpy(residual.data() + (t * p.n + before) * 4, problem.residual.at(t, 0), 64 * 4);
  p.y = y.data(), p.residual = residual.data(), p.bias = bias.data();
  p.y_row_stride = p.residual_row_stride = p.n;
  cuda_emulation::Options options = next_adversary(90);
  options.only_last = 4;
  options.multiprocessors = kEnough;
  const cuda_emulation::ScopedOptions scoped(options);
  problem.forget();
  REQUIRE(run(p) == Status::kOk);
  for (int64_t t = 0; t < 3; ++t) std::memcpy(problem.y.at(t, 0), y.data() + (t * p.n + before) * 4, 64 * 4);
  CHECK(problem.first_wrong() == -1);
}

}  // namespace

TEST_CASE("far offsets: values of 2:4 and V:N:M weights") {
  {
    using semi_structured::Plan;
    using Kernel = Plan::Kernel;
    for (const int32_t group : {4, 6}) {
      CAPTURE(group);
      ProblemOptions options;
      options.residual = true;
      options.group = group;
      MatmulProblem problem(3, 64, 72, options);
      constexpr int64_t rows = int64_t{1} << 20;  // of two blocks of 2048 values
      SemiStructuredMatmulParams p = problem.params(3 * semi_structured::lifted_row_bytes(72, options.dtype, group));
      const FarPacked far(p.weight, rows);
      REQUIRE(far.weight.value_bytes > 2 * kFar);
      p.weight = far.weight;
      for (const Plan& plan :
           {Plan{Kernel::kSmallSm80, 8, 1}, Plan{Kernel::kTiledSm80, 64, 1}, Plan{Kernel::kWgmmaSm90, 64, 1}}) {
        CAPTURE(static_cast<int>(plan.kernel));
        check_last_channels(problem, p, rows,
                            [&](const auto& p) { return semi_structured::run_plan(plan, p, nullptr); });
      }
    }
  }
  {
    using gathered::Plan;
    using Kernel = Plan::Kernel;
    VnmProblem<BFloat16> problem({3, 64, 72, 64, 8});
    constexpr int64_t rows = (int64_t{1} << 20) + 1;  // of a block of 2048 values
    for (const Plan& plan : {Plan{Kernel::kSmallSm80, 8, 1}, Plan{Kernel::kTiledSm80, 64, 1},
                             Plan{Kernel::kWgmmaSm90, 128, 1}, Plan{Kernel::kPickedSm90, 128, 1}}) {
      CAPTURE(static_cast<int>(plan.kernel));
      VnmLinearParams p = problem.params(gathered::workspace_bytes(plan, 3, 64, 72));
      const FarPacked far(p.weight.packed, rows);
      const FarArray<uint16_t> columns(problem.columns.data(), problem.picked, rows * problem.picked);
      p.weight.packed = far.weight, p.weight.columns = columns.data();
      check_last_channels(problem, p, rows, [&](const auto& p) { return cuda_vnm::run_plan(plan, p, nullptr); });
    }
  }
}

TEST_CASE("far offsets: lifted rows of x") {
  using semi_structured::Plan;
  const Plan plan{Plan::Kernel::kWgmmaSm90, 64, 1};
  ProblemOptions options;
  options.group = 6;
  MatmulProblem problem(3, 40, 72, options);
  SemiStructuredMatmulParams p = problem.params(0);
  // The problem's tokens are the last of so many.
  const int64_t lifted_row = semi_structured::lifted_row_bytes(72, options.dtype, 6);
  constexpr int64_t tokens = int64_t{1} << 25, before = tokens - 3;
  REQUIRE(before * lifted_row > 2 * kFar);
  const FarArray<char> x(problem.x.data(), problem.x.buffer.size(), before * p.x_row_stride * 2);
  const FarArray<float> token_scale(problem.token_scale.data(), 3, before);
  const FarMemory y(tokens * p.y_row_stride * 4), workspace(tokens * lifted_row);
  p.m = tokens, p.x = x.data(), p.y = y.data();
  if (p.token_scale) p.token_scale = token_scale.data();
  p.workspace = workspace.data(), p.workspace_bytes = tokens * lifted_row;
  cuda_emulation::Options emulated = next_adversary(90);
  emulated.only_last = 3;
  emulated.multiprocessors = kEnough;
  const cuda_emulation::ScopedOptions scoped(emulated);
  REQUIRE(semi_structured::run_plan(plan, p, nullptr) == Status::kOk);
  for (int64_t t = 0; t < 3; ++t) std::memcpy(problem.y.at(t, 0), y.data() + (before + t) * p.y_row_stride * 4, 40 * 4);
  CHECK(problem.first_wrong() == -1);
}

TEST_CASE("far offsets: a dense matrix from a bitmap, and values taken from one") {
  // The last row of many, whose values are the last that 32 bits count.
  constexpr int64_t k = 1 << 16, words = k / 64, rows = kFar / k;
  BitmapDenseProblem problem(1, k, DType::kBFloat16, DType::kBFloat16, 0.1);
  const int64_t first = INT32_MAX - problem.nnz();
  const FarArray<uint64_t> bitmap(problem.bitmap.data(), words, rows * words);
  cuda_emulation::GlobalBuffer<int32_t> row_ptr(
      std::vector<int32_t>(static_cast<size_t>(rows) + 2, static_cast<int32_t>(first)));
  row_ptr[static_cast<size_t>(rows) + 1] = INT32_MAX;
  const FarArray<char> values(problem.values.data(), problem.nnz() * 2, first * 2);
  const FarArray<char> from(problem.from.data(), k * 2, rows * k * 2);
  const FarMemory dense((rows + 1) * k * 2), taken(int64_t{INT32_MAX} * 2);
  cuda_emulation::Options options = next_adversary(80);
  options.only_last = words / cuda_bitmap_decode::kPartWords / (cuda_bitmap_decode::kDenseThreads / 32);
  const cuda_emulation::ScopedOptions scoped(options);
  BitmapDecodeDenseParams unpack;
  unpack.weight = {values.data(), bitmap.data(), row_ptr.data(), INT32_MAX};
  unpack.dense = dense.data();
  unpack.n = rows + 1, unpack.k = k;
  unpack.weight_dtype = unpack.dtype = DType::kBFloat16;
  REQUIRE(bitmap_decode_to_dense(unpack, nullptr) == Status::kOk);
  std::memcpy(problem.dense.data(), dense.data() + rows * k * 2, k * 2);
  CHECK(problem.first_wrong_weight() == -1);

  BitmapDecodeGatherParams gather;
  gather.weight = {nullptr, bitmap.data(), row_ptr.data(), INT32_MAX};
  gather.dense = from.data(), gather.values = taken.data();
  gather.n = rows + 1, gather.k = k, gather.dtype = DType::kBFloat16;
  REQUIRE(bitmap_decode_gather(gather, nullptr) == Status::kOk);
  std::memcpy(problem.taken.data(), taken.data() + first * 2, static_cast<size_t>(problem.nnz()) * 2);
  CHECK(problem.first_wrong_value() == -1);
}

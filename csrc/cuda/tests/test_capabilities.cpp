// The lists of what kernels can do, against what they accept: every row is launched for all it offers and refuses one
// step beside it, and a chooser finds a kernel wherever its list has one and nowhere else.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "cuda/linear/capabilities.h"
#include "cuda/linear/message.h"
#include "cuda/tests/bitmap_decode_dense_problem.h"
#include "cuda/tests/bitmap_decode_problem.h"
#include "cuda/tests/block_sparse_problem.h"
#include "cuda/tests/group_lists_problem.h"
#include "cuda/tests/semi_structured_problem.h"
#include "cuda/tests/vnm_problem.h"

using namespace sparsecore;
using cuda_linear::Capabilities;
using cuda_linear::Capability;
using cuda_linear::Need;

namespace {

constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8, kFloat8E4M3};
constexpr int kDevices[] = {75, 80, 86, 89, 90};
constexpr int kChosen = -1;

// The status of a call of one kernel, or of the chosen one; where that is kOk the answer has been compared.
using Call = std::function<Status(const Need& need, int kernel)>;

std::vector<int32_t> members(int32_t set) {
  std::vector<int32_t> sizes;
  for (int32_t size = 1; size <= set; size *= 2)
    if (set & size) sizes.push_back(size);
  if (sizes.empty()) sizes.push_back(0);
  return sizes;
}

void check_refused(const Capabilities& list, const Call& call, const Need& need, int kernel, Status status) {
  CHECK(call(need, kernel) == status);
  CAPTURE(cuda_message());
  CHECK(std::string(cuda_message()).find("no kernel for " + std::string(cuda_linear::name_of(need.dtype))) !=
        std::string::npos);
  CHECK(std::string(cuda_message()).find(cuda_linear::describe(list)) != std::string::npos);
}

void check_rows(const Capabilities& list, const Call& call) {
  for (const Capability& row : list.rows) {
    CAPTURE(std::string(row.name));
    const auto serves = [](const Capability& other, DType dtype, int device) {
      const bool typed = other.types == 0 ? dtype == DType::kBFloat16 : (other.types & cuda_linear::type(dtype)) != 0;
      return typed && other.from <= device && device <= other.to;
    };
    const auto offered = [&](DType dtype, int device) {
      return std::any_of(list.rows.begin(), list.rows.end(), [&](const Capability& other) {
        return other.kernel == row.kernel && serves(other, dtype, device);
      });
    };
    const std::vector<int32_t> sizes = members(row.sizes);
    Need good;
    good.tokens = 3;
    good.sizes[0] = good.sizes[1] = sizes[0];
    good.alignment = std::max(row.alignment, 4);
    good.tensor_copies = row.tensor_copies;
    good.group = row.most_group;
    for (const DType dtype : kTypes)
      for (const int device : kDevices) {
        if (row.types == 0 && dtype != DType::kBFloat16) continue;  // no type is passed
        CAPTURE(std::string(cuda_linear::name_of(dtype)));
        CAPTURE(device);
        good.dtype = dtype;
        good.capability = device;
        if (!offered(dtype, device)) check_refused(list, call, good, row.kernel, Status::kUnsupportedDType);
        if (!serves(row, dtype, device)) continue;
        for (const int32_t size : sizes) {
          CAPTURE(size);
          Need need = good;
          need.sizes[0] = size;
          CHECK(call(need, row.kernel) == Status::kOk);
          if (size != sizes.back() || device != row.from) continue;
          need.sizes[1] = size;
          CHECK(call(need, row.kernel) == Status::kOk);
        }
        if (device != row.from) continue;
        Need bad = good;
        if (row.sizes)
          for (const int32_t size : {-16, 0x40000000, 48, sizes.back() * 2, sizes[0] / 2})
            if (size) {
              CAPTURE(size);
              bad.sizes[0] = size;
              check_refused(list, call, bad, row.kernel, Status::kBadPattern);
            }
        bad = good;
        bad.alignment = row.alignment / 2;
        if (row.alignment > 1) check_refused(list, call, bad, row.kernel, Status::kBadShape);
        for (const int32_t group : {0, row.most_group + 1}) {
          bad = good;
          bad.group = group;
          if (row.most_group) check_refused(list, call, bad, row.kernel, Status::kBadPattern);
        }
        bad = good;
        bad.tensor_copies = false;
        if (row.tensor_copies) check_refused(list, call, bad, row.kernel, Status::kBadShape);
        bad = good;
        if (row.most_tokens < 100) {
          bad.tokens = row.most_tokens + 1;
          check_refused(list, call, bad, row.kernel, Status::kBadShape);
        }
      }
  }
}

void check_chooser(const Capabilities& list, const Call& call) {
  int32_t all = 0;
  bool copies_matter = false;
  for (const Capability& row : list.rows) {
    all |= row.sizes;
    copies_matter = copies_matter || row.tensor_copies;
  }
  std::vector<int32_t> sizes = members(all);
  if (all) sizes.push_back(48);
  for (const DType dtype : kTypes)
    for (const int device : {75, 80, 90})
      for (const int32_t size : sizes)
        for (const int64_t tokens : {3, 70})
          for (const bool copies : {true, false}) {
            if (!copies && !copies_matter) continue;
            CAPTURE(std::string(cuda_linear::name_of(dtype)));
            CAPTURE(device);
            CAPTURE(size);
            CAPTURE(tokens);
            CAPTURE(copies);
            const Need need = {
                .dtype = dtype, .capability = device, .tokens = tokens, .sizes = {size, size}, .tensor_copies = copies};
            const Status status = call(need, kChosen);
            CHECK((status == Status::kOk) == (cuda_linear::choose(list, need) != nullptr));
            if (status == Status::kOk) continue;
            CAPTURE(cuda_message());
            CHECK(std::string(cuda_message()).find(cuda_linear::describe(list)) != std::string::npos);
          }
}

DType half_or(DType dtype) { return dtype == DType::kFloat16 ? dtype : DType::kBFloat16; }
// An array that begins at a multiple of so many bytes and of no more.
const void* shifted(const void* array, int alignment) {
  return static_cast<const char*>(array) + (alignment < 16 ? alignment : 0);
}
// Of the weight that is built where one of `size` cannot be.
int32_t built_size(int32_t size, int32_t most) {
  return size > 0 && size <= most && (size & (size - 1)) == 0 ? size : most;
}

}  // namespace

TEST_CASE("capabilities: 2:4 products, lifted and not") {
  using namespace semi_structured;
  for (const int32_t group : {4, 6}) {
    CAPTURE(group);
    const Call call = [&](const Need& need, int kernel) {
      ProblemOptions options;
      options.dtype =
          need.dtype == DType::kFloat32 || (group > 4 && need.dtype == kFloat8E4M3) ? DType::kBFloat16 : need.dtype;
      options.group = group;
      options.x_offset = need.tensor_copies ? 0 : 1;
      MatmulProblem problem(need.tokens, 40, 96, options);
      const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
      Plan plan;
      plan.kernel = static_cast<Plan::Kernel>(std::max(kernel, 0));
      plan.tokens = plan.kernel == Plan::Kernel::kSmallSm80 ? 8 : 64;
      const int64_t row = lifted_row_bytes(96, options.dtype, group);
      SemiStructuredMatmulParams params =
          problem.params(kernel == kChosen ? semi_structured_matmul_workspace(need.tokens, 40, 96, options.dtype, group)
                                           : workspace_bytes(plan, need.tokens, 40, row));
      params.dtype = need.dtype;
      params.weight.values = shifted(params.weight.values, need.alignment);
      problem.forget();
      const Status status =
          kernel == kChosen ? semi_structured_matmul(params, nullptr) : run_plan(plan, params, nullptr);
      if (status == Status::kOk) CHECK(problem.first_wrong(0) == -1);
      return status;
    };
    check_rows(matmul_capabilities(group > 4), call);
    check_chooser(matmul_capabilities(group > 4), call);
  }
}

TEST_CASE("capabilities: 2:4 compression and gradients") {
  using namespace semi_structured;
  constexpr int64_t n = 40, k = 96;
  struct Built {
    MatmulProblem problem;
    cuda_emulation::GlobalBuffer<char> values_t, dense;
    cuda_emulation::GlobalBuffer<uint32_t> metadata_t;
    cuda_emulation::GlobalBuffer<int64_t> where{1};
    static ProblemOptions of(DType dtype) {
      ProblemOptions options;
      options.dtype = dtype;
      return options;
    }
    explicit Built(DType dtype)
        : problem(3, n, k, of(dtype)),
          values_t(semi_structured_value_bytes(k, n, dtype)),
          dense(n * k * 2),
          metadata_t(semi_structured_metadata_words(k, n, dtype)) {
      std::memcpy(dense.data(), problem.dense.data(), problem.dense.size());
    }
  };
  check_rows(compress_capabilities(), [](const Need& need, int kernel) {
    Built built(need.dtype == DType::kFloat32 ? DType::kBFloat16 : need.dtype);
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    SemiStructured weight = built.problem.params(0).weight;
    weight.values = shifted(weight.values, need.alignment);
    if (kernel == kDecompress)
      return semi_structured_decompress(weight, need.dtype, n, k, built.dense.data(), k, nullptr);
    if (kernel == kValidate) {
      // One byte from where it should be, the values are still inside their buffer.
      weight.values = need.alignment == 2 ? shifted(built.problem.values.data(), 2) : built.problem.values.data();
      const Status status = semi_structured_validate_device(weight, need.dtype, n, k, built.where.data(), nullptr);
      if (status == Status::kOk) CHECK(built.where[0] == -1);
      return status;
    }
    SemiStructuredCompressParams p;
    p.dense = built.dense.data();
    p.n = n, p.k = p.row_stride = k;
    p.dtype = need.dtype;
    p.values = const_cast<void*>(weight.values);
    p.metadata = built.problem.metadata.data();
    if (kernel == kCompressBoth) {
      p.selection = SemiStructuredSelection::kTwoWay;
      p.values_t = built.values_t.data();
      p.metadata_t = built.metadata_t.data();
    }
    const Status status = semi_structured_compress(p, nullptr);
    if (status == Status::kOk) {
      weight.values = p.values;
      CHECK(semi_structured_validate(weight, need.dtype, n, k, nullptr) == Status::kOk);
    }
    return status;
  });
  check_rows(gradient_capabilities(), [](const Need& need, int kernel) {
    Built built(half_or(need.dtype));
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    SemiStructured weight = built.problem.params(0).weight;
    weight.values = shifted(weight.values, need.alignment);
    if (kernel == kGather) {
      SemiStructuredGatherParams p;
      p.dense = built.dense.data();
      p.metadata = weight.metadata, p.metadata_words = weight.metadata_words;
      p.values = const_cast<void*>(weight.values);
      p.n = n, p.k = p.row_stride = k;
      p.dtype = need.dtype;
      return semi_structured_gather(p, nullptr);
    }
    if (kernel == kSampled) {
      SemiStructuredSampledParams p;
      p.grad = built.dense.data(), p.x = built.dense.data();
      p.metadata = weight.metadata, p.metadata_words = weight.metadata_words;
      p.values = const_cast<void*>(weight.values);
      p.m = need.tokens, p.n = p.grad_row_stride = n, p.k = p.x_row_stride = k;
      p.dtype = need.dtype;
      return semi_structured_sampled(p, nullptr);
    }
    SemiStructuredStraightThroughParams p;
    p.grad = p.dense = built.dense.data();
    p.out = built.dense.data();
    p.weight = weight;
    p.n = n, p.k = p.grad_row_stride = p.dense_row_stride = p.out_row_stride = k;
    p.dtype = need.dtype;
    return semi_structured_straight_through(p, nullptr);
  });
}

TEST_CASE("capabilities: shared lists") {
  using namespace cuda_shared_lists;
  const auto product = [](const Need& need, int kernel, auto element) {
    const int32_t vector = built_size(need.sizes[0], 64);
    SharedListsProblem<decltype(element)> problem({need.tokens, vector + 3, 70, vector});
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    Plan plan;
    plan.kernel = static_cast<Plan::Kernel>(std::max(kernel, 0));
    plan.tokens = plan.kernel == Plan::Kernel::kSmallSm80 ? 8 : 128;
    SharedListsLinearParams params = problem.params(1 << 20);
    params.dtype = need.dtype;
    params.weight.vector = need.sizes[0];
    params.weight.values = shifted(params.weight.values, need.alignment);
    problem.forget();
    const Status status =
        kernel == kChosen ? shared_lists_linear_device(params, nullptr) : run_plan(plan, params, nullptr);
    if (status == Status::kOk) CHECK(problem.first_wrong() == -1);
    return status;
  };
  const Call call = [&](const Need& need, int kernel) {
    return need.dtype == DType::kFloat16 ? product(need, kernel, Float16()) : product(need, kernel, BFloat16());
  };
  check_rows(matmul_capabilities(), call);
  check_chooser(matmul_capabilities(), call);
  check_rows(gradient_capabilities(), [](const Need& need, int kernel) {
    const int32_t vector = built_size(need.sizes[0], 64);
    SharedListsProblem<BFloat16> problem({3, vector + 3, 70, vector});
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    const int64_t n = problem.n, k = problem.k;
    SharedLists lists = problem.weight();
    lists.vector = need.sizes[0];
    if (kernel == kValidate) {
      cuda_emulation::GlobalBuffer<int64_t> where(2);
      const Status status = shared_lists_validate_device(lists, n, k, where.data(), nullptr);
      if (status == Status::kOk) CHECK(where[0] == 0);
      return status;
    }
    if (kernel == kUnpack) {
      cuda_emulation::GlobalBuffer<char> values(lists.records * vector * 4), dense(n * k * 4);
      lists.values = values.data();
      return shared_lists_unpack_device(lists, need.dtype, n, k, dense.data(), nullptr);
    }
    cuda_emulation::GlobalBuffer<uint16_t> grad(3 * n);
    cuda_emulation::GlobalBuffer<float> out(lists.records * vector);
    cuda_emulation::GlobalBuffer<char> workspace(shared_lists_weight_grad_workspace(3, n, k));
    SharedListsWeightGradParams p;
    p.grad_y = grad.data(), p.x = problem.x.data(), p.out = out.data();
    p.weight = lists;
    p.m = 3, p.n = p.grad_y_row_stride = n, p.k = k, p.x_row_stride = problem.x.stride;
    p.dtype = need.dtype;
    p.workspace = workspace.data(), p.workspace_bytes = static_cast<int64_t>(workspace.size());
    return shared_lists_weight_grad_device(p, nullptr);
  });
}

TEST_CASE("capabilities: V:N:M") {
  using namespace cuda_vnm;
  const auto product = [](const Need& need, int kernel, auto element) {
    const int32_t vector = built_size(need.sizes[0], 128);
    // Nine inputs are two groups of 5 as well as of 8.
    const int64_t k = need.group ? 20 * need.group - 1 : 9;
    VnmProblem<decltype(element)> problem({need.tokens, vector + 3, k, vector, need.group ? need.group : 8});
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    Plan plan;
    plan.kernel = static_cast<Plan::Kernel>(std::max(kernel, 0));
    plan.tokens = plan.kernel == Plan::Kernel::kSmallSm80 ? 8 : 128;
    VnmLinearParams params = problem.params(1 << 20);
    params.dtype = need.dtype;
    params.weight.vector = need.sizes[0];
    params.weight.packed.values = shifted(params.weight.packed.values, need.alignment);
    problem.forget();
    const Status status = kernel == kChosen ? vnm_linear_device(params, nullptr) : run_plan(plan, params, nullptr);
    if (status == Status::kOk) CHECK(problem.first_wrong() == -1);
    return status;
  };
  const Call call = [&](const Need& need, int kernel) {
    return need.dtype == DType::kFloat16 ? product(need, kernel, Float16()) : product(need, kernel, BFloat16());
  };
  check_rows(matmul_capabilities(), call);
  check_chooser(matmul_capabilities(), call);
}

TEST_CASE("capabilities: block-sparse") {
  using namespace block_sparse;
  const auto call_of = [](const Need& need, int kernel, bool transposed) {
    const int32_t size = built_size(need.sizes[0], 128);
    BlockOptions options;
    options.dtype = half_or(need.dtype);
    options.x_offset = need.tensor_copies ? 0 : 1;
    options.transposed = transposed;
    BlockProblem problem(need.tokens, size + 5, 2 * size - 7, size, options);
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    BlockSparseParams params = problem.params(0);
    params.dtype = need.dtype;
    params.weight.size = need.sizes[0];
    params.weight.values = shifted(params.weight.values, need.alignment);
    const auto number = static_cast<Plan::Kernel>(std::max(kernel, 0));
    const Plan plan = {number, number == Plan::Kernel::kSmall ? 8 : 128, 1};
    const Status status = kernel == kChosen ? block_sparse_linear(params, nullptr) : run_plan(plan, params, nullptr);
    if (status == Status::kOk) CHECK(problem.first_wrong(0) == -1);
    return status;
  };
  for (const bool transposed : {false, true}) {
    const Call call = [&](const Need& need, int kernel) { return call_of(need, kernel, transposed); };
    check_rows(linear_capabilities(), call);
    check_chooser(linear_capabilities(), call);
  }
  const Call grad = [](const Need& need, int kernel) {
    const int32_t size = built_size(need.sizes[0], 128);
    BlockGradProblem problem(need.tokens, size + 5, 2 * size - 7, size, half_or(need.dtype), DType::kFloat32,
                             need.tensor_copies ? 0 : 1, 0, 1);
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    BlockSparseGradParams params = problem.params(1);
    params.dtype = need.dtype;
    params.weight.size = need.sizes[0];
    params.out = const_cast<void*>(shifted(params.out, need.alignment));
    const GradPlan plan = {static_cast<Plan::Kernel>(std::max(kernel, 0)), 1};
    const Status status =
        kernel == kChosen ? block_sparse_weight_grad(params, nullptr) : run_grad(plan, params, nullptr);
    if (status == Status::kOk) CHECK(problem.first_wrong() == -1);
    return status;
  };
  check_rows(grad_capabilities(), grad);
  check_chooser(grad_capabilities(), grad);
}

TEST_CASE("capabilities: group lists") {
  using namespace group_lists_cuda;
  check_rows(capabilities(), [](const Need& need, int kernel) {
    const int32_t rows = built_size(need.sizes[0], 32);
    const int32_t cols = built_size(need.sizes[1], 32);
    GroupOptions options;
    options.dtype = half_or(need.dtype);
    GroupProblem problem(need.tokens, 70, 100, rows, cols, 64, 8, options);
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    if (kernel == kValidate) {
      cuda_emulation::GlobalBuffer<int64_t> where(2);
      problem.end_index();
      GroupLists weight = problem.weight();
      weight.rows = need.sizes[0];
      const Status status = group_lists_validate_device(weight, 70, 100, where.data(), nullptr);
      if (status == Status::kOk) CHECK(where[0] == 0);
      return status;
    }
    if (kernel == kGrad) {
      GroupListsGradParams params = problem.grad_params();
      params.dtype = need.dtype;
      params.weight.rows = need.sizes[0];
      const Status status = group_lists_cuda_weight_grad(params, nullptr);
      if (status == Status::kOk) CHECK(problem.first_wrong_gradient() == -1);
      return status;
    }
    GroupListsParams params = problem.params(1);
    params.dtype = need.dtype;
    params.weight.rows = need.sizes[0];
    const Plan plan = {static_cast<Kernel>(kernel), kernel == kSmall ? 8 : 32, 1};
    const Status status = run_plan(plan, params, nullptr);
    if (status == Status::kOk) CHECK(problem.first_wrong() == -1);
    return status;
  });
}

TEST_CASE("capabilities: behind a bitmap") {
  using namespace cuda_bitmap_decode;
  check_rows(capabilities(), [](const Need& need, int kernel) {
    if (kernel == kDense || kernel == kDenseOfInt8 || kernel == kGather) {
      const bool int8 = kernel == kDenseOfInt8;
      const DType built =
          need.dtype == DType::kFloat32 || (int8 && need.dtype == DType::kInt8) ? need.dtype : half_or(need.dtype);
      BitmapDenseProblem problem(20, 200, int8 ? DType::kInt8 : built, built, 0.5);
      problem.dtype = need.dtype;
      const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
      const Status status = kernel == kGather ? problem.gather() : problem.unpack();
      if (status == Status::kOk)
        CHECK((kernel == kGather ? problem.first_wrong_value() : problem.first_wrong_weight()) == -1);
      return status;
    }
    BitmapOptions options;
    options.dtype = half_or(need.dtype);
    options.weight_dtype = kernel == kInt8Values ? DType::kInt8 : options.dtype;
    BitmapProblem problem(need.tokens, 20, 200, options);
    const cuda_emulation::ScopedOptions scoped(next_adversary(need.capability));
    BitmapDecodeMatmulParams params = problem.params(bitmap_decode_matmul_workspace(need.tokens, 20, 200));
    if (kernel == kValidate) {
      cuda_emulation::GlobalBuffer<int64_t> where(2);
      const Status status = bitmap_decode_validate_device(params.weight, 20, 200, where.data(), nullptr);
      if (status == Status::kOk) CHECK(where[0] == 0);
      return status;
    }
    params.dtype = need.dtype;
    if (kernel == kOwnValues) params.weight_dtype = need.dtype;
    problem.forget();
    const Status status = bitmap_decode_matmul(params, nullptr);
    if (status == Status::kOk) CHECK(problem.first_wrong() == -1);
    return status;
  });
}

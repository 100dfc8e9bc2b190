#include "packings.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "sparsecore/bitmap_decode.h"
#include "sparsecore/nm_decode.h"
#include "sparsecore/row_lists.h"
#include "sparsecore/shared_lists.h"

namespace bench {
namespace {

using sparsecore::size_of;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int32_t block_of(const Weight& weight) {
  return sparsecore::row_lists_block(static_cast<double>(weight.pattern.kept) / weight.pattern.group);
}

int64_t records_of(const Weight& weight) {
  return ceil_div(weight.n, weight.pattern.shared) * (weight.k / weight.pattern.group) * weight.pattern.kept;
}

struct NMSizes {
  int64_t values, codes;
  explicit NMSizes(const Weight& weight) {
    const int64_t tiles = ceil_div(weight.n, 16),
                  slots = ceil_div(weight.k, weight.pattern.group) * weight.pattern.kept;
    const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<unsigned>(weight.pattern.group - 1))));
    values = tiles * slots * 16;
    codes = tiles * ceil_div(slots, 32 / bits) * 16;
  }
};

// Copies of everything a packing holds, so that each copy is other memory.
template <typename Arrays>
std::shared_ptr<std::vector<Arrays>> copies_of(const Arrays& arrays, int64_t copies) {
  return std::make_shared<std::vector<Arrays>>(copies, arrays);
}

}  // namespace

Call pack_shared_lists(const Weight& weight, int64_t copies) {
  struct Arrays {
    std::vector<char> values;
    std::vector<uint16_t> columns;
    std::vector<int32_t> group_ptr;
  };
  const int64_t records = records_of(weight), groups = ceil_div(weight.n, weight.pattern.shared);
  std::vector<uint8_t> units(groups * weight.k);
  for (int64_t g = 0; g < groups; ++g)
    std::copy_n(weight.mask.begin() + g * weight.pattern.shared * weight.k, weight.k, units.begin() + g * weight.k);
  Arrays arrays{std::vector<char>(records * weight.pattern.shared * size_of(weight.dtype)),
                std::vector<uint16_t>(records), std::vector<int32_t>(groups + 1)};
  sparsecore::shared_lists_pack(weight.dense.data(), weight.dtype, units.data(), weight.n, weight.k,
                                weight.pattern.shared, arrays.values.data(), arrays.columns.data(),
                                arrays.group_ptr.data());
  return [all = copies_of(arrays, copies), records, vector = weight.pattern.shared](const LinearIo& io, int64_t copy) {
    const Arrays& a = (*all)[copy];
    return sparsecore::shared_lists_linear(io,
                                           {a.values.data(), a.columns.data(), a.group_ptr.data(), records, vector});
  };
}

Call pack_row_lists(const Weight& weight, int64_t copies) {
  struct Arrays {
    std::vector<char> values;
    std::vector<uint8_t> offsets;
    std::vector<int32_t> block_ptr;
  };
  const int64_t nnz = weight.kept_weights();
  const int32_t block = block_of(weight);
  Arrays arrays{std::vector<char>(nnz * size_of(weight.dtype)), std::vector<uint8_t>(nnz),
                std::vector<int32_t>(ceil_div(weight.k, block) * (weight.n + 1))};
  sparsecore::row_lists_pack(weight.dense.data(), weight.dtype, weight.mask.data(), weight.n, weight.k, block,
                             arrays.values.data(), arrays.offsets.data(), arrays.block_ptr.data());
  return [all = copies_of(arrays, copies), nnz, block](const LinearIo& io, int64_t copy) {
    const Arrays& a = (*all)[copy];
    return sparsecore::row_lists_linear(io, {a.values.data(), a.offsets.data(), a.block_ptr.data(), nnz, block});
  };
}

Call pack_nm_decode(const Weight& weight, int64_t copies) {
  struct Arrays {
    std::vector<char> values;
    std::vector<uint32_t> codes;
  };
  const NMSizes sizes(weight);
  Arrays arrays{std::vector<char>(sizes.values * size_of(weight.dtype)), std::vector<uint32_t>(sizes.codes)};
  sparsecore::nm_decode_pack(weight.dense.data(), weight.dtype, weight.mask.data(), weight.n, weight.k,
                             weight.pattern.kept, weight.pattern.group, arrays.values.data(), arrays.codes.data());
  return [all = copies_of(arrays, copies), sizes, kept = weight.pattern.kept, group = weight.pattern.group](
             const LinearIo& io, int64_t copy) {
    const Arrays& a = (*all)[copy];
    return sparsecore::nm_decode_linear(io, {a.values.data(), a.codes.data(), sizes.values, sizes.codes, kept, group});
  };
}

Call pack_bitmap_decode(const Weight& weight, int64_t copies) {
  struct Arrays {
    std::vector<char> values;
    std::vector<uint64_t> bitmap;
    std::vector<int32_t> row_ptr;
  };
  const int64_t nnz = weight.kept_weights();
  Arrays arrays{std::vector<char>(nnz * size_of(weight.dtype)),
                std::vector<uint64_t>(weight.n * ceil_div(weight.k, 64)), std::vector<int32_t>(weight.n + 1)};
  sparsecore::bitmap_decode_pack(weight.dense.data(), weight.dtype, weight.mask.data(), weight.n, weight.k,
                                 arrays.values.data(), arrays.bitmap.data(), arrays.row_ptr.data());
  return [all = copies_of(arrays, copies), nnz](const LinearIo& io, int64_t copy) {
    const Arrays& a = (*all)[copy];
    return sparsecore::bitmap_decode_linear(io, {a.values.data(), a.bitmap.data(), a.row_ptr.data(), nnz});
  };
}

int64_t shared_lists_bytes(const Weight& weight) {
  return records_of(weight) * (weight.pattern.shared * size_of(weight.dtype) + 2) +
         4 * (ceil_div(weight.n, weight.pattern.shared) + 1);
}

int64_t row_lists_bytes(const Weight& weight) {
  return weight.kept_weights() * (size_of(weight.dtype) + 1) +
         4 * ceil_div(weight.k, block_of(weight)) * (weight.n + 1);
}

int64_t nm_decode_bytes(const Weight& weight) {
  const NMSizes sizes(weight);
  return sizes.values * size_of(weight.dtype) + 4 * sizes.codes;
}

int64_t bitmap_decode_bytes(const Weight& weight) {
  return weight.kept_weights() * size_of(weight.dtype) + 8 * weight.n * ceil_div(weight.k, 64) + 4 * (weight.n + 1);
}

}  // namespace bench

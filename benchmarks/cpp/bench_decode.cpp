// One to sixteen tokens, weights from memory (copies of more than 1 GiB take turns): GB/s, GFLOP/s and the share of
// the roof, which is the slower of reading the packed bytes and multiplying the kept weights.
//
//   bench_decode --benchmark_filter='nm_decode/2:4/float32/avx512_bf16/4096x4096/M1/'
#include <string>

#include "packings.h"

using namespace bench;

namespace {

struct Layout {
  const char* name;
  Pattern pattern;
  Call (*pack)(const Weight&, int64_t);
  int64_t (*bytes)(const Weight&);
};

constexpr Layout kLayouts[] = {
    {"nm_decode", {2, 4, 1}, pack_nm_decode, nm_decode_bytes},
    {"nm_decode", {1, 4, 1}, pack_nm_decode, nm_decode_bytes},
    {"nm_decode", {1, 8, 1}, pack_nm_decode, nm_decode_bytes},
    {"bitmap_decode", {16, 32, 1}, pack_bitmap_decode, bitmap_decode_bytes},
    {"bitmap_decode", {3, 32, 1}, pack_bitmap_decode, bitmap_decode_bytes},
    {"row_lists", {3, 32, 1}, pack_row_lists, row_lists_bytes},
    {"shared_lists", {2, 4, 64}, pack_shared_lists, shared_lists_bytes},
    {"shared_lists", {2, 4, 16}, pack_shared_lists, shared_lists_bytes},
};

}  // namespace

int main(int argc, char** argv) {
  for (const Shape& shape : kDecode)
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8})
      for (const Layout& layout : kLayouts) {
        std::string name = std::string(layout.name) + "/" + std::to_string(layout.pattern.kept) + ":" +
                           std::to_string(layout.pattern.group) + "/" + name_of(dtype);
        if (layout.pattern.shared > 1) name += "/v" + std::to_string(layout.pattern.shared);
        for (const Isa isa : levels(std::string(layout.name) + "_linear", dtype))
          for (const int64_t tokens : kFewTokens)
            for (const int threads : thread_counts())
              add({name, isa, threads, "fma_float32", shape, dtype, layout.pattern, tokens, Compute::kFloat32,
                   layout.bytes, true, layout.pack});
      }
  return run(argc, argv);
}

// Six tokens by eight channels: 12 sums, 2 weight vectors and 1 broadcast fill the 15 vector registers that V8 leaves
// on x86. Without a fused product one more is taken by it, so five tokens. A block of 512 inputs keeps the weight tile
// (16 KB) and the activation panel (12 KB) in L1 together; 40 or 48 tokens by 256 channels of sums stay in L2.
#include "wasm/dense.h"

#include "cpu/epilogue/epilogue.h"
#include "cpu/panel_lanes4.h"
#include "sparsecore/parallel.h"

namespace sparsecore::wasm {
namespace {

#if defined(__wasm_relaxed_simd__)
constexpr int kTokens = 6;
#else
constexpr int kTokens = 5;
#endif
constexpr int kBlock = 512, kTokenBlock = 8 * kTokens, kChannelBlock = 256;
constexpr size_t kVectors = kDenseChannels / 4;

// sums[r][0..7] (+)= panel[., r] * weight[., 0..7] over `count` inputs.
template <size_t Tokens>
void tile(const float* panel, const float* weight, int32_t count, float* sums, size_t sums_stride, bool first) {
  // Unsigned places become the offset of the load instruction, signed ones an addition before it.
  Float4 acc[Tokens][kVectors];
  each<Tokens>([&]<size_t r>() {
    each<kVectors>([&]<size_t v>() { acc[r][v] = first ? splat4(0.0f) : load4(sums + r * sums_stride + 4 * v); });
  });
  for (; count > 0; --count, panel += Tokens, weight += kDenseChannels) {
    Float4 w[kVectors];
    each<kVectors>([&]<size_t v>() { w[v] = load4(weight + 4 * v); });
    const Scalars<Tokens> x(panel);
    each<Tokens>([&]<size_t r>() {
      x.next();
      each<kVectors>([&]<size_t v>() { acc[r][v] = x.template madd<r>(w[v], acc[r][v]); });
    });
  }
  each<Tokens>(
      [&]<size_t r>() { each<kVectors>([&]<size_t v>() { store4(sums + r * sums_stride + 4 * v, acc[r][v]); }); });
}

// The last tiles are shorter: kTiles[tokens - 1].
using Tile = void (*)(const float*, const float*, int32_t, float*, size_t, bool);
constexpr Tile kTiles[6] = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace

int64_t dense_packed_count(int64_t n, int64_t k) {
  return (n + kDenseChannels - 1) / kDenseChannels * kDenseChannels * k;
}

void dense_pack(const float* weight, int64_t n, int64_t k, float* packed) {
  for (int64_t o = 0; o < n; o += kDenseChannels)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t c = 0; c < kDenseChannels; ++c) *packed++ = o + c < n ? weight[(o + c) * k + i] : 0.0f;
}

Status dense_linear(const float* x, const float* packed, const float* bias, float* y, int64_t m, int64_t n, int64_t k,
                    Activation activation) {
  if (m < 0 || n < 0 || k < 0) return Status::kBadShape;
  if (m == 0 || n == 0) return Status::kOk;
  if (!y || (k > 0 && (!x || !packed))) return Status::kNullPointer;
  auto* panels = static_cast<float*>(scratch(Scratch::kPanel, sizeof(float) * (kTokenBlock * k + 1)));
  auto* sums = static_cast<float*>(scratch(Scratch::kSums, sizeof(float) * kTokenBlock * kChannelBlock));
  if (!panels || !sums) return Status::kOutOfMemory;
  const epilogue::BlockFunction finish = epilogue::block_function();
  for (int64_t t0 = 0; t0 < m; t0 += kTokenBlock) {
    const int64_t rows = smaller(kTokenBlock, m - t0);
    for (int64_t r = 0; r < rows; r += kTokens)
      pack_tokens(x + (t0 + r) * k, k, static_cast<int>(smaller(kTokens, rows - r)), k, panels + r * k);
    for (int64_t o0 = 0; o0 < n; o0 += kChannelBlock) {
      const int64_t channels = smaller(kChannelBlock, n - o0);
      int64_t start = 0;
      do {  // once even without inputs: the sums must become zeros
        const int64_t count = smaller(kBlock, k - start);
        for (int64_t o = 0; o < channels; o += kDenseChannels)
          for (int64_t r = 0; r < rows; r += kTokens) {
            const int64_t tokens = smaller(kTokens, rows - r);
            kTiles[tokens - 1](panels + r * k + start * tokens, packed + (o0 + o) * k + start * kDenseChannels,
                               static_cast<int32_t>(count), sums + r * kChannelBlock + o, kChannelBlock, start == 0);
          }
        start += kBlock;
      } while (start < k);
      finish({sums, kChannelBlock, nullptr, nullptr, bias ? bias + o0 : nullptr, DType::kFloat32, activation,
              y + t0 * n + o0, n, DType::kFloat32, rows, channels});
    }
  }
  return Status::kOk;
}

}  // namespace sparsecore::wasm

// sums[t][v] = sum over records r of values[r][v] * x[t][columns[r]], eight channels v a register.
//
//   vector 16, 32, 64   slices of 16 channels, 6 tokens x 2 registers: 12 sums + 2 weights + 1 broadcast of 16
//   registers vector 8            12 tokens x 1
//
// Six rows of x are read where they lie; twelve rows a power of two apart would share one cache set, hence the panel.
#include "cpu/shared_lists/lanes_avx2.h"
#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore::shared_lists::avx2 {
namespace {

constexpr int64_t kSliceBytes = 16 * 1024;

int tile_tokens(int vector) { return vector >= 16 ? 6 : 12; }

Layout layout(int vector) { return vector >= 16 ? Layout::kRows : Layout::kColumns; }

// kTokens x kWide registers of sums, for the channels from `first`.
template <typename T, int kTokens, int kWide, Layout kLayout>
void slice_of(const FloatTile& a, int first) {
  const T* values = static_cast<const T*>(a.values) + first;
  float* out = a.sums + first;
  __m256 sums[kTokens][kWide];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kWide; ++v)
      sums[t][v] = a.start ? _mm256_loadu_ps(a.start + first + t * a.start_stride + v * 8) : _mm256_setzero_ps();
  const float* rows[kTokens];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) rows[t] = a.x + t * a.token_stride;
  for (int64_t r = 0; r < a.records; ++r, values += a.vector) {
    const int64_t c = a.columns[r];
    __m256 w[kWide];
#pragma GCC unroll 2
    for (int v = 0; v < kWide; ++v) w[v] = load(values + v * 8);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const __m256 x = _mm256_broadcast_ss(kLayout == Layout::kRows ? rows[t] + c : a.x + c * kTokens + t);
#pragma GCC unroll 2
      for (int v = 0; v < kWide; ++v) sums[t][v] = _mm256_fmadd_ps(w[v], x, sums[t][v]);
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kWide; ++v) _mm256_storeu_ps(out + t * a.sums_stride + v * 8, sums[t][v]);
}

// One token: eight chains instead of two, and whole records of up to 64 channels in order of memory.
template <typename T>
void one_token(const FloatTile& a) {
  if (a.vector == 64) return slice_of<T, 1, 8, Layout::kRows>(a, 0);
  if (a.vector == 32) return slice_of<T, 1, 4, Layout::kRows>(a, 0);
  slice_of<T, 1, 2, Layout::kRows>(a, 0);
}

template <typename T, int kWide, Layout kLayout, int kTokens>
void slice_up_to(const FloatTile& a, int first) {
  if constexpr (kTokens > 1)
    if (a.tokens < kTokens) return slice_up_to<T, kWide, kLayout, kTokens - 1>(a, first);
  slice_of<T, kTokens, kWide, kLayout>(a, first);
}

template <typename T, int kMost8>
void tile_typed(const FloatTile& a) {
  if (a.vector == 8) return slice_up_to<T, 1, Layout::kColumns, kMost8>(a, 0);
  if (a.tokens == 1) return one_token<T>(a);
  // Slice after slice over records that stay in level 1: a slice alone touches one line in four of them.
  const int64_t longest = a.vector == 16 ? INT64_MAX : kSliceBytes / (a.vector * static_cast<int64_t>(sizeof(T)));
  FloatTile part = a;
  int64_t done = 0;
  do {
    part.values = static_cast<const T*>(a.values) + done * a.vector;
    part.columns = a.columns + done;
    part.records = a.records - done < longest ? a.records - done : longest;
    part.start = done ? a.sums : a.start;
    part.start_stride = done ? a.sums_stride : a.start_stride;
    for (int first = 0; first < a.vector; first += 16) slice_up_to<T, 2, Layout::kRows, 6>(part, first);
    done += part.records;
  } while (done < a.records);
}

constexpr int kInRegisters = 4;  // tokens up to which stored weights are widened in registers

void tile(const FloatTile& a) {
  switch (a.weights) {
    case DType::kFloat32: return tile_typed<float, 12>(a);
    case DType::kBFloat16: return tile_typed<BFloat16, kInRegisters>(a);
    case DType::kFloat16: return tile_typed<Float16, kInRegisters>(a);
    case DType::kInt8: return tile_typed<int8_t, kInRegisters>(a);
  }
}

template <typename T>
void widen_from(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, load(from + i));
  if (i == count) return;
  float rest[8];
  _mm256_storeu_ps(rest, load_first(from + i, count - i));
  std::memcpy(to + i, rest, static_cast<size_t>(count - i) * sizeof(float));
}

void widen(const void* from, DType dtype, int64_t count, float* to) {
  switch (dtype) {
    case DType::kFloat32: return widen_from(static_cast<const float*>(from), count, to);
    case DType::kBFloat16: return widen_from(static_cast<const BFloat16*>(from), count, to);
    case DType::kFloat16: return widen_from(static_cast<const Float16*>(from), count, to);
    case DType::kInt8: return widen_from(static_cast<const int8_t*>(from), count, to);
  }
}

template <typename T>
void pack_from(const T* x, int64_t x_row_stride, int tokens, int64_t k, float* panel) {
  for (int first = 0; first < tokens; first += 8) {
    const int count = tokens - first < 8 ? tokens - first : 8;
    const __m256i kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (int64_t c = 0; c < k; c += 8) {
      __m256 rows[8];
      for (int i = 0; i < 8; ++i)
        rows[i] = i < count ? load_first(x + (first + i) * x_row_stride + c, k - c) : _mm256_setzero_ps();
      transpose(rows);
      for (int i = 0; i < 8 && c + i < k; ++i) _mm256_maskstore_ps(panel + (c + i) * tokens + first, kept, rows[i]);
    }
  }
}

void pack_columns(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, float* panel) {
  switch (dtype) {
    case DType::kFloat32: return pack_from(static_cast<const float*>(x), x_row_stride, tokens, k, panel);
    case DType::kBFloat16: return pack_from(static_cast<const BFloat16*>(x), x_row_stride, tokens, k, panel);
    case DType::kFloat16: return pack_from(static_cast<const Float16*>(x), x_row_stride, tokens, k, panel);
    case DType::kInt8: return;  // no activations of that type
  }
}

// kRecords x kWide registers of gradients; tokens pass, their channels loaded, their columns broadcast.
template <int kRecords, int kWide>
void gradient_of(const GradientTile& a, int64_t record, int first) {
  float* out = a.out + record * a.vector + first;
  __m256 sums[kRecords][kWide];
  const float* columns[kRecords];
#pragma GCC unroll 6
  for (int r = 0; r < kRecords; ++r) {
    columns[r] = a.x + a.columns[record + r];
#pragma GCC unroll 2
    for (int v = 0; v < kWide; ++v)
      sums[r][v] = a.accumulate ? _mm256_loadu_ps(out + r * a.vector + v * 8) : _mm256_setzero_ps();
  }
  for (int64_t t = 0; t < a.tokens; ++t) {
    __m256 slope[kWide];
#pragma GCC unroll 2
    for (int v = 0; v < kWide; ++v) slope[v] = _mm256_loadu_ps(a.grad_y + t * a.grad_y_stride + first + v * 8);
#pragma GCC unroll 6
    for (int r = 0; r < kRecords; ++r) {
      const __m256 x = _mm256_broadcast_ss(columns[r] + t * a.x_stride);
#pragma GCC unroll 2
      for (int v = 0; v < kWide; ++v) sums[r][v] = _mm256_fmadd_ps(slope[v], x, sums[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRecords; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kWide; ++v) _mm256_storeu_ps(out + r * a.vector + v * 8, sums[r][v]);
}

template <int kWide>
void gradient_wide(const GradientTile& a) {
  int64_t r = 0;
  for (; r + 6 <= a.records; r += 6)
    for (int first = 0; first < a.vector; first += 8 * kWide) gradient_of<6, kWide>(a, r, first);
  for (; r < a.records; ++r)
    for (int first = 0; first < a.vector; first += 8 * kWide) gradient_of<1, kWide>(a, r, first);
}

void gradient(const GradientTile& a) { return a.vector == 8 ? gradient_wide<1>(a) : gradient_wide<2>(a); }

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx2,
                        .name = "avx2::shared_lists",
                        .weights = "float32 bfloat16 float16 int8",
                        .min_vector = 8,
                        .widen_above = kInRegisters,
                        .tile_tokens = tile_tokens,
                        .layout = layout,
                        .pack_columns = pack_columns,
                        .widen = widen,
                        .tile = tile,
                        .gradient = gradient};

}  // namespace sparsecore::shared_lists::avx2

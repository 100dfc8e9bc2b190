#include "cpu/bitmap_decode/bitmap_decode_lanes4.h"

namespace sparsecore::bitmap_decode::wasm_relaxed {

void row_f32(const Row& row, int tokens) { run_tokens<float>(row, tokens); }
void row_bf16(const Row& row, int tokens) { run_tokens<BFloat16>(row, tokens); }
void row_f16(const Row& row, int tokens) { run_tokens<Float16>(row, tokens); }
void row_i8(const Row& row, int tokens) { run_tokens<int8_t>(row, tokens); }

}  // namespace sparsecore::bitmap_decode::wasm_relaxed

#include "cpu/variable_nm/variable_nm_lanes4.h"

namespace sparsecore::variable_nm::wasm_relaxed {

void tile_f32(const Tile& tile, int tokens) { run_tokens<float>(tile, tokens); }
void tile_bf16(const Tile& tile, int tokens) { run_tokens<BFloat16>(tile, tokens); }
void tile_f16(const Tile& tile, int tokens) { run_tokens<Float16>(tile, tokens); }
void tile_i8(const Tile& tile, int tokens) { run_tokens<int8_t>(tile, tokens); }

}  // namespace sparsecore::variable_nm::wasm_relaxed

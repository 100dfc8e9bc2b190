#include "cpu/epilogue/epilogue_lanes4.h"

namespace sparsecore::epilogue::neon {

void finish(const Block& block) { finish_any(block); }

}  // namespace sparsecore::epilogue::neon

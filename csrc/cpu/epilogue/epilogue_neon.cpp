#include "cpu/epilogue/epilogue_lanes4.h"

namespace sparsecore::epilogue::neon {

void finish_row(const Row& row) { finish_any(row); }

}  // namespace sparsecore::epilogue::neon

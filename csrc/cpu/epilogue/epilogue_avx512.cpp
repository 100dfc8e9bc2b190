#include "cpu/epilogue/epilogue_x86.h"
#include "cpu/wide_avx512.h"

namespace sparsecore::epilogue::avx512 {

void finish(const Block& block) { Wide<WideAvx512>::finish(block); }

}  // namespace sparsecore::epilogue::avx512

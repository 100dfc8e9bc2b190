#include "cpu/epilogue/epilogue_x86.h"
#include "cpu/wide_avx2.h"

namespace sparsecore::epilogue::avx2 {

void finish(const Block& block) { Wide<WideAvx2>::finish(block); }

}  // namespace sparsecore::epilogue::avx2

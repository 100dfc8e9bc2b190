// Packs a benchmark weight, as many copies as asked for, and keeps the arrays alive as long as the call that uses them.
#pragma once

#include "harness.h"

namespace bench {

Call pack_shared_lists(const Weight& weight, int64_t copies);
Call pack_row_lists(const Weight& weight, int64_t copies);
Call pack_nm_decode(const Weight& weight, int64_t copies);
Call pack_bitmap_decode(const Weight& weight, int64_t copies);

// By the formulas of the headers.
int64_t shared_lists_bytes(const Weight& weight);
int64_t row_lists_bytes(const Weight& weight);
int64_t nm_decode_bytes(const Weight& weight);
int64_t bitmap_decode_bytes(const Weight& weight);

}  // namespace bench

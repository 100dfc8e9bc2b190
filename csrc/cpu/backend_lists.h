// What each family's dispatch.cpp tells about its table.
#pragma once

#include "sparsecore/backends.h"

namespace sparsecore {

struct BackendList {
  const Backend* rows;
  int count;
};

BackendList row_lists_backends();
BackendList shared_lists_backends();
BackendList group_lists_backends();
BackendList nm_decode_backends();
BackendList bitmap_decode_backends();
BackendList variable_nm_backends();
BackendList epilogue_backends();
BackendList planes_backends();

}  // namespace sparsecore

#include "sparsecore/backends.h"

#include <initializer_list>

#include "cpu/backend_lists.h"

namespace sparsecore {

int backends(Backend* out, int capacity) {
  int count = 0;
  for (const BackendList list :
       {row_lists_backends(), shared_lists_backends(), group_lists_backends(), nm_decode_backends(),
        bitmap_decode_backends(), variable_nm_backends(), epilogue_backends(), planes_backends()})
    for (int i = 0; i < list.count; ++i, ++count)
      if (count < capacity) out[count] = list.rows[i];
  return count;
}

}  // namespace sparsecore

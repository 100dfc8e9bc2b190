#include "cpu/backend_lists.h"

namespace sparsecore {

BackendList bitmap_decode_backends() { return {nullptr, 0}; }

}  // namespace sparsecore

#include "cpu/backend_lists.h"

namespace sparsecore {

BackendList row_lists_backends() { return {nullptr, 0}; }

}  // namespace sparsecore

#include "cpu/backend_lists.h"

namespace sparsecore {

BackendList shared_lists_backends() { return {nullptr, 0}; }

}  // namespace sparsecore

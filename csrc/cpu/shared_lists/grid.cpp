#include <algorithm>

#include "cpu/shared_lists/shared_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore::shared_lists {

int64_t Grid::first_group(int64_t part, const int32_t* group_ptr, int64_t groups) const {
  // A group costs its records and a little for its outputs, so that empty groups are shared out as well.
  const auto cost = [&](int64_t g) { return group_ptr[g] + 4 * g; };
  const int64_t wanted = part * cost(groups) / group_parts;
  int64_t low = 0, high = groups;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (cost(middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  // The nearer of the two boundaries around `wanted`.
  if (low > 0 && wanted - cost(low - 1) < cost(low) - wanted) --low;
  return low;
}

// Tokens are cut first: a part of the tokens packs only its own activations. Below token_block tokens a part would
// read (and widen) weights for too little work, so the rest of the threads share out the groups.
Grid choose_grid(int64_t m, int64_t groups, int64_t token_block) {
  const int64_t threads = num_threads();
  Grid grid;
  grid.token_parts = std::clamp<int64_t>(m / token_block, 1, threads);
  grid.group_parts =
      std::clamp<int64_t>((threads + grid.token_parts - 1) / grid.token_parts, 1, std::max<int64_t>(groups, 1));
  if (grid.token_parts * grid.group_parts < threads)
    grid.token_parts = std::clamp<int64_t>(threads / grid.group_parts, 1, std::max<int64_t>(m / 4, 1));
  return grid;
}

}  // namespace sparsecore::shared_lists

// Walking the lists of a tile's groups, panel by panel, by teams of lanes: one team for each group.
#pragma once

#include "cuda/group_lists/group_lists.h"
#include "cuda/linear/product_tile.cuh"

namespace sparsecore::group_lists_cuda {

// Records [first, last) of a list: inside the arrays, whatever starts holds.
struct Records {
  int32_t first, last;
};

// The lists of panel `panel` for the groups [group, group + tile_groups) into `found`, by `threads` threads: each
// looks at some places of the windows that these groups lie in. A group that has no place keeps what it had.
SC_DEVICE void find_lists(const Lists& lists, int32_t panel, int32_t group, int32_t tile_groups, int thread,
                          int threads, Records* found) {
  const GroupLists& w = lists.weight;
  const int32_t records = static_cast<int32_t>(w.records);
  const int32_t group_end = group + tile_groups < lists.groups ? group + tile_groups : lists.groups;
  const int32_t place_end = (group_end - 1) / w.window * w.window + w.window;
  const uint8_t* order = w.order + static_cast<int64_t>(panel) * lists.groups;
  const int32_t* starts = w.starts + static_cast<int64_t>(panel) * (lists.groups + 1);
  const auto inside = [&](int32_t at) { return at < 0 ? 0 : at > records ? records : at; };
  for (int32_t at = group / w.window * w.window + thread; at < place_end && at < lists.groups; at += threads) {
    const int32_t of_place = at / w.window * w.window + order[at];
    if (of_place >= group && of_place < group_end)
      found[of_place - group] = {inside(starts[at]), inside(starts[at + 1])};
  }
}

// A team's way along its list. Lanes of a warp take their steps together.
struct Walk {
  int team_lanes, team_lane, group;  // group: in the tile; one past the last for lanes without work
  Records left = {0, 0};

  SC_DEVICE Walk(const Lists& lists, int thread, int threads) {
    const int tile_groups = kTileChannels / lists.weight.rows, share = threads / tile_groups;
    team_lanes = share < 32 ? share : 32;
    team_lane = thread % team_lanes;
    group = thread / team_lanes;
    if (group > tile_groups) group = tile_groups;
  }
  SC_DEVICE bool works(const Lists& lists) const { return group < kTileChannels / lists.weight.rows; }

  // The first column of a record, in its panel.
  static SC_DEVICE int32_t column(const Lists& lists, int32_t record) {
    const int32_t index = lists.wide ? static_cast<const uint16_t*>(lists.weight.index)[record]
                                     : static_cast<const uint8_t*>(lists.weight.index)[record];
    return index << lists.column_bits;
  }

  // Calls each(record, element, row, col, column) for the elements of all records left of this panel's columns
  // [.., end), for the first of every 2^run_bits of them, and leaves the records behind. By whole warps.
  template <class Each>
  SC_DEVICE void take(const Lists& lists, int32_t end, int run_bits, Each each) {
    const int32_t record_bits = lists.row_bits + lists.column_bits - run_bits;  // 2 to their power are a record's runs
    const uint32_t team = (team_lanes == 32 ? 0xffffffffu : (1u << team_lanes) - 1)
                          << threadIdx.x % 32 / team_lanes * team_lanes;
    bool more;
    do {
      const int32_t record = left.first + team_lane;
      const bool in = record < left.last && column(lists, record) < end;
      const int32_t count = __popc(__ballot_sync(0xffffffffu, in) & team);
      for (int32_t e = team_lane; e < count << record_bits; e += team_lanes) {
        const int32_t of = left.first + (e >> record_bits), element = (e & ((1 << record_bits) - 1)) << run_bits;
        each(of, element, element & (lists.weight.rows - 1), element >> lists.row_bits, column(lists, of));
      }
      left.first += count;
      more = __any_sync(0xffffffffu, count == team_lanes);
    } while (more);
  }
};

}  // namespace sparsecore::group_lists_cuda

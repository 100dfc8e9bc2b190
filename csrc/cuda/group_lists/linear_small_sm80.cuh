// y = x W^T for few tokens, W as group lists: bound by reading the lists once, so what counts is bytes in flight and
// that nothing is done for weights that are not kept. Products are made one by one, not by tensor cores, for which the
// lists would have to be expanded (linear_sm80.cuh does so for more tokens).
//
//   grid     x: channel tiles of 32, the token tiles of one next to each other; y: splits of the panels
//   a span   up to kSpanPanels panels, of span_columns(kTokens) columns at most together: its x, [place of the
//            column][token], and tables of where its lists are, in shared memory
//   a piece  16 bytes of a list's values: kColumns columns of kRows channels. With groups of more than 8 channels a
//            thread takes one of their slices of 8
//   threads  thread = slice, share of the list, group, share of the panels, slice first: each goes on its own through
//            every panel_shares-th panel's list of its group, every list_shares-th piece of it, and keeps kRows x
//            kTokens sums in registers all the way
//   ring     kStages pieces of each thread, and the indices of their records, by cp.async; only the thread that copied
//            them reads them, and waits for nobody within a span
//   sums     of the threads that share a channel are added in the order of their shares
#pragma once

#include "cuda/common/cache_hints.h"
#include "cuda/common/convert.h"
#include "cuda/common/cp_async.h"
#include "cuda/group_lists/lists.cuh"
#include "cuda/linear/warp_sums.cuh"

namespace sparsecore::group_lists_cuda::sm80 {

template <int kRowsOfPiece, int kTokensOfTile>
struct SmallTile {
  static constexpr int kRows = kRowsOfPiece, kTokens = kTokensOfTile;
  static constexpr int kColumns = 8 / kRows;
  static constexpr int kWindow = kColumns > 4 ? kColumns : 4;  // records whose indices come with a piece
  // The more rows, the fewer pieces a list has and the more sums a thread; pieces of some 16 KB are on their way.
  static constexpr int kThreads = kRows == 8 ? 128 : 256, kWarps = kThreads / 32, kStages = kRows == 8 ? 6 : 4;
  static constexpr int kParts = kThreads * kRows / kSmallTileChannels;  // threads that share a channel
  static constexpr int kSpanColumns = span_columns(kTokens), kColumnBytes = 2 * kTokens;  // of x; one more of zeros
  static constexpr int kValues = kSpanBytes + 16;
  static constexpr int kIndices = kValues + kStages * kThreads * 16;
  static constexpr int kFound = kIndices + kStages * kThreads * 2 * kWindow;
  static constexpr int kRingBytes = kFound + kSpanPanels * kSmallTileChannels * static_cast<int>(sizeof(Records));
  static constexpr int kSumsBytes = cuda_linear::kWarpSumBytes<kParts, kSmallTileChannels, kTokens>;
  static constexpr int kSharedBytes = kSumsBytes > kRingBytes ? kSumsBytes : kRingBytes;
};

// kBytes bytes, of which `left` exist, to shared memory, the others as zeros. `vectors`: from a multiple of kBytes.
template <int kBytes>
SC_DEVICE void copy_once(const char* from, int64_t left, bool vectors, char* shared, uint64_t once) {
  const int valid = left >= kBytes ? kBytes : left > 0 ? static_cast<int>(left) : 0;
  if (vectors) {
    if constexpr (kBytes == 16) {
      valid == 16 ? ptx::cp_async_hinted(shared, from, once)
                  : ptx::cp_async_zfill<16, ptx::CacheAt::kGlobal>(shared, from, valid);
    } else {
      ptx::cp_async_zfill<kBytes, ptx::CacheAt::kAll>(shared, from, valid);
    }
    return;
  }
#pragma unroll 1
  for (int i = 0; i < kBytes; i += 4) {
    uint32_t word = 0;
#pragma unroll
    for (int byte = 0; byte < 4; ++byte)
      if (i + byte < valid) word |= static_cast<uint32_t>(static_cast<uint8_t>(from[i + byte])) << 8 * byte;
    ptx::store_shared_4(shared + i, word);
  }
}

// Of things that threads share: this one takes every `shares`-th from `number` on.
struct Share {
  int number, shares;
};

// A thread's way through its pieces of a span.
template <class Tile>
class PieceWalk {
 public:
  SC_DEVICE PieceWalk(const Lists& lists, const Records* found, int panels, int group, Share of_panels, Share of_list)
      : lists_(lists),
        found_(found + group),
        panels_(panels),
        panel_shares_(of_panels.shares),
        list_share_(of_list),
        panel_(of_panels.number) {
    if (panel_ < panels_) enter();
    settle();
  }
  SC_DEVICE bool more() const { return panel_ < panels_; }
  SC_DEVICE void next() {
    piece_ += list_share_.shares;
    settle();
  }
  SC_DEVICE int panel() const { return panel_; }
  // Its first column, counted through all records of the weight.
  SC_DEVICE int64_t first() const { return begin_ + piece_ * Tile::kColumns; }
  // Whether the list has column i of the piece.
  SC_DEVICE bool has(int i) const {
    return static_cast<uint32_t>(piece_ * Tile::kColumns - lead_ + i) < static_cast<uint32_t>(length_);
  }

 private:
  SC_DEVICE void settle() {
    while (panel_ < panels_ && piece_ >= pieces_) {
      panel_ += panel_shares_;
      if (panel_ < panels_) enter();
    }
  }
  SC_DEVICE void enter() {
    const Records list = found_[panel_ * kSmallTileChannels];
    const int32_t most = lists_.weight.depth >> lists_.column_bits;  // of any list
    const int32_t records = list.last - list.first < most ? list.last - list.first : most;
    const int64_t first = static_cast<int64_t>(list.first) << lists_.column_bits;
    length_ = records > 0 ? records << lists_.column_bits : 0;
    lead_ = static_cast<int>(first % Tile::kColumns);
    begin_ = first - lead_;
    pieces_ = length_ > 0 ? (lead_ + length_ + Tile::kColumns - 1) / Tile::kColumns : 0;
    piece_ = list_share_.number;
  }

  const Lists& lists_;
  const Records* found_;  // of the group, in the span's first panel
  const int panels_, panel_shares_;
  const Share list_share_;
  int panel_, piece_ = 0, pieces_ = 0;  // the panel of the span; pieces of its list
  int lead_ = 0, length_ = 0;           // columns of the first piece that are not the list's; columns of the list
  int64_t begin_ = 0;                   // the first column of the first piece
};

// Where column `column` of a span lies in shared memory, in columns: for groups of more than one column not in its own
// place. They begin at multiples of 4, 8 or 16, and lanes that are at the same place of different groups would all read
// the same few banks. So 128 bytes of columns keep together, and change places by the number of these 128 bytes.
template <int kTokens>
SC_DEVICE int place_of_column(int column, bool spread) {
  constexpr int kLine = 64 / kTokens;  // columns of 128 bytes
  return spread ? column ^ ((column / kLine ^ column / (4 * kLine)) & (kLine - 1)) : column;
}

// Elements (token, column) and (token, column + 1) of x; zeros where there are none.
SC_DEVICE uint32_t token_pair(const LinearArguments& args, int64_t token, int64_t column, uint64_t keep) {
  if (token >= args.p.m || column >= args.p.k) return 0;
  const uint16_t* from = static_cast<const uint16_t*>(args.p.x) + token * args.p.x_row_stride + column;
  const bool both = column + 1 < args.p.k;
  if (args.x_vectors && both) return ptx::load_streaming_4(from, keep);
  return from[0] | (both ? static_cast<uint32_t>(from[1]) << 16 : 0);
}

// `columns` columns of x, an even number, from `column` on, kTokens tokens from `token` on, to [place of the
// column][token]; by kThreads threads.
template <int kTokens, int kThreads>
SC_DEVICE void load_columns(const LinearArguments& args, int64_t token, int64_t column, int columns, int thread,
                            bool spread, uint64_t keep, char* shared) {
  for (int i = 2 * thread; i < columns; i += 2 * kThreads) {
    uint32_t words[kTokens];  // first those of column i, then those of the next one
#pragma unroll
    for (int t = 0; t < kTokens; t += 2) {
      const uint32_t even = token_pair(args, token + t, column + i, keep);
      const uint32_t odd = token_pair(args, token + t + 1, column + i, keep);
      words[t / 2] = __byte_perm(even, odd, 0x5410);
      words[(kTokens + t) / 2] = __byte_perm(even, odd, 0x7632);
    }
    // Neighbours stay neighbours, but the second one may come first.
    const int place = place_of_column<kTokens>(i, spread);
    if (place % 2) {
#pragma unroll
      for (int w = 0; w < kTokens / 2; ++w) {
        const uint32_t first = words[w];
        words[w] = words[kTokens / 2 + w];
        words[kTokens / 2 + w] = first;
      }
    }
    char* to = shared + place / 2 * 4 * kTokens;
    if constexpr (kTokens == 2) {
      ptx::store_shared_8(to, {words[0], words[1]});
    } else {
#pragma unroll
      for (int w = 0; w < kTokens; w += 4)
        ptx::store_shared_16(to + 4 * w, {words[w], words[w + 1], words[w + 2], words[w + 3]});
    }
  }
}

// One column of all tokens of a tile.
template <class T, int kTokens>
SC_DEVICE void load_tokens_of_column(float (&x)[kTokens], const char* shared) {
  uint32_t words[kTokens / 2];
  if constexpr (kTokens == 2) {
    words[0] = ptx::load_shared_4(shared);
  } else if constexpr (kTokens == 4) {
    const uint2 vector = ptx::load_shared_8(shared);
    words[0] = vector.x, words[1] = vector.y;
  } else {
    static_assert(kTokens == 8, "a column has one word, two or four");
    const uint4 vector = ptx::load_shared_16(shared);
    words[0] = vector.x, words[1] = vector.y, words[2] = vector.z, words[3] = vector.w;
  }
#pragma unroll
  for (int t = 0; t < kTokens; t += 2) {
    const float2 pair = ptx::unpack2<T>(words[t / 2]);
    x[t] = pair.x;
    x[t + 1] = pair.y;
  }
}

// kWindow indices of 8 or 16 bits, two to a word.
template <int kWindow>
SC_DEVICE void load_window(uint32_t (&window)[kWindow / 2], const char* shared, bool wide) {
  if (wide) {
    if constexpr (kWindow == 4) {
      const uint2 words = ptx::load_shared_8(shared);
      window[0] = words.x, window[1] = words.y;
    } else {
      const uint4 words = ptx::load_shared_16(shared);
      window[0] = words.x, window[1] = words.y, window[2] = words.z, window[3] = words.w;
    }
    return;
  }
  uint32_t words[kWindow / 4];
  if constexpr (kWindow == 4) {
    words[0] = ptx::load_shared_4(shared);
  } else {
    const uint2 both = ptx::load_shared_8(shared);
    words[0] = both.x, words[1] = both.y;
  }
#pragma unroll
  for (int i = 0; i < kWindow / 4; ++i) {
    window[2 * i] = __byte_perm(words[i], 0, 0x4140);
    window[2 * i + 1] = __byte_perm(words[i], 0, 0x4342);
  }
}

// Budget of sm80::group_lists_small: 128 registers.
template <class T, int kRows, int kTokens>
__global__ void __launch_bounds__(SmallTile<kRows, kTokens>::kThreads, 2)
    group_lists_small(const LinearArguments args) {
  using Tile = SmallTile<kRows, kTokens>;
  const Lists& lists = args.lists;
  const GroupLists& weight = lists.weight;
  char* shared = ptx::smem();
  Records* found = reinterpret_cast<Records*>(shared + Tile::kFound);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int64_t token = static_cast<int64_t>(blockIdx.x % args.token_tiles) * kTokens;
  const int64_t channel = static_cast<int64_t>(blockIdx.x / args.token_tiles) * kSmallTileChannels;
  const cuda_linear::BlockRange panels = cuda_linear::split_range(lists.panels, blockIdx.y, args.splits);
  const uint64_t once = ptx::policy_evict_first(), keep = ptx::policy_evict_last();

  const int slices = weight.rows / kRows, tile_groups = kSmallTileChannels / weight.rows;
  const int slice = thread % slices, list_shares = Tile::kParts / args.panel_shares;
  const Share of_list = {thread / slices % list_shares, list_shares};
  const int group = thread / (slices * list_shares) % tile_groups;
  const Share of_panels = {thread / (Tile::kThreads / args.panel_shares), args.panel_shares};

  const int64_t column_bytes = 2 * weight.rows;
  const int index_bytes = lists.wide ? 2 : 1;
  const int64_t value_end = ((weight.records + 1) << lists.column_bits) * column_bytes;
  const int64_t index_end = (weight.records + 1) * index_bytes;
  // Threads lie next to each other, whatever an index takes, so that a warp reads without bank conflicts.
  const auto indices_of = [&](int stage) {
    return shared + Tile::kIndices + (stage * Tile::kThreads + thread) * Tile::kWindow * index_bytes;
  };
  const auto copy_piece = [&](const PieceWalk<Tile>& at, int stage) {
    const int64_t value = at.first() * column_bytes + slice * 16;
    copy_once<16>(static_cast<const char*>(weight.values) + value, value_end - value, args.value_vectors,
                  shared + Tile::kValues + (stage * Tile::kThreads + thread) * 16, once);
    const int64_t index = (at.first() >> lists.column_bits) / Tile::kWindow * Tile::kWindow * index_bytes;
    const char* from = static_cast<const char*>(weight.index) + index;
    char* to = indices_of(stage);
    lists.wide ? copy_once<2 * Tile::kWindow>(from, index_end - index, args.index_vectors, to, once)
               : copy_once<Tile::kWindow>(from, index_end - index, args.index_vectors, to, once);
  };

  float sums[kRows][kTokens] = {};
  const auto multiply_piece = [&](const PieceWalk<Tile>& at, int stage) {
    const uint4 values = ptx::load_shared_16(shared + Tile::kValues + (stage * Tile::kThreads + thread) * 16);
    const uint32_t words[4] = {values.x, values.y, values.z, values.w};
    float weights[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = ptx::unpack2<T>(words[i]);
      weights[2 * i] = pair.x;
      weights[2 * i + 1] = pair.y;
    }
    // Indices of the window, two to a word.
    uint32_t window[Tile::kWindow / 2];
    load_window<Tile::kWindow>(window, indices_of(stage), lists.wide);
    const uint32_t first = static_cast<uint32_t>(at.first());
    const int panel_column = at.panel() * weight.depth;
    const auto multiply_columns = [&](auto single_columns) {
#pragma unroll
      for (int i = 0; i < Tile::kColumns; ++i) {
        // Pieces of as many records as the window has begin with it.
        constexpr bool kKnown = decltype(single_columns)::value && Tile::kColumns == Tile::kWindow;
        const uint32_t record = kKnown ? i : ((first + i) >> lists.column_bits) % Tile::kWindow;
        constexpr int kUpper = Tile::kWindow == 8 ? 2 : 0;
        const uint32_t low = record & 4 ? window[kUpper] : window[0],
                       high = record & 4 ? window[kUpper + 1] : window[1];
        const int block = __byte_perm(low, high, 0x10 + 0x22 * (record & 3)) & 0xffff;
        const int column = decltype(single_columns)::value
                               ? block
                               : (block << lists.column_bits) + static_cast<int>((first + i) & (weight.cols - 1u));
        // What is not the list's, or lies outside of the panel, is 0 times 0.
        const bool kept = at.has(i) && column < weight.depth;
        const int place = place_of_column<kTokens>(panel_column + column, !decltype(single_columns)::value);
        float x[kTokens];
        load_tokens_of_column<T, kTokens>(x, shared + (kept ? place : Tile::kSpanColumns) * Tile::kColumnBytes);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const float w = kept ? weights[i * kRows + r] : 0.0f;
#pragma unroll
          for (int t = 0; t < kTokens; ++t) sums[r][t] += w * x[t];
        }
      }
    };
    weight.cols == 1 ? multiply_columns(std::true_type()) : multiply_columns(std::false_type());
  };

  for (int i = thread; i < Tile::kColumnBytes / 4; i += Tile::kThreads)
    ptx::store_shared_4(shared + Tile::kSpanColumns * Tile::kColumnBytes + 4 * i, 0);
  for (int64_t span = panels.first; span < panels.last; span += args.span_panels) {
    const int count = static_cast<int>(panels.last - span < args.span_panels ? panels.last - span : args.span_panels);
    __syncthreads();  // everybody is done with x and the lists of the last span
    for (int panel = warp; panel < count; panel += Tile::kWarps) {
      Records* of_panel = found + panel * kSmallTileChannels;
      for (int i = lane; i < kSmallTileChannels; i += 32) of_panel[i] = {0, 0};
      __syncwarp();
      find_lists(lists, static_cast<int32_t>(span) + panel, static_cast<int32_t>(channel / weight.rows), tile_groups,
                 lane, 32, of_panel);
    }
    load_columns<kTokens, Tile::kThreads>(args, token, span * weight.depth, count * weight.depth, thread,
                                          weight.cols > 1, keep, shared);
    __syncthreads();

    PieceWalk<Tile> copied(lists, found, count, group, of_panels, of_list), multiplied = copied;
    int stage = 0;  // of the next piece that is multiplied
    const auto copy_next = [&](int to) {
      if (copied.more()) {
        copy_piece(copied, to);
        copied.next();
      }
      ptx::cp_async_commit();
    };
    for (int i = 0; i < Tile::kStages - 1; ++i) copy_next(i);
    for (; multiplied.more(); multiplied.next()) {
      ptx::cp_async_wait<Tile::kStages - 2>();
      copy_next(stage == 0 ? Tile::kStages - 1 : stage - 1);
      multiply_piece(multiplied, stage);
      stage = stage == Tile::kStages - 1 ? 0 : stage + 1;
    }
  }

  // [share][channel][token] where x and the rings were: every copy has arrived.
  __syncthreads();
  const int part = of_panels.number * list_shares + of_list.number;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int t = 0; t < kTokens; ++t)
      ptx::store_shared_4(
          shared +
              cuda_linear::sum_place<kSmallTileChannels, kTokens>(part, group * weight.rows + slice * kRows + r, t) * 4,
          cuda_linear::bits_of(sums[r][t]));
  __syncthreads();
  cuda_linear::finish_warp_sums<float, Tile::kParts, kSmallTileChannels, kTokens, Tile::kThreads>(args, token, channel,
                                                                                                  blockIdx.y, shared);
}

}  // namespace sparsecore::group_lists_cuda::sm80

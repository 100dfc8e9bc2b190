// Weights whose arrays are damaged at random, by the number of a trial; every fourth or so is left whole.
#pragma once

#include <limits>
#include <random>
#include <type_traits>

#include "cuda/tests/bitmap_decode_problem.h"
#include "cuda/tests/group_lists_problem.h"
#include "cuda/tests/shared_lists_problem.h"

namespace sparsecore {

// Changes one element: to a number near it, an extreme, or that of another place.
template <class T>
void spoil(cuda_emulation::GlobalBuffer<T>& array, std::mt19937& random) {
  if (array.size() == 0) return;
  T& element = array[random() % array.size()];
  const auto bits = static_cast<std::make_unsigned_t<T>>(element);
  switch (random() % 5) {
    case 0: element = static_cast<T>(bits + 1); break;
    case 1: element = static_cast<T>(bits - 1); break;
    case 2: element = std::numeric_limits<T>::max(); break;
    case 3: element = std::numeric_limits<T>::min(); break;
    default: element = array[random() % array.size()];
  }
}

struct DamagedSharedLists : SharedListsProblem<BFloat16> {
  explicit DamagedSharedLists(int trial) : SharedListsProblem(shape_of(trial)) {
    std::mt19937 random(trial);
    for (int damages = trial % 4; damages > 0; --damages) {
      if (random() % 3 == 0) spoil(group_ptr, random);
      if (random() % 3 != 0) spoil(columns, random);
    }
  }
  static SharedListsShape shape_of(int trial) {
    std::mt19937 random(trial + 1000);
    const int vector = 4 << random() % 5;
    const int64_t n = static_cast<int64_t>(random() % (5 * vector)), k = static_cast<int64_t>(random() % 600);
    return {0, n, k, vector, trial % 11 == 0 ? 0.0 : 0.4};
  }
};

struct DamagedGroupLists : GroupProblem {
  struct Shape {
    int32_t rows, cols, depth, window;
    int64_t n, k;
  };
  // From here on damages that chance hardly makes.
  static constexpr int kFirstChosen = 80, kTrials = kFirstChosen + 11;

  explicit DamagedGroupLists(int trial) : DamagedGroupLists(trial, shape_of(trial)) {}
  static Shape shape_of(int trial) {
    // Of the chosen damages: three panels, the last of 22 blocks, and 13 groups, the last three in a window of their
    // own.
    if (trial >= kFirstChosen) return {4, 1, 64, 5, 51, trial == kFirstChosen ? 0 : 150};
    std::mt19937 random(trial + 1000);
    Shape shape;
    shape.rows = 1 << random() % 6;
    shape.cols = 1 << random() % 5;
    shape.depth = trial % 5 == 0 ? 512 : 16 << random() % 3;
    shape.window = 1 + static_cast<int32_t>(random() % 9);
    shape.n = static_cast<int64_t>(random() % (60 * shape.rows));
    shape.k = trial % 16 == 3 ? 0 : static_cast<int64_t>(random() % 300);
    return shape;
  }

 private:
  DamagedGroupLists(int trial, const Shape& s)
      : GroupProblem(0, s.n, s.k, s.rows, s.cols, s.depth, s.window, options_of(trial)) {
    std::mt19937 random(trial);
    end_index();
    if (trial >= kFirstChosen) {
      choose_damage(trial - kFirstChosen);
      return;
    }
    for (int damages = trial % 4; damages > 0; --damages) {
      if (random() % 4 == 0) spoil(starts, random);
      if (random() % 3 == 0) spoil(order, random);
      if (random() % 3 == 0) spoil(index, random);
    }
    if (trial % 24 == 4) index[index.size() - 1] = 1;
  }
  void choose_damage(int damage) {
    uint8_t* blocks = reinterpret_cast<uint8_t*>(index.data());
    int32_t* last_panel = starts.data() + 2 * (groups + 1);
    // Lists become one list, longer than `most`.
    const auto merge = [](int32_t* of_panel, int32_t most) {
      int last = 1;
      while (of_panel[last] - of_panel[0] <= most) ++last;
      for (int i = 1; i < last; ++i) of_panel[i] = of_panel[last];
    };
    switch (damage) {
      case 0: records = 1; break;  // of no panel
      case 1: starts[0] = 1; break;
      case 2: merge(starts.data(), depth); break;
      case 3: merge(last_panel, 22); break;
      case 4: --starts[groups]; break;
      case 5: --starts[3 * (groups + 1) - 1]; break;
      case 6: order[0] = 255, last_panel[2] = -1; break;
      case 7: order[groups - 1] = 3, order[groups - 2] = 0, order[groups - 3] = 1; break;
      case 8: blocks[last_panel[1] - 1] = 22; break;
      case 9: blocks[starts[1] - 1] = 64; break;
      case 10:  // two in the second panel, of which the first is named
        order[2 * groups - 1] = order[2 * groups - 2], blocks[starts[groups + 2] - 1] = 64;
        break;
    }
  }
  static GroupOptions options_of(int trial) {
    GroupOptions options;
    options.seed = trial;
    if (trial >= kFirstChosen) options.density = 0.9;
    return options;
  }
};

struct DamagedBitmap : BitmapProblem {
  explicit DamagedBitmap(int trial) : DamagedBitmap(trial, std::mt19937(trial + 1000)) {}
  // The last value may be missing.
  BitmapDecode weight() {
    BitmapDecode found = params(0).weight;
    if (trial % 10 == 9 && found.nnz > 0) --found.nnz;
    return found;
  }

 private:
  int trial;

  DamagedBitmap(int trial, std::mt19937&& random)
      : BitmapProblem(0, trial == 0 ? 5 : random() % 100,
                      trial == 0          ? 100
                      : random() % 3 == 0 ? 64 * (random() % 3)
                                          : random() % 3000,
                      options_of(trial)),
        trial(trial) {
    for (int damages = trial % 3; damages > 0; --damages) {
      if (random() % 2 == 0) spoil(row_ptr, random);
      if (bitmap.size() > 0 && random() % 3 != 0)
        bitmap[random() % bitmap.size()] ^= uint64_t{1} << (random() % 2 ? 63 : random() % 64);
    }
    // Two damages of the first row, of which starts come first.
    if (trial == 0) row_ptr[0] = 1, bitmap[(k + 63) / 64 - 1] |= ~uint64_t{0} << (k % 64);
  }
  static BitmapOptions options_of(int trial) {
    BitmapOptions options;
    options.seed = trial;
    return options;
  }
};

}  // namespace sparsecore

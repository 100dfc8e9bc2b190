#include "cpu/network/bands.h"

#include <algorithm>

#include "cpu/network/plan.h"

namespace sparsecore::network {
namespace {

constexpr int64_t kLargeBytes = 512 * 1024;   // a value above this does not stay in the cache between two steps
constexpr int64_t kBufferBytes = 512 * 1024;  // all rolling values of a chain; half of a usual level 2 cache
constexpr int64_t kFewestRows = 2;            // of the last value in a band, else halos cost too much

bool can_join(const Step& step) { return step.op == Op::kConv || step.op == Op::kStem || step.op == Op::kDepthwise; }

class Finder {
 public:
  explicit Finder(const Graph& graph) : graph_(graph), readers_(graph.values.size()), output_(graph.values.size()) {
    for (const Step& step : graph.steps)
      graph.for_each_read(step, [&](int value) { ++readers_[static_cast<size_t>(value)]; });
    for (const Port& port : graph.outputs) output_[static_cast<size_t>(port.value)] = true;
  }

  std::vector<Chain> run() {
    const int steps = static_cast<int>(graph_.steps.size());
    for (int first = 0; first < steps;) {
      int last = first;
      while (last + 1 < steps && joined(last)) ++last;
      if (last > first) split(first, last);
      first = last + 1;
    }
    return std::move(chains_);
  }

 private:
  const Step& step(int i) const { return graph_.steps[static_cast<size_t>(i)]; }
  const Shape& written(int i) const { return graph_.values[static_cast<size_t>(step(i).y)]; }

  // What step i writes is read by the next one alone.
  bool joined(int i) const {
    const Step &now = step(i), &next = step(i + 1);
    const auto value = static_cast<size_t>(now.y);
    // A convolution that may overwrite a residual larger than what it reads saves more than a rolling value would.
    if (next.x2 >= 0 && written(i + 1).count() > written(i).count()) return false;
    return can_join(now) && can_join(next) && next.x == now.y && next.x2 != now.y && readers_[value] == 1 &&
           !output_[value] && written(i).rank == 3 && written(i).count() * 4 > kLargeBytes;
  }

  // One chain where its buffers fit, else two, parted where the least lies between steps.
  void split(int first, int last) {
    if (first >= last) return;
    Chain chain = {first, last, 0, {}};
    int64_t rows = written(last).height;
    cut(&chain, rows);
    while (rows > kFewestRows && buffer_bytes(chain) > kBufferBytes) cut(&chain, --rows);
    if (buffer_bytes(chain) <= kBufferBytes) {
      chains_.push_back(std::move(chain));
      return;
    }
    int least = first;
    for (int i = first + 1; i < last; ++i)
      if (written(i).count() < written(least).count()) least = i;
    split(first, least);
    split(least + 1, last);
  }

  // Bands of `rows` rows of the last value.
  void cut(Chain* chain, int64_t rows) const {
    chain->rows = rows;
    chain->roofs.assign(static_cast<size_t>(chain->last - chain->first), 0);
    for (const std::vector<Share>& band : cut_bands(graph_, *chain, 0, step(chain->last).window.out_height))
      for (size_t i = 0; i < chain->roofs.size(); ++i)
        chain->roofs[i] = std::max(chain->roofs[i], band[i].end - band[i].kept);
  }

  int64_t buffer_bytes(const Chain& chain) const {
    int64_t bytes = 0;
    for (size_t i = 0; i < chain.roofs.size(); ++i)
      bytes += 4 * rolling_elements(written(chain.first + static_cast<int>(i)), chain.roofs[i]);
    return bytes;
  }

  const Graph& graph_;
  std::vector<int> readers_;
  std::vector<bool> output_;
  std::vector<Chain> chains_;
};

}  // namespace

Bands cut_bands(const Graph& graph, const Chain& chain, int64_t begin, int64_t end) {
  const auto count = static_cast<size_t>(chain.last - chain.first + 1);
  const auto window = [&](size_t i) -> const Window& {
    return graph.steps[static_cast<size_t>(chain.first) + i].window;
  };
  std::vector<int64_t> done(count, begin);
  for (size_t i = count - 1; i-- > 0;) done[i] = rows_read(window(i + 1), done[i + 1], done[i + 1] + 1).begin;
  Bands bands;
  while (done[count - 1] < end) {
    std::vector<Share> band(count);
    int64_t wanted = std::min(end, done[count - 1] + chain.rows);  // rows of step i's value, by the steps behind it
    for (size_t i = count; i-- > 0;) {
      Share& share = band[i];
      share.begin = share.kept = done[i];
      share.end = std::max(wanted, done[i]);
      if (i + 1 < count) {
        const int64_t next = band[i + 1].begin;
        share.kept = std::min(share.begin, rows_read(window(i + 1), next, next + 1).begin);
      }
      wanted = share.end > share.begin ? rows_read(window(i), share.begin, share.end).end : 0;
      done[i] = share.end;
    }
    bands.push_back(std::move(band));
  }
  return bands;
}

std::vector<Chain> find_chains(const Graph& graph) { return Finder(graph).run(); }

Rows rows_read(const Window& w, int64_t begin, int64_t end) {
  const int64_t low = begin * w.stride_h - w.pad_top,
                high = (end - 1) * w.stride_h - w.pad_top + (w.kernel_h - 1) * w.dilation_h + 1;
  return {std::clamp<int64_t>(low, 0, w.height), std::clamp<int64_t>(high, 0, w.height)};
}

}  // namespace sparsecore::network

#include "cpu/network/parts.h"

#include <algorithm>
#include <atomic>

#include "sparsecore/parallel.h"

namespace sparsecore::network {
namespace {

constexpr int64_t kFewestRows = 6;  // of the last value in a part, else too much is computed twice

int value_of(const Graph& graph, int step) { return graph.steps[static_cast<size_t>(step)].y; }

}  // namespace

bool ChainParts::prepare(const Graph& graph, const Chain& chain, int threads) {
  if (threads == threads_) return true;
  const int64_t height = graph.steps[static_cast<size_t>(chain.last)].window.out_height,
                count = std::clamp<int64_t>(height / kFewestRows, 1, threads);
  parts_.assign(static_cast<size_t>(count), {});
  roofs_ = chain.roofs;  // a part that begins inside the image has a halo on both sides
  for (int64_t p = 0; p < count; ++p) {
    Part& part = parts_[static_cast<size_t>(p)];
    part.bands = cut_bands(graph, chain, p * height / count, (p + 1) * height / count);
    part.places.resize(graph.values.size());
    for (const std::vector<Share>& band : part.bands)
      for (size_t i = 0; i < roofs_.size(); ++i) roofs_[i] = std::max(roofs_[i], band[i].end - band[i].kept);
  }
  part_elements_ = kArenaSlack;
  for (int step = chain.first; step < chain.last; ++step)
    part_elements_ += rolling_elements(graph.values[static_cast<size_t>(value_of(graph, step))],
                                       roofs_[static_cast<size_t>(step - chain.first)]);
  const auto bytes = static_cast<size_t>(part_elements_) * sizeof(float) * parts_.size();
  buffers_.reset(parts_.size() > 1 ? static_cast<float*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) : nullptr);
  threads_ = parts_.size() > 1 && !buffers_ ? 0 : threads;
  return threads_ == threads;
}

Status ChainParts::run(const Graph& graph, const Chain& chain, const std::vector<Place>& places, double* seconds) {
  float* buffer = buffers_.get();  // null, and never followed, where there is one part
  for (Part& part : parts_) {
    std::copy(places.begin(), places.end(), part.places.begin());
    for (int step = chain.first; step < chain.last; ++step) {
      const auto i = static_cast<size_t>(step - chain.first);
      Place& place = part.places[static_cast<size_t>(value_of(graph, step))];
      place.first_row = part.bands[0][i].kept;
      if (parts_.size() == 1) continue;
      place.data = buffer;
      place.stride = rolling_stride(place.shape, roofs_[i]);
      buffer += rolling_elements(place.shape, roofs_[i]);
    }
    buffer += kArenaSlack;
  }
  if (parts_.size() == 1) return run_part(graph, chain, &parts_[0], seconds);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(static_cast<int64_t>(parts_.size()), [&](int64_t p) {
    const Status status = run_part(graph, chain, &parts_[static_cast<size_t>(p)], nullptr);
    if (status != Status::kOk) result = status;
  });
  return result;
}

Status ChainParts::run_part(const Graph& graph, const Chain& chain, Part* part, double* seconds) const {
  for (const std::vector<Share>& band : part->bands)
    for (int number = chain.first; number <= chain.last; ++number) {
      const Share& share = band[static_cast<size_t>(number - chain.first)];
      if (share.begin == share.end) continue;
      const Step& step = graph.steps[static_cast<size_t>(number)];
      const StepTimer timer(seconds ? seconds + number : nullptr);
      if (number < chain.last) roll(&part->places[static_cast<size_t>(step.y)], share.kept, share.begin);
      const Status status = run_rows(step, part->places.data(), share.begin, share.end);
      if (status != Status::kOk) return status;
    }
  return Status::kOk;
}

}  // namespace sparsecore::network

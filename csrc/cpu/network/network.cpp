// The public functions: load a file, run images through it, say what it is made of.
#include "sparsecore/network.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "cpu/network/parts.h"
#include "cpu/network/plan.h"
#include "cpu/network/run.h"
#include "cpu/network/weights.h"
#include "sparsecore/parallel.h"

namespace sparsecore {

using network::Failure;
using network::Graph;
using network::Place;
using network::Placement;
using network::Plan;
using network::Port;
using network::Step;
using network::WeightStore;

class Network {
 public:
  bool load(const void* file, size_t bytes, const Failure& failure) {
    network::TensorFile tensors;
    if (!tensors.read(file, bytes, failure) || !read_description(tensors, failure)) return false;
    if (!weights_.read(tensors, &graph_, failure)) return false;
    chains_ = network::find_chains(graph_);
    parts_.resize(chains_.size());
    timed_parts_.resize(chains_.size());
    plan_ = network::plan_arena(graph_, chains_);
    if (arena_bytes() > kLargestArena)
      return failure.say("the network needs %llu bytes for its values, and this machine gives at most %llu",
                         static_cast<unsigned long long>(arena_bytes()),
                         static_cast<unsigned long long>(kLargestArena));
    places_.resize(graph_.values.size());
    seconds_.assign(graph_.steps.size(), 0.0);
    return true;
  }

  Status run(int64_t images, const float* const* inputs, float* const* outputs, bool timed) {
    if (images < 0) return Status::kBadShape;
    if (timed) std::fill(seconds_.begin(), seconds_.end(), 0.0);
    if (images == 0) return Status::kOk;
    if (!complete(inputs, inputs_count()) || !complete(outputs, outputs_count())) return Status::kNullPointer;
    if (!arena_ && !make_arena()) return Status::kOutOfMemory;
    for (const network::Chain& chain : chains_)
      if (!parts_of(chain, timed).prepare(graph_, chain, timed ? 1 : num_threads())) return Status::kOutOfMemory;
    Status status = Status::kOk;
    parallel_steps([&] {
      for (int64_t image = 0; image < images && status == Status::kOk; ++image)
        status = run_image(image, inputs, outputs, timed);
    });
    return status;
  }

  int inputs_count() const { return static_cast<int>(graph_.inputs.size()); }
  int outputs_count() const { return static_cast<int>(graph_.outputs.size()); }
  const Port& input(int i) const { return graph_.inputs[static_cast<size_t>(i)]; }
  const Port& output(int i) const { return graph_.outputs[static_cast<size_t>(i)]; }
  const Graph& graph() const { return graph_; }
  double seconds(int step) const { return seconds_[static_cast<size_t>(step)]; }
  size_t arena_bytes() const { return static_cast<size_t>(plan_.elements) * sizeof(float); }
  size_t weight_bytes() const { return weights_.bytes(); }

 private:
  static constexpr uint64_t kLargestArena = sizeof(void*) == 8 ? uint64_t{1} << 36 : uint64_t{1} << 31;

  template <typename T>
  static bool complete(T* const* arrays, int count) {
    return arrays && std::find(arrays, arrays + count, nullptr) == arrays + count;
  }

  bool read_description(const network::TensorFile& tensors, const Failure& failure) {
    const network::Json format = tensors.metadata("format"), version = tensors.metadata("version");
    const network::Json text = tensors.metadata("network");
    if (!format || format.string() != "sparsecore.network")
      return failure.say(
          "the file is safetensors, but no network: its format is '%.40s' and not 'sparsecore.network'. "
          "Write networks with sparsecore.export_network",
          format ? format.string().data() : "");
    if (!version || version.string() != "1")
      return failure.say("the file is version '%.20s', and this library reads 1. Update sparsecore, or export again",
                         version ? version.string().data() : "");
    if (!text) return failure.say("the file lacks the description of its network. Export the network again");
    return network::read_graph(text.string(), &graph_, failure);
  }

  bool make_arena() {
    arena_.reset(std::aligned_alloc(64, (arena_bytes() + 63) / 64 * 64));
    if (!arena_) return false;
    auto* arena = static_cast<float*>(arena_.get());
    for (size_t v = 0; v < places_.size(); ++v) {
      const network::Shape& shape = graph_.values[v];
      const Placement& at = plan_.values[v];
      const bool borrowed = at.input >= 0;
      places_[v].shape = shape;
      places_[v].hwc = at.hwc;
      places_[v].stride = borrowed       ? dense_stride(shape, at.hwc)
                          : at.rows >= 0 ? network::rolling_stride(shape, at.rows)
                                         : network::plane_stride(shape);
      places_[v].rolling = at.rows >= 0;
      if (!borrowed) places_[v].data = arena + std::max<int64_t>(at.offset, 0);
    }
    return true;
  }

  Status run_image(int64_t image, const float* const* inputs, float* const* outputs, bool timed) {
    for (int i = 0; i < inputs_count(); ++i) {
      const auto value = static_cast<size_t>(input(i).value);
      if (plan_.values[value].input >= 0) places_[value].data = const_cast<float*>(array_of(i, image, inputs));
    }
    for (int o = 0; o < outputs_count(); ++o)
      for (int i = 0; i < inputs_count(); ++i)
        if (output(o).value == input(i).value) pass_through(i, o, image, inputs, outputs);
    auto chain = chains_.begin();
    for (int number = 0; number < static_cast<int>(graph_.steps.size()); ++number) {
      for (int i = 0; i < inputs_count(); ++i) {
        const auto value = static_cast<size_t>(input(i).value);
        if (plan_.values[value].input < 0 && plan_.values[value].first == number)
          network::copy_in(array_of(i, image, inputs), input(i).hwc, places_[value]);
      }
      Status status;
      if (chain != chains_.end() && chain->first == number) {
        status = run_chain(*chain, timed);
        number = chain->last;
        ++chain;
      } else {
        const network::StepTimer timer(timed ? &seconds_[static_cast<size_t>(number)] : nullptr);
        status = network::run_step(graph_.steps[static_cast<size_t>(number)], places_.data());
      }
      if (status != Status::kOk) return status;
      const int written = graph_.steps[static_cast<size_t>(number)].y;
      for (int o = 0; o < outputs_count(); ++o)
        if (output(o).value == written)
          network::copy_out(places_[static_cast<size_t>(written)], output(o).hwc, array_of(o, image, outputs));
    }
    return Status::kOk;
  }

  // A timed run goes through one band after the other on all threads, so that every step has its own time.
  Status run_chain(const network::Chain& chain, bool timed) {
    return parts_of(chain, timed).run(graph_, chain, places_, timed ? seconds_.data() : nullptr);
  }
  network::ChainParts& parts_of(const network::Chain& chain, bool timed) {
    return (timed ? timed_parts_ : parts_)[static_cast<size_t>(&chain - chains_.data())];
  }

  const network::Shape& shape_of(const Port& port) const { return graph_.values[static_cast<size_t>(port.value)]; }
  const float* array_of(int i, int64_t image, const float* const* inputs) const {
    return inputs[i] + image * shape_of(input(i)).count();
  }
  float* array_of(int i, int64_t image, float* const* outputs) const {
    return outputs[i] + image * shape_of(output(i)).count();
  }

  // An output that is an input itself.
  void pass_through(int i, int o, int64_t image, const float* const* inputs, float* const* outputs) const {
    Place from;
    from.data = const_cast<float*>(array_of(i, image, inputs));
    from.shape = shape_of(input(i));
    from.hwc = input(i).hwc;
    from.stride = dense_stride(from.shape, from.hwc);
    network::copy_out(from, output(o).hwc, array_of(o, image, outputs));
  }

  static int64_t dense_stride(const network::Shape& shape, bool hwc) {
    return shape.rank == 1 ? 1 : hwc ? shape.channels : shape.pixels();
  }

  Graph graph_;
  WeightStore weights_;
  std::vector<network::Chain> chains_;
  std::vector<network::ChainParts> parts_, timed_parts_;  // of each chain
  Plan plan_;
  std::vector<Place> places_;
  std::vector<double> seconds_;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> arena_;
};

namespace {

NetworkValue describe_port(const Network* network, const Port& port) {
  const network::Shape& shape = network->graph().values[static_cast<size_t>(port.value)];
  return {port.name.c_str(), shape.rank, {shape.channels, shape.height, shape.width}, port.hwc};
}

}  // namespace

Network* network_load(const void* file, size_t bytes, NetworkError* error) {
  if (error) error->text[0] = '\0';
  const Failure failure{error};
  std::unique_ptr<Network> network(new (std::nothrow) Network);
  if (network && network->load(file, bytes, failure)) return network.release();
  if (!network) failure.say("no memory for a network");
  return nullptr;
}

void network_free(Network* network) { delete network; }

int network_inputs(const Network* network) { return network->inputs_count(); }
int network_outputs(const Network* network) { return network->outputs_count(); }
NetworkValue network_input(const Network* network, int i) { return describe_port(network, network->input(i)); }
NetworkValue network_output(const Network* network, int i) { return describe_port(network, network->output(i)); }

Status network_run(Network* network, int64_t images, const float* const* inputs, float* const* outputs) {
  return network->run(images, inputs, outputs, false);
}
Status network_profile(Network* network, int64_t images, const float* const* inputs, float* const* outputs) {
  return network->run(images, inputs, outputs, true);
}

size_t network_arena_bytes(const Network* network) { return network->arena_bytes(); }
size_t network_weight_bytes(const Network* network) { return network->weight_bytes(); }

int network_steps(const Network* network) { return static_cast<int>(network->graph().steps.size()); }
NetworkStep network_step(const Network* network, int i) {
  const Step& step = network->graph().steps[static_cast<size_t>(i)];
  return {network::op_name(step.op), step.weight.c_str(),         network::kernel_name(step),
          step.weights.products,     step.weights.dense_products, network->seconds(i)};
}

}  // namespace sparsecore

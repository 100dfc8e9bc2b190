// Runs a network file without torch and without Python:
//
//   run_network FILE [--images N] [--repeat N] [--threads N] [--profile]
//
// Inputs are filled with a fixed pattern. Prints what the network is, the median time of a call, the first numbers of
// every output and, with --profile, the time of every step.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "pool.h"
#include "sparsecore/network.h"

using namespace sparsecore;

namespace {

struct Options {
  const char* file = nullptr;
  int images = 1, repeat = 20, threads = 1;
  bool profile = false;
};

bool parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const auto number = [&](const char* name, int* value) {
      if (std::strcmp(argv[i], name) != 0 || i + 1 == argc) return false;
      *value = std::atoi(argv[++i]);
      return true;
    };
    if (std::strcmp(argv[i], "--profile") == 0)
      options->profile = true;
    else if (!number("--images", &options->images) && !number("--repeat", &options->repeat) &&
             !number("--threads", &options->threads)) {
      if (argv[i][0] == '-' || options->file) return false;
      options->file = argv[i];
    }
  }
  return options->file && options->images > 0 && options->repeat > 0 && options->threads > 0;
}

void print_port(const NetworkValue& value) {
  const auto size = [&](int d) { return static_cast<long long>(value.shape[d]); };
  if (value.rank == 1)
    std::printf("  %s [%lld]\n", value.name, size(0));
  else if (value.hwc)
    std::printf("  %s [%lld, %lld, %lld], pixels\n", value.name, size(1), size(2), size(0));
  else
    std::printf("  %s [%lld, %lld, %lld], planes\n", value.name, size(0), size(1), size(2));
}

// One array per input or output, for all images.
std::vector<std::vector<float>> arrays(int count, int images, const auto& port) {
  std::vector<std::vector<float>> all;
  for (int i = 0; i < count; ++i) {
    const NetworkValue value = port(i);
    print_port(value);
    std::vector<float> array(static_cast<size_t>(images * value.shape[0] * value.shape[1] * value.shape[2]));
    for (size_t e = 0; e < array.size(); ++e) array[e] = static_cast<float>(e % 251) / 125 - 1;
    all.push_back(array);
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, &options)) {
    std::fprintf(stderr, "run_network FILE [--images N] [--repeat N] [--threads N] [--profile]\n");
    return 2;
  }
  std::ifstream stream(options.file, std::ios::binary);
  if (!stream) {
    std::fprintf(stderr, "run_network: %s cannot be opened\n", options.file);
    return 1;
  }
  const std::string file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  NetworkError error;
  struct Free {
    void operator()(Network* network) const { network_free(network); }
  };
  const std::unique_ptr<Network, Free> network(network_load(file.data(), file.size(), &error));
  if (!network) {
    std::fprintf(stderr, "run_network: %s: %s\n", options.file, error.text);
    return 1;
  }
  bench::use_threads(options.threads);

  std::printf("inputs\n");
  const auto inputs =
      arrays(network_inputs(network.get()), options.images, [&](int i) { return network_input(network.get(), i); });
  std::printf("outputs\n");
  auto outputs =
      arrays(network_outputs(network.get()), options.images, [&](int i) { return network_output(network.get(), i); });
  std::vector<const float*> from;
  for (const auto& array : inputs) from.push_back(array.data());
  std::vector<float*> to;
  for (auto& array : outputs) to.push_back(array.data());

  std::vector<double> times;
  for (int call = -2; call < options.repeat; ++call) {
    const auto begin = std::chrono::steady_clock::now();
    const Status status = network_run(network.get(), options.images, from.data(), to.data());
    if (status != Status::kOk) {
      std::fprintf(stderr, "run_network: %s\n", describe(status));
      return 1;
    }
    if (call >= 0) times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  std::printf("weights %.2f MiB, arena %.2f MiB\n",
              static_cast<double>(network_weight_bytes(network.get())) / (1 << 20),
              static_cast<double>(network_arena_bytes(network.get())) / (1 << 20));
  std::printf("%d images, %d threads: median %.3f ms, best %.3f ms of %d calls\n", options.images, options.threads,
              1e3 * times[times.size() / 2], 1e3 * times[0], options.repeat);
  for (const auto& output : outputs) {
    for (size_t e = 0; e < std::min<size_t>(output.size(), 6); ++e)
      std::printf("%s%g", e ? ", " : "  ", static_cast<double>(output[e]));
    std::printf("%s\n", output.size() > 6 ? ", ..." : "");
  }

  if (options.profile) {
    network_profile(network.get(), options.images, from.data(), to.data());
    std::printf("%4s  %-20s %-32s %-28s %9s %9s %9s\n", "step", "op", "weight", "kernel", "MFLOP", "of dense", "ms");
    for (int i = 0; i < network_steps(network.get()); ++i) {
      const NetworkStep step = network_step(network.get(), i);
      const double dense = static_cast<double>(step.dense_products);
      std::printf("%4d  %-20s %-32.32s %-28s %9.2f %8.0f%% %9.3f\n", i, step.op, step.weight, step.kernel,
                  2e-6 * static_cast<double>(step.products * options.images),
                  dense > 0 ? 100 * static_cast<double>(step.products) / dense : 100.0, 1e3 * step.seconds);
    }
  }
  return 0;
}

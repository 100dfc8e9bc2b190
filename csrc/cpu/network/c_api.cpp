// Networks through C functions, for Python's ctypes and for JavaScript: 32-bit numbers, plain pointers, no structures.
// A Status comes back as a number, sparsecore_network_describe() has its text.
#include <cstring>

#include "sparsecore/network.h"

#if defined(__wasm__)
#define SPARSECORE_C(name) extern "C" __attribute__((export_name(#name)))
#else
#define SPARSECORE_C(name) extern "C" SPARSECORE_API
#endif

using namespace sparsecore;

// Null where the file is not sound; `error` (512 bytes) then holds why, else an empty text.
SPARSECORE_C(sparsecore_network_load)
Network* sparsecore_network_load(const void* file, size_t bytes, char* error) {
  NetworkError failure;
  Network* network = network_load(file, bytes, &failure);
  std::memcpy(error, failure.text, sizeof failure.text);
  return network;
}
SPARSECORE_C(sparsecore_network_free) void sparsecore_network_free(Network* network) { network_free(network); }

SPARSECORE_C(sparsecore_network_inputs)
int32_t sparsecore_network_inputs(const Network* network) { return network_inputs(network); }
SPARSECORE_C(sparsecore_network_outputs)
int32_t sparsecore_network_outputs(const Network* network) { return network_outputs(network); }

// Input or output i: its name, and into `shape` rank, channels, height, width and 1 where it is [H, W, C].
SPARSECORE_C(sparsecore_network_port)
const char* sparsecore_network_port(const Network* network, int32_t output, int32_t i, int32_t* shape) {
  const NetworkValue value = output ? network_output(network, i) : network_input(network, i);
  shape[0] = value.rank;
  for (int d = 0; d < 3; ++d) shape[1 + d] = static_cast<int32_t>(value.shape[d]);
  shape[4] = value.hwc;
  return value.name;
}

// With `profile`, the steps are timed.
SPARSECORE_C(sparsecore_network_run)
int32_t sparsecore_network_run(Network* network, int32_t images, const float* const* inputs, float* const* outputs,
                               int32_t profile) {
  return static_cast<int32_t>((profile ? network_profile : network_run)(network, images, inputs, outputs));
}
SPARSECORE_C(sparsecore_network_describe)
const char* sparsecore_network_describe(int32_t status) { return describe(static_cast<Status>(status)); }

SPARSECORE_C(sparsecore_network_arena_bytes)
size_t sparsecore_network_arena_bytes(const Network* network) { return network_arena_bytes(network); }
SPARSECORE_C(sparsecore_network_weight_bytes)
size_t sparsecore_network_weight_bytes(const Network* network) { return network_weight_bytes(network); }

SPARSECORE_C(sparsecore_network_steps)
int32_t sparsecore_network_steps(const Network* network) { return network_steps(network); }
// Step i: texts are op, weight, kernel; numbers are products, dense products, seconds.
SPARSECORE_C(sparsecore_network_step)
void sparsecore_network_step(const Network* network, int32_t i, const char** texts, double* numbers) {
  const NetworkStep step = network_step(network, i);
  texts[0] = step.op, texts[1] = step.weight, texts[2] = step.kernel;
  numbers[0] = static_cast<double>(step.products);
  numbers[1] = static_cast<double>(step.dense_products);
  numbers[2] = step.seconds;
}

// A whole network as a flat list of operators over one arena, from one file, without torch and without Python.
//
// The file is a safetensors file. Its header's __metadata__ holds
//   "format": "sparsecore.network", "version": "1", "network": JSON text:
//
//   {"inputs":  [{"name": "image", "value": 0, "layout": "chw"}],     layout "chw" or "hwc"; "vector" for rank 1
//    "outputs": [{"name": "logits", "value": 5}],
//    "values":  [[3, 224, 224], [32, 112, 112], ..., [1000]],         shape of each value: [C, H, W] or [features]
//    "steps":   [step, ...]}                                          in order of execution; each value written once
//
// A step has "op", the values it reads ("x"; "x2" or "residual" where there are two), the value it writes ("y"), and
//
//   conv        sparse or dense, any kernel, groups 1: "weight" (a name), "kernel", "stride", "padding" [top, left],
//               "dilation" (pairs), "rows", "cols", "depth", "window", "activation", optional "residual".
//               Tensors <weight>.values/.index/.order/.starts (group_lists.h), optional .bias and .scale
//   stem        dense, few input channels: tensors <weight>.weight [O, kh * kw * C], columns (tap, channel); optional
//   .bias depthwise   tensors <weight>.weight [C, kh * kw], optional .bias linear      group lists as conv, of a
//   vector: x and y are [features] dense       <weight>.weight [out, in] and optional .bias, of a vector average_pool,
//   max_pool     "kernel", "stride", "padding", for an average "count_include_pad" global_average_pool        [C, H, W]
//   -> [C] squeeze_excite             tensors <weight>.weight1 .bias1 .weight2 .bias2, "inner", "gate" (activations)
//   add, scale, activation     as add_planes, scale_planes, activate_planes; rank 1 too where it makes sense
//   concat      "xs": values whose channels follow each other
//   flatten     [C, H, W] -> [C * H * W], in that order
//   softmax     of a vector
//
// Activations are named "none", "relu", "gelu", "gelu_tanh", "silu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid".
//
// Everything is validated on load: shapes of every step against each other and against its tensors, every index of
// every packed weight. A file that loads cannot make a kernel leave its buffers. Planes lie in the arena with a stride
// of whole kPlaneLanes; offsets are planned on load from when each value is last read. run() allocates nothing once it
// has run.
#pragma once

#include <cstddef>

#include "sparsecore/types.h"

namespace sparsecore {

class Network;

struct NetworkError {
  char text[512];  // one sentence: what was wrong, where, what to do; empty where all is well
};

struct NetworkValue {
  const char* name;
  int32_t rank;      // 1 or 3
  int64_t shape[3];  // [C, H, W], as the caller passes it after `layout`
  bool hwc;          // the caller's array is [H, W, C]
};

// Copies what it needs: `file` may be freed afterwards. Null, and *error filled, where the file is not sound.
SPARSECORE_API Network* network_load(const void* file, size_t bytes, NetworkError* error);
SPARSECORE_API void network_free(Network* network);

SPARSECORE_API int network_inputs(const Network* network);
SPARSECORE_API int network_outputs(const Network* network);
SPARSECORE_API NetworkValue network_input(const Network* network, int i);
SPARSECORE_API NetworkValue network_output(const Network* network, int i);

// One array per input and output, dense, float32, `images` of them one after the other. Calls on one network are not to
// be raced; calls on different networks may.
SPARSECORE_API Status network_run(Network* network, int64_t images, const float* const* inputs, float* const* outputs);

// Large early layers run band by band, several threads each in buffers of their own (half a megabyte or so a thread and
// chain), which come on top of the arena.
SPARSECORE_API size_t network_arena_bytes(const Network* network);
SPARSECORE_API size_t network_weight_bytes(const Network* network);

// For people: the steps. `kernel` names the row of the table that serves it on this machine.
struct NetworkStep {
  const char* op;
  const char* weight;  // name, or empty
  const char* kernel;
  int64_t products;        // multiply-adds that are done
  int64_t dense_products;  // and that a dense step would do
  double seconds;          // of the last network_profile run, else 0
};
SPARSECORE_API int network_steps(const Network* network);
SPARSECORE_API NetworkStep network_step(const Network* network, int i);
// network_run, timing every step.
SPARSECORE_API Status network_profile(Network* network, int64_t images, const float* const* inputs,
                                      float* const* outputs);

}  // namespace sparsecore

// Launches a kernel on a stream, or on the emulator.
//
//   LaunchConfig config;
//   config.grid = dim3(blocks);
//   config.block = dim3(256);
//   config.shared_bytes = bytes;
//   config.stream = stream;
//   LaunchError error = launch(config, kernel<4>, x, y, n);
//
// Nothing here waits for the device, and nothing allocates: launches may be captured in a graph.
#pragma once

#include <cstddef>
#include <utility>

#include "cuda/common/device.h"

namespace sparsecore {

#if SC_EMULATED
using Stream = void*;
#else
using Stream = cudaStream_t;
#endif

// Dynamic shared memory that a block may ask for: on every device from sm_80 on, and on sm_90.
constexpr int kSharedBytesEverywhere = 99 << 10, kSharedBytesSm90 = 227 << 10;

struct LaunchConfig {
  dim3 grid, block;
  dim3 cluster;             // blocks, (1, 1, 1) for none; sm_90
  size_t shared_bytes = 0;  // dynamic; more than 48 KiB is asked for by launch()
  Stream stream = nullptr;
  bool overlaps_previous = false;  // may begin before the stream's previous kernel ends (dependent_launch.h); sm_90
};

// What the launch itself was refused for; nothing of what the kernel does.
struct LaunchError {
  int code = 0;
  explicit operator bool() const { return code != 0; }
  const char* message() const {
#if SC_EMULATED
    return "";
#else
    return cudaGetErrorString(static_cast<cudaError_t>(code));
#endif
  }
};

struct Device {
  int capability = 0;  // 80, 86, 89, 90
  int multiprocessors = 0;
  size_t shared_bytes = 0;  // dynamic shared memory that a block may ask for
};

// Of the device that launches go to.
inline Device current_device() {
#if SC_EMULATED
  const cuda_emulation::Options& options = cuda_emulation::default_options();
  return {options.capability, options.multiprocessors, cuda_emulation::shared_memory_limit(options.capability)};
#else
  int device = 0, major = 0, minor = 0, multiprocessors = 0, shared_bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return {10 * major + minor, multiprocessors, static_cast<size_t>(shared_bytes)};
#endif
}

#if !SC_EMULATED
inline cudaLaunchAttribute cluster_attribute(dim3 cluster) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {cluster.x, cluster.y, cluster.z};
  return attribute;
}
#endif

// How many clusters (of config.cluster blocks that fill a multiprocessor each) run at a time. Multiprocessors stand in
// groups whose size a cluster may not divide, so this can be fewer than the device has multiprocessors for.
template <class... Parameters>
int64_t resident_clusters(const LaunchConfig& config, void (*kernel)(Parameters...)) {
  const int64_t blocks = config.cluster.x * config.cluster.y * config.cluster.z;
  const int64_t most = current_device().multiprocessors / blocks;
#if SC_EMULATED
  (void)kernel;
#else
  if (blocks > 1) {
    cudaLaunchAttribute attribute = cluster_attribute(config.cluster);
    cudaLaunchConfig_t launch_config{};
    launch_config.gridDim = dim3(static_cast<unsigned>(blocks * most));
    launch_config.blockDim = config.block;
    launch_config.dynamicSmemBytes = config.shared_bytes;
    launch_config.attrs = &attribute;
    launch_config.numAttrs = 1;
    int found = 0;
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(config.shared_bytes)) == cudaSuccess &&
        cudaOccupancyMaxActiveClusters(&found, kernel, &launch_config) == cudaSuccess && found > 0)
      return found;
  }
#endif
  return most > 0 ? most : 1;
}

template <class... Parameters, class... Arguments>
LaunchError launch(const LaunchConfig& config, void (*kernel)(Parameters...), Arguments&&... arguments) {
#if SC_EMULATED
  cuda_emulation::Config emulated;
  emulated.grid = config.grid;
  emulated.block = config.block;
  emulated.cluster = config.cluster;
  emulated.shared_bytes = config.shared_bytes;
  cuda_emulation::launch(emulated, [&] { kernel(static_cast<Parameters>(arguments)...); });
  return {};
#else
  if (config.shared_bytes > 48 << 10) {
    const cudaError_t refused = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(config.shared_bytes));
    if (refused != cudaSuccess) return {static_cast<int>(refused)};
  }
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (config.cluster.x * config.cluster.y * config.cluster.z > 1) {
    attributes[count++] = cluster_attribute(config.cluster);
  }
  if (config.overlaps_previous) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count].val.programmaticStreamSerializationAllowed = 1;
    count++;
  }
  cudaLaunchConfig_t launch_config{};
  launch_config.gridDim = config.grid;
  launch_config.blockDim = config.block;
  launch_config.dynamicSmemBytes = config.shared_bytes;
  launch_config.stream = config.stream;
  launch_config.attrs = attributes;
  launch_config.numAttrs = count;
  return {static_cast<int>(
      cudaLaunchKernelEx(&launch_config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...))};
#endif
}

}  // namespace sparsecore

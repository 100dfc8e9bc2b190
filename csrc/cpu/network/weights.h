// The tensors of every step: found, checked against the step's shapes, copied to aligned memory.
//
// Weights of group lists keep their storage type; everything else is widened to float32. A dense matrix becomes group
// lists that keep every block, which is the fastest dense product there is here. A tensor that several steps name is
// held once.
#pragma once

#include <cstdlib>
#include <map>
#include <memory>

#include "cpu/network/graph.h"

namespace sparsecore::network {

class WeightStore {
 public:
  // Fills step.weights of every step; validates every index of every packed weight.
  bool read(const TensorFile& file, Graph* graph, const Failure& failure);
  size_t bytes() const { return bytes_; }

 private:
  friend class WeightReader;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  // 64-byte aligned, with kSlack readable bytes behind it; null where memory cannot be had.
  void* reserve(int64_t bytes);
  // Bytes of a tensor, or its elements as float32. Tensors are told apart by name.
  const void* copy(const Tensor& tensor);
  const float* widen(const Tensor& tensor);

  static constexpr int64_t kSlack = 64;
  std::vector<std::unique_ptr<void, Free>> blocks_;
  std::map<std::string, const void*> copies_, widened_;
  std::map<std::string, GroupLists> packed_;
  size_t bytes_ = 0;
};

}  // namespace sparsecore::network

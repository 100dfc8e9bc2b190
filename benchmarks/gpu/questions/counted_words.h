// An array as large as a question likes, made on the device: word i holds i, modulo 2^32.
#pragma once

#include "question.h"

namespace sparsecore::questions {

template <class Word>
__global__ void count(Word* words, int64_t size) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)
    words[i] = static_cast<Word>(i);
}

class CountedWords {
 public:
  explicit CountedWords(int64_t size) : size_(size), words_(allocate(size)) {
    LaunchConfig config;
    config.grid = dim3(all_blocks());
    config.block = dim3(scaled(512, 64));
    require(launch(config, count<uint32_t>, data(), size));
    finish();
  }
  CountedWords(const CountedWords&) = delete;
  CountedWords& operator=(const CountedWords&) = delete;
#if SC_EMULATED
  uint32_t* data() { return words_.data(); }
#else
  ~CountedWords() { cudaFree(words_); }
  uint32_t* data() { return words_; }
#endif

  // Of all words, modulo 2^32.
  uint32_t sum() const {
    const uint64_t n = static_cast<uint64_t>(size_);
    return static_cast<uint32_t>(n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n);
  }

 private:
#if SC_EMULATED
  using Memory = cuda_emulation::GlobalBuffer<uint32_t>;
  static Memory allocate(int64_t size) { return Memory(static_cast<size_t>(size)); }
#else
  using Memory = uint32_t*;
  static Memory allocate(int64_t size) {
    void* memory = nullptr;
    require(cudaMalloc(&memory, static_cast<size_t>(size) * 4));
    return static_cast<uint32_t*>(memory);
  }
#endif
  int64_t size_;
  Memory words_;
};

}  // namespace sparsecore::questions

// Conformance of the PTX wrappers: for each a kernel that is little more than the wrapper, and the same thing in scalar
// code. Values are small integers, which every format here holds and sums exactly, so results must be equal.
//
// The emulator runs all of it in the tests. On a GPU, `cuda_conformance` does, and prints what holds there.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#include "cuda/common/launch.h"

namespace sparsecore::conformance {

struct Check {
  std::string name;
  int capability;  // of the device, as 80, 89, 90
  int value;       // 0 first: what most else rests on
  // Empty where the kernel and the scalar code agree, else the first difference. Throws what the device reports.
  std::function<std::string()> run;
};

// Ordered by value.
std::vector<Check> all_checks();

// One file each.
void add_mma_checks(std::vector<Check>& checks);
void add_float8_checks(std::vector<Check>& checks);
void add_shared_memory_checks(std::vector<Check>& checks);
void add_barrier_checks(std::vector<Check>& checks);
void add_copy_checks(std::vector<Check>& checks);
void add_wgmma_checks(std::vector<Check>& checks);
void add_wgmma_box_checks(std::vector<Check>& checks);

inline void require(LaunchError error) {
  if (error) throw std::runtime_error(error.message());
}

// One block.
inline LaunchConfig one_block(unsigned threads, size_t shared_bytes = 0) {
  LaunchConfig config;
  config.block = dim3(threads);
  config.shared_bytes = shared_bytes;
  return config;
}

#if SC_EMULATED
inline void finish() {}

// Memory that a kernel can reach.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : buffer_(values) {}
  T* data() { return buffer_.data(); }
  std::vector<T> values() const { return buffer_.to_vector(); }

 private:
  cuda_emulation::GlobalBuffer<T> buffer_;
};
#else
inline void require(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
inline void finish() { require(cudaDeviceSynchronize()); }

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    require(cudaMalloc(&data_, size_ * sizeof(T)));
    require(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() { return data_; }
  std::vector<T> values() const {
    std::vector<T> copy(size_);
    require(cudaMemcpy(copy.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return copy;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};
#endif

// -4 .. 4 in each format.
template <class T>
T small_integer(int value);
template <>
inline int8_t small_integer<int8_t>(int value) {
  return static_cast<int8_t>(value);
}
template <>
inline BFloat16 small_integer<BFloat16>(int value) {
  constexpr uint16_t magnitudes[5] = {0, 0x3f80, 0x4000, 0x4040, 0x4080};
  return {static_cast<uint16_t>(magnitudes[value < 0 ? -value : value] | (value < 0 ? 0x8000 : 0))};
}
template <>
inline Float16 small_integer<Float16>(int value) {
  constexpr uint16_t magnitudes[5] = {0, 0x3c00, 0x4000, 0x4200, 0x4400};
  return {static_cast<uint16_t>(magnitudes[value < 0 ? -value : value] | (value < 0 ? 0x8000 : 0))};
}
template <>
inline Float8E4M3 small_integer<Float8E4M3>(int value) {
  constexpr uint8_t magnitudes[5] = {0, 0x38, 0x40, 0x44, 0x48};
  return {static_cast<uint8_t>(magnitudes[value < 0 ? -value : value] | (value < 0 ? 0x80 : 0))};
}
template <>
inline Float8E5M2 small_integer<Float8E5M2>(int value) {
  constexpr uint8_t magnitudes[5] = {0, 0x3c, 0x40, 0x42, 0x44};
  return {static_cast<uint8_t>(magnitudes[value < 0 ? -value : value] | (value < 0 ? 0x80 : 0))};
}
template <>
inline TFloat32 small_integer<TFloat32>(int value) {
  constexpr uint32_t magnitudes[5] = {0, 0x3f800000, 0x40000000, 0x40400000, 0x40800000};
  return {magnitudes[value < 0 ? -value : value] | (value < 0 ? 0x80000000u : 0u)};
}

// A matrix twice: as integers to compute with, as elements to hand over.
template <class T>
struct Matrix {
  int rows, columns;
  std::vector<int> values;
  std::vector<T> elements;

  Matrix(int rows, int columns, std::mt19937& random) : rows(rows), columns(columns) {
    for (int i = 0; i < rows * columns; ++i) set(static_cast<int>(random() % 9) - 4);
  }
  int at(int row, int column) const { return values[static_cast<size_t>(row) * columns + column]; }

 private:
  void set(int value) {
    values.push_back(value);
    elements.push_back(small_integer<T>(value));
  }
};

// "" or "d[3, 5] is 7 and should be 9 (12 of 128 differ)". NaN differs from everything.
template <class T>
std::string first_difference(const std::vector<T>& got, const std::vector<T>& expected, int columns) {
  size_t first = got.size(), count = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == expected[i]) continue;
    if (count++ == 0) first = i;
  }
  if (count == 0) return "";
  std::ostringstream text;
  text << "[" << first / columns << ", " << first % columns << "] is " << +got[first] << " and should be "
       << +expected[first] << " (" << count << " of " << got.size() << " differ)";
  return text.str();
}

// c[i, j] + sum over k of a[i, k] b[j, k]
template <class T, class Sum>
std::vector<Sum> product(const Matrix<T>& a, const Matrix<T>& b, const std::vector<Sum>& c) {
  std::vector<Sum> result = c;
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < b.rows; ++j) {
      for (int k = 0; k < a.columns; ++k) {
        result[static_cast<size_t>(i) * b.rows + j] += static_cast<Sum>(a.at(i, k) * b.at(j, k));
      }
    }
  }
  return result;
}

// A 2:4 sparse A: what is stored, and each stored element's place in its group of four, ascending in each pair.
template <class T>
struct SparseMatrix {
  Matrix<T> stored;
  std::vector<uint8_t> places;

  SparseMatrix(int rows, int stored_columns, std::mt19937& random) : stored(rows, stored_columns, random) {
    constexpr uint8_t pairs[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};
    for (int i = 0; i < rows * stored_columns / 2; ++i) {
      const uint8_t* pair = pairs[random() % 6];
      places.insert(places.end(), pair, pair + 2);
    }
  }
  int place(int row, int stored_column) const {
    return places[static_cast<size_t>(row) * stored.columns + stored_column];
  }
};

template <class T, class Sum>
std::vector<Sum> product(const SparseMatrix<T>& a, const Matrix<T>& b, const std::vector<Sum>& c) {
  std::vector<Sum> result = c;
  for (int i = 0; i < a.stored.rows; ++i) {
    for (int j = 0; j < b.rows; ++j) {
      for (int s = 0; s < a.stored.columns; ++s) {
        const int k = 4 * (s / 2) + a.place(i, s);
        result[static_cast<size_t>(i) * b.rows + j] += static_cast<Sum>(a.stored.at(i, s) * b.at(j, k));
      }
    }
  }
  return result;
}

template <class Sum>
std::vector<Sum> small_sums(int count, std::mt19937& random) {
  std::vector<Sum> sums;
  for (int i = 0; i < count; ++i) sums.push_back(static_cast<Sum>(static_cast<int>(random() % 9) - 4));
  return sums;
}

template <class T>
constexpr const char* type_name = "";
template <>
inline constexpr const char* type_name<BFloat16> = "bf16";
template <>
inline constexpr const char* type_name<Float16> = "f16";
template <>
inline constexpr const char* type_name<TFloat32> = "tf32";
template <>
inline constexpr const char* type_name<int8_t> = "s8";
template <>
inline constexpr const char* type_name<Float8E4M3> = "e4m3";
template <>
inline constexpr const char* type_name<Float8E5M2> = "e5m2";

}  // namespace sparsecore::conformance

// A tensor's dimensions: a small value type without allocation. -1 means "any" (only in signatures).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

#include "tensor/dtype.h"

namespace fastserve {

inline constexpr std::size_t kMaxRank = 16;
inline constexpr std::int64_t kMaxElements = std::int64_t{1} << 40;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const std::int64_t> dims) {
    for (std::int64_t d : dims) push_back(d);
  }
  // Dimensions beyond kMaxRank are not stored: whoever reads a rank from outside compares it with kMaxRank first.
  void push_back(std::int64_t dim) {
    if (rank_ < kMaxRank) dims_[rank_++] = dim;
  }
  void clear() { rank_ = 0; }
  Shape(const Shape& other) { *this = other; }
  Shape& operator=(const Shape& other) {
    rank_ = other.rank_;
    for (std::size_t i = 0; i < rank_; ++i) dims_[i] = other.dims_[i];
    return *this;
  }

  std::size_t rank() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  std::int64_t operator[](std::size_t i) const { return dims_[i]; }
  std::int64_t& operator[](std::size_t i) { return dims_[i]; }
  std::span<const std::int64_t> dims() const { return {dims_.data(), rank_}; }
  bool operator==(const Shape& other) const;

  // Product of the dimensions (1 for rank 0); nullopt when one is negative or the product reaches kMaxElements.
  std::optional<std::int64_t> elements() const;
  // elements() x dtype_size; nullopt as above and for kBytes.
  std::optional<std::size_t> byte_count(DType dtype) const;
  // The same from dimension `first` on: bytes of one row for first = 1.
  std::optional<std::size_t> byte_count_from(DType dtype, std::size_t first) const;
  bool is_static() const;   // no negative dimension
  std::string str() const;  // "[-1,3,224,224]"

 private:
  std::array<std::int64_t, kMaxRank> dims_;
  std::size_t rank_ = 0;
};

}  // namespace fastserve

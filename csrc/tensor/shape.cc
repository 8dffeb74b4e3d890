#include "tensor/shape.h"

#include <algorithm>

#include "base/checked.h"

namespace fastserve {
namespace {

std::optional<std::int64_t> product(std::span<const std::int64_t> dims) {
  std::int64_t total = 1;
  bool zero = false;
  for (std::int64_t d : dims) {
    if (d < 0) return std::nullopt;
    if (d == 0) {
      zero = true;
      continue;
    }
    if (!checked_mul(total, d, total) || total >= kMaxElements) return std::nullopt;
  }
  return zero ? 0 : total;
}

}  // namespace

bool Shape::operator==(const Shape& other) const { return std::ranges::equal(dims(), other.dims()); }

std::optional<std::int64_t> Shape::elements() const { return product(dims()); }

std::optional<std::size_t> Shape::byte_count(DType dtype) const { return byte_count_from(dtype, 0); }

std::optional<std::size_t> Shape::byte_count_from(DType dtype, std::size_t first) const {
  if (dtype == DType::kBytes) return std::nullopt;
  const auto count = product(dims().subspan(std::min(first, rank_)));
  if (!count) return std::nullopt;
  std::size_t bytes = 0;
  if (!checked_mul(static_cast<std::size_t>(*count), dtype_size(dtype), bytes)) return std::nullopt;
  return bytes;
}

bool Shape::is_static() const {
  return std::ranges::all_of(dims(), [](std::int64_t d) { return d >= 0; });
}

std::string Shape::str() const {
  std::string out = "[";
  for (std::size_t i = 0; i < rank_; ++i) {
    if (i != 0) out += ',';
    out += std::to_string(dims_[i]);
  }
  return out += ']';
}

}  // namespace fastserve

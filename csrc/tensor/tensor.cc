#include "tensor/tensor.h"

#include <cstdint>
#include <cstring>

namespace fastserve {

std::optional<std::size_t> bytes_extent(std::span<const std::byte> data, std::int64_t stop) {
  std::size_t at = 0;
  for (std::int64_t i = 0; i < stop; ++i) {
    std::uint32_t length = 0;
    if (data.size() - at < sizeof(length)) return std::nullopt;
    std::memcpy(&length, data.data() + at, sizeof(length));
    at += sizeof(length);
    if (data.size() - at < length) return std::nullopt;
    at += length;
  }
  return at;
}

}  // namespace fastserve

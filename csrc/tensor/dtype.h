// Element types of the Open Inference Protocol, with their wire names ("FP32") and sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fastserve {

enum class DType : std::uint8_t {
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes,  // variable: every element is a 4-byte little-endian length and that many bytes
};

inline constexpr int kDTypeCount = 14;

std::string_view dtype_name(DType dtype);                 // "FP32"
std::optional<DType> parse_dtype(std::string_view name);  // exact, upper case
std::size_t dtype_size(DType dtype);                      // bytes per element; 0 for kBytes

}  // namespace fastserve

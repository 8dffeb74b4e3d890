// Tensor views: names, dtype, shape and borrowed bytes. Whoever hands one out says what keeps the bytes alive.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace fastserve {

class DeviceMemory;  // memory/device_memory.h

// Row-major, contiguous, little-endian. kBytes elements are length-prefixed (see DType::kBytes).
struct TensorView {
  std::string_view name;
  DType dtype = DType::kFp32;
  Shape shape;
  std::span<const std::byte> data;
  // Where set, `data` is an address in this memory of a GPU, which the CPU must not follow; never for kBytes.
  DeviceMemory* on_device = nullptr;
};

// Walks the first `stop` elements of a serialized kBytes tensor. Returns the byte offset behind the last of them,
// or nullopt when a length prefix is cut off or points past the end of `data`.
std::optional<std::size_t> bytes_extent(std::span<const std::byte> data, std::int64_t stop);

}  // namespace fastserve

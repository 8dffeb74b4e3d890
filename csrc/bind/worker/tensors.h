// numpy arrays <-> the tensors of a worker. BYTES are object arrays of `bytes`; BF16, which numpy does not have, is float32.
// Interpreter lock held in all of these.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace fastserve::bind::worker {

// A view of `data` (BYTES, BF16: a copy) that keeps `base` alive. Raises ValueError when the bytes do not fit the shape.
pybind11::object array_of(DType dtype, const Shape& shape, std::span<std::byte> data, pybind11::handle base);

// An output, ready to be copied: its bytes are those of `array` or of `made`.
struct Output {
  std::size_t index = 0;
  DType dtype = DType::kFp32;
  Shape shape;
  pybind11::object array;
  std::vector<std::byte> made;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
};
// "" or what is wrong with it: "got dtype float64, want FP32".
std::string read_output(pybind11::handle value, DType want, Output& out);

}  // namespace fastserve::bind::worker

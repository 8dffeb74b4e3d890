// Tensors of other libraries by DLPack (the structures of its version 1 and of those before; dmlc/dlpack, dlpack.h). Interpreter lock
// held.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "tensor/tensor.h"

namespace fastserve::bind {

// A tensor as its library lent it. `strides` in elements.
struct LentTensor {
  DType dtype = DType::kFp32;
  Shape shape;
  Shape strides;
  std::byte* data = nullptr;
  bool is_contiguous = true;  // row-major, without gaps
  bool is_read_only = false;
  pybind11::object keep;  // its memory is there as long as this lives

  std::size_t bytes() const { return shape.byte_count(dtype).value_or(0); }
};

bool has_dlpack(pybind11::handle object);

// `field`: inputs["x"], for messages. INVALID_ARGUMENT: not in CPU memory, a dtype that no OIP datatype matches, more dimensions than
// kMaxRank, or the library refuses (a torch tensor that requires grad), in its words.
Result<LentTensor> borrow_dlpack(std::string_view field, pybind11::handle object);

// Row-major elements of a tensor with other strides; `to` has lent.bytes().
void copy_strided(const LentTensor& lent, std::byte* to);

}  // namespace fastserve::bind

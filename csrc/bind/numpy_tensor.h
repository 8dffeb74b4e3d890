// Arrays <-> tensors: numpy, and whatever has __dlpack__. Interpreter lock held in all of these.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string_view>
#include <vector>

#include "base/status.h"
#include "batch/request.h"
#include "tensor/signature.h"
#include "tensor/tensor.h"

namespace fastserve::bind {

using Keep = std::vector<pybind11::object>;

// Fills request.inputs from {name: array}. Row-major little-endian arrays in CPU memory are borrowed (`keep` holds them); others, and
// strings (object, S and U arrays -> BYTES), are copied once. INVALID_ARGUMENT names the input: no array (lists, scalars), a
// dtype that has no counterpart, a tensor on a device.
Status bind_inputs(PyObject* arrays, Request& request, Keep& keep);

// An array that the caller gave for an output.
struct GivenOutput {
  std::string_view name;
  pybind11::object array;
  DType dtype = DType::kFp32;
  Shape shape;
};

// From {name: array}: writable, row-major, of a dtype of its own bytes (not BYTES). Fills request.requested_outputs with the
// destinations. INVALID_ARGUMENT names the output.
Status bind_outputs(PyObject* arrays, Request& request, std::vector<GivenOutput>& given, Keep& keep);

// Before submit: whether the given arrays are what the model answers to `rows` rows, as far as its signature says.
Status check_given(const std::vector<GivenOutput>& given, const Signature& signature, std::int64_t rows);

// One tensor as an array. A view that owns a reference to the batch, writable, where the tensor is large and most of what
// the reference keeps; a copy otherwise, and of what others read too (a cached answer), BYTES (object arrays of `bytes`) and BF16
// (float32, exact: numpy has no bfloat16 of its own).
pybind11::object take_output(const Response& response, const OutputTensor& output);

// Bytes from which on a view is worth its reference, and how many times its own size a view may keep from the batch's arena.
inline constexpr std::size_t kViewBytes = 4096;
inline constexpr std::size_t kMostKeptPerViewed = 8;

// A read-only or writable array over memory that `owner` keeps.
pybind11::object view_of(DType dtype, const Shape& shape, const std::byte* data, pybind11::object owner,
                         bool writable);
// A reference to the batch as a Python object, for view_of.
pybind11::object batch_owner(Batch* batch);

// Elements of an object array of str or bytes -> wire bytes, and back.
Status append_strings(const std::string& field, const pybind11::array& array, ByteBuffer& out);
pybind11::object strings_of(const Shape& shape, std::span<const std::byte> data);

}  // namespace fastserve::bind

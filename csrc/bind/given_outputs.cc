// Arrays that the caller gave for outputs. (bind/numpy_tensor.h)
#include <string>

#include "bind/dlpack.h"
#include "bind/dtypes.h"
#include "bind/numpy_tensor.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

using Npy = py::detail::npy_api;

std::string output_field(std::string_view name) { return "outputs[\"" + std::string(name) + "\"]"; }

// What is wrong with an array as a place to write to; "" = nothing.
std::string fault_of(const py::object& array) {
  const auto* proxy = py::detail::array_proxy(array.ptr());
  if ((proxy->flags & Npy::NPY_ARRAY_WRITEABLE_) == 0) return "got a read-only array, want a writable one";
  if ((proxy->flags & Npy::NPY_ARRAY_C_CONTIGUOUS_) == 0) return "got an array that is not C-contiguous";
  if (py::detail::array_descriptor_proxy(proxy->descr)->byteorder == '>') return "got a big-endian array";
  return "";
}

Status bind_numpy(const std::string& field, GivenOutput& given, std::span<std::byte>& memory) {
  const auto* proxy = py::detail::array_proxy(given.array.ptr());
  if (const std::string fault = fault_of(given.array); !fault.empty())
    return invalid_argument(field + ": " + fault);
  const auto dtype = dtype_of(proxy->descr);
  if (!dtype || *dtype == DType::kBytes) {
    return invalid_argument(field + ".dtype: got " + py::str(py::handle(proxy->descr)).cast<std::string>() +
                            ", which cannot be written to in place");
  }
  if (static_cast<std::size_t>(proxy->nd) > kMaxRank) {
    return invalid_argument(field + ".shape: got rank " + std::to_string(proxy->nd) + ", want " +
                            std::to_string(kMaxRank) + " or fewer");
  }
  given.dtype = *dtype;
  for (int i = 0; i < proxy->nd; ++i) given.shape.push_back(proxy->dimensions[i]);
  memory = {reinterpret_cast<std::byte*>(proxy->data), given.shape.byte_count(*dtype).value_or(0)};
  return Status::ok();
}

Status bind_lent(const std::string& field, GivenOutput& given, std::span<std::byte>& memory, Keep& keep) {
  FS_ASSIGN_OR_RETURN(LentTensor lent, borrow_dlpack(field, given.array));
  if (lent.is_read_only) return invalid_argument(field + ": got a read-only tensor, want a writable one");
  if (!lent.is_contiguous) return invalid_argument(field + ": got a tensor that is not contiguous");
  given.dtype = lent.dtype;
  given.shape = lent.shape;
  memory = {lent.data, lent.bytes()};
  keep.push_back(std::move(lent.keep));
  return Status::ok();
}

Status bind_output(py::handle key, py::handle value, Request& request, std::vector<GivenOutput>& given,
                   Keep& keep) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_Check(key.ptr()) ? PyUnicode_AsUTF8AndSize(key.ptr(), &size) : nullptr;
  if (text == nullptr) {
    PyErr_Clear();
    return invalid_argument("outputs: got a key of type " + std::string(Py_TYPE(key.ptr())->tp_name) +
                            ", want the name of an output");
  }
  keep.push_back(py::reinterpret_borrow<py::object>(key));
  GivenOutput output;
  output.name = {text, static_cast<std::size_t>(size)};
  output.array = py::reinterpret_borrow<py::object>(value);
  const std::string field = output_field(output.name);
  std::span<std::byte> memory;
  if (Npy::get().PyArray_Check_(value.ptr())) {
    FS_RETURN_IF_ERROR(bind_numpy(field, output, memory));
  } else if (has_dlpack(value)) {
    FS_RETURN_IF_ERROR(bind_lent(field, output, memory, keep));
  } else {
    return invalid_argument(field + ": got " + std::string(Py_TYPE(value.ptr())->tp_name) +
                            ", want a numpy array or a tensor with __dlpack__");
  }
  request.requested_outputs.push_back({.name = output.name, .destination = memory});
  given.push_back(std::move(output));
  return Status::ok();
}

Status check_shape(const GivenOutput& given, const Shape& want, std::int64_t rows, bool batches) {
  const std::string field = output_field(given.name) + ".shape";
  if (given.shape.rank() != want.rank()) {
    return invalid_argument(field + ": got " + given.shape.str() + ", want " + want.str());
  }
  for (std::size_t i = 0; i < want.rank(); ++i) {
    const std::int64_t dim = i == 0 && batches ? rows : want[i];
    if (dim >= 0 && given.shape[i] != dim) {
      return invalid_argument(field + "[" + std::to_string(i) + "]: got " + std::to_string(given.shape[i]) +
                              ", want " + std::to_string(dim));
    }
  }
  return Status::ok();
}

}  // namespace

Status bind_outputs(PyObject* arrays, Request& request, std::vector<GivenOutput>& given, Keep& keep) {
  const py::object items = py::handle(arrays).attr("items")();
  for (const py::handle item : items) {
    const auto pair = py::reinterpret_borrow<py::tuple>(item);
    FS_RETURN_IF_ERROR(bind_output(pair[0], pair[1], request, given, keep));
  }
  return Status::ok();
}

Status check_given(const std::vector<GivenOutput>& given, const Signature& signature, std::int64_t rows) {
  for (const GivenOutput& output : given) {
    const int at = signature.output_index(output.name);
    if (at < 0) continue;  // submit says so, in its words
    const TensorSpec& spec = signature.outputs[static_cast<std::size_t>(at)];
    if (output.dtype != spec.dtype) {
      const char* want = spec.dtype == DType::kBytes ? "no array: BYTES cannot be written to in place"
                                                     : numpy_name(spec.dtype);
      return invalid_argument(output_field(output.name) + ".dtype: got " + numpy_name(output.dtype) +
                              ", want " + want);
    }
    FS_RETURN_IF_ERROR(check_shape(output, spec.shape, rows, signature.batches()));
  }
  return Status::ok();
}

}  // namespace fastserve::bind

#include "bind/numpy_tensor.h"

#include <cstring>
#include <string>

#include "batch/batch.h"
#include "bind/dlpack.h"
#include "bind/dtypes.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

using Npy = py::detail::npy_api;

std::string input_field(std::string_view name) { return "inputs[\"" + std::string(name) + "\"]"; }

std::string type_name(PyObject* object) { return Py_TYPE(object)->tp_name; }

bool is_array(PyObject* object) { return Npy::get().PyArray_Check_(object); }

bool is_borrowable(PyObject* array) {
  const auto* proxy = py::detail::array_proxy(array);
  return (proxy->flags & Npy::NPY_ARRAY_C_CONTIGUOUS_) != 0 &&
         py::detail::array_descriptor_proxy(proxy->descr)->byteorder != '>';
}

Shape shape_of(PyObject* array) {
  const auto* proxy = py::detail::array_proxy(array);
  Shape shape;
  for (int i = 0; i < proxy->nd; ++i) shape.push_back(proxy->dimensions[i]);
  return shape;
}

Status check_rank(std::string_view name, PyObject* array) {
  const int rank = py::detail::array_proxy(array)->nd;
  if (static_cast<std::size_t>(rank) <= kMaxRank) return Status::ok();
  return invalid_argument(input_field(name) + ".shape: got rank " + std::to_string(rank) + ", want " +
                          std::to_string(kMaxRank) + " or fewer");
}

Status bind_array(std::string_view name, py::object array, Request& request, Keep& keep) {
  PyObject* descr = py::detail::array_proxy(array.ptr())->descr;
  const auto dtype = dtype_of(descr);
  if (!dtype) {
    return invalid_argument(input_field(name) + ".dtype: got " + py::str(descr).cast<std::string>() +
                            ", which no OIP datatype matches");
  }
  FS_RETURN_IF_ERROR(check_rank(name, array.ptr()));
  TensorView view{name, *dtype, shape_of(array.ptr()), {}};
  if (*dtype == DType::kBytes) {
    ByteBuffer bytes;
    FS_RETURN_IF_ERROR(append_strings(input_field(name), py::reinterpret_borrow<py::array>(array), bytes));
    const std::span<std::byte> held = request.scratch.allocate(bytes.size());
    if (!bytes.empty()) std::memcpy(held.data(), bytes.data(), bytes.size());
    view.data = held;
  } else {
    if (!is_borrowable(array.ptr())) {
      const py::object native = py::reinterpret_borrow<py::object>(descr).attr("newbyteorder")("<");
      array = py::module_::import("numpy").attr("ascontiguousarray")(array, native);
      if (view.shape.empty()) view.shape = {};  // ascontiguousarray makes a scalar array one of rank 1
    }
    view.data = {reinterpret_cast<const std::byte*>(py::detail::array_proxy(array.ptr())->data),
                 view.shape.byte_count(*dtype).value_or(0)};
    keep.push_back(std::move(array));
  }
  request.inputs.push_back(view);
  return Status::ok();
}

Status bind_lent(std::string_view name, PyObject* value, Request& request, Keep& keep) {
  FS_ASSIGN_OR_RETURN(LentTensor lent, borrow_dlpack(input_field(name), value));
  TensorView view{name, lent.dtype, lent.shape, {lent.data, lent.bytes()}};
  if (lent.is_contiguous) {
    keep.push_back(std::move(lent.keep));
  } else {
    const std::span<std::byte> copy = request.scratch.allocate(lent.bytes());
    copy_strided(lent, copy.data());
    view.data = copy;
  }
  request.inputs.push_back(view);
  return Status::ok();
}

// What has none of the two protocols but calls itself an array (__array__, __array_interface__, the buffer protocol). Not
// scalars, lists and texts: what they would become is a guess.
Status bind_other(std::string_view name, PyObject* value, Request& request, Keep& keep) {
  const py::handle object(value);
  const bool text = PyBytes_Check(value) || PyByteArray_Check(value) || PyUnicode_Check(value);
  const bool scalar = py::isinstance(object, py::module_::import("numpy").attr("generic"));
  const bool arrayish = py::hasattr(object, "__array__") || py::hasattr(object, "__array_interface__") ||
                        PyObject_CheckBuffer(value) != 0;
  py::object array;
  if (!text && !scalar && arrayish) array = py::array::ensure(object);
  if (!array) {
    PyErr_Clear();
    return invalid_argument(input_field(name) + ": got " + type_name(value) +
                            ", want a numpy array or a tensor with __dlpack__");
  }
  return bind_array(name, std::move(array), request, keep);
}

Status bind_input(PyObject* key, PyObject* value, Request& request, Keep& keep) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_Check(key) ? PyUnicode_AsUTF8AndSize(key, &size) : nullptr;
  if (text == nullptr) {
    PyErr_Clear();
    return invalid_argument("inputs: got a key of type " + type_name(key) + ", want the name of an input");
  }
  keep.push_back(py::reinterpret_borrow<py::object>(key));
  const std::string_view name(text, static_cast<std::size_t>(size));
  if (is_array(value)) return bind_array(name, py::reinterpret_borrow<py::object>(value), request, keep);
  if (has_dlpack(value)) return bind_lent(name, value, request, keep);
  return bind_other(name, value, request, keep);
}

Status append_element(const std::string& field, PyObject* element, ByteBuffer& out) {
  const auto put = [&out](const char* bytes, std::size_t size) {
    const auto length = static_cast<std::uint32_t>(size);
    out.append(&length, sizeof(length));
    out.append(bytes, size);
  };
  if (PyBytes_Check(element)) {
    put(PyBytes_AS_STRING(element), static_cast<std::size_t>(PyBytes_GET_SIZE(element)));
    return Status::ok();
  }
  if (PyUnicode_Check(element)) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(element, &size);
    if (text == nullptr) {  // a lone surrogate
      PyErr_Clear();
      return invalid_argument(field + ": got a str that UTF-8 cannot express");
    }
    put(text, static_cast<std::size_t>(size));
    return Status::ok();
  }
  return invalid_argument(field + ": got an element of type " + type_name(element) + ", want str or bytes");
}

void widen_bf16(std::span<const std::byte> from, float* to) {
  for (std::size_t i = 0; i * 2 < from.size(); ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, from.data() + i * 2, sizeof(half));
    const std::uint32_t bits = std::uint32_t{half} << 16;
    std::memcpy(to + i, &bits, sizeof(bits));
  }
}

py::object empty_array(DType dtype, const Shape& shape) {
  PyObject* array = Npy::get().PyArray_NewFromDescr_(
      Npy::get().PyArray_Type_, new_numpy_dtype(dtype), static_cast<int>(shape.rank()),
      reinterpret_cast<const Py_intptr_t*>(shape.dims().data()), nullptr, nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

// The batch's own memory, where this response's rows are nobody else's; and not much more than they are.
bool is_worth_a_view(const Response& response, const OutputTensor& output) {
  Batch* batch = response.batch.get();
  if (output.data.size() < kViewBytes || batch == nullptr || batch->arena == nullptr) return false;
  const auto at = static_cast<std::size_t>(output.index);
  if (at >= batch->outputs().size()) return false;
  const BatchTensor& whole = batch->outputs()[at];
  if (whole.own == nullptr || output.data.data() < whole.own ||
      output.data.data() + output.data.size() > whole.own + whole.capacity) {
    return false;
  }
  std::size_t kept = 0;
  for (const BatchTensor& tensor : batch->inputs()) kept += tensor.capacity;
  for (const BatchTensor& tensor : batch->outputs()) kept += tensor.capacity;
  return kept / kMostKeptPerViewed <= output.data.size();
}

}  // namespace

Status append_strings(const std::string& field, const py::array& array, ByteBuffer& out) {
  const py::object flat = array.attr("ravel")().attr("tolist")();
  for (const py::handle element : flat) FS_RETURN_IF_ERROR(append_element(field, element.ptr(), out));
  return Status::ok();
}

py::object strings_of(const Shape& shape, std::span<const std::byte> data) {
  py::object out = empty_array(DType::kBytes, shape);
  auto** cells = reinterpret_cast<PyObject**>(py::detail::array_proxy(out.ptr())->data);
  std::size_t at = 0;
  for (std::int64_t i = 0; i < shape.elements().value_or(0); ++i) {
    std::uint32_t length = 0;
    std::memcpy(&length, data.data() + at, sizeof(length));
    at += sizeof(length);
    PyObject* element = PyBytes_FromStringAndSize(reinterpret_cast<const char*>(data.data() + at), length);
    if (element == nullptr) throw py::error_already_set();
    Py_XDECREF(std::exchange(cells[i], element));
    at += length;
  }
  return out;
}

Status bind_inputs(PyObject* arrays, Request& request, Keep& keep) {
  if (PyDict_CheckExact(arrays)) {
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    Py_ssize_t at = 0;
    while (PyDict_Next(arrays, &at, &key, &value) != 0)
      FS_RETURN_IF_ERROR(bind_input(key, value, request, keep));
    return Status::ok();
  }
  if (!py::hasattr(arrays, "items")) {
    return invalid_argument("inputs: got " + type_name(arrays) + ", want a mapping from names to arrays");
  }
  const py::object items = py::handle(arrays).attr("items")();
  for (const py::handle item : items) {
    const auto pair = py::reinterpret_borrow<py::tuple>(item);
    FS_RETURN_IF_ERROR(bind_input(pair[0].ptr(), pair[1].ptr(), request, keep));
  }
  return Status::ok();
}

py::object batch_owner(Batch* batch) {
  auto held = std::make_unique<BatchRef>(batch);
  PyObject* capsule = PyCapsule_New(held.get(), nullptr, [](PyObject* self) {
    delete static_cast<BatchRef*>(PyCapsule_GetPointer(self, nullptr));
  });
  if (capsule == nullptr) throw py::error_already_set();
  static_cast<void>(held.release());
  return py::reinterpret_steal<py::object>(capsule);
}

py::object view_of(DType dtype, const Shape& shape, const std::byte* data, py::object owner, bool writable) {
  const auto& api = Npy::get();
  PyObject* array = api.PyArray_NewFromDescr_(
      api.PyArray_Type_, new_numpy_dtype(dtype), static_cast<int>(shape.rank()),
      reinterpret_cast<const Py_intptr_t*>(shape.dims().data()), nullptr, const_cast<std::byte*>(data),
      writable ? Npy::NPY_ARRAY_WRITEABLE_ : 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  auto result = py::reinterpret_steal<py::object>(array);
  if (api.PyArray_SetBaseObject_(array, owner.release().ptr()) != 0) throw py::error_already_set();
  return result;
}

py::object take_output(const Response& response, const OutputTensor& output) {
  if (output.dtype == DType::kBytes) return strings_of(output.shape, output.data);
  if (output.dtype != DType::kBf16 && is_worth_a_view(response, output)) {
    return view_of(output.dtype, output.shape, output.data.data(), batch_owner(response.batch.get()), true);
  }
  py::object out = empty_array(output.dtype, output.shape);
  char* to = py::detail::array_proxy(out.ptr())->data;
  if (output.dtype == DType::kBf16) {
    widen_bf16(output.data, reinterpret_cast<float*>(to));
  } else if (!output.data.empty()) {
    std::memcpy(to, output.data.data(), output.data.size());
  }
  return out;
}

}  // namespace fastserve::bind

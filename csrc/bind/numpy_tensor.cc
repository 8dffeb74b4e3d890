#include "bind/numpy_tensor.h"

#include <cstring>

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// numpy's type numbers (numpy/ndarraytypes.h), so that the common case compares one int.
enum NumpyType { kNpyObject = 17, kNpyString = 18, kNpyUnicode = 19, kNpyHalf = 23 };

std::optional<DType> signed_of(std::size_t size) {
  switch (size) {
    case 1:
      return DType::kInt8;
    case 2:
      return DType::kInt16;
    case 4:
      return DType::kInt32;
    case 8:
      return DType::kInt64;
    default:
      return std::nullopt;
  }
}

std::optional<DType> unsigned_of(std::size_t size) {
  switch (size) {
    case 1:
      return DType::kUint8;
    case 2:
      return DType::kUint16;
    case 4:
      return DType::kUint32;
    case 8:
      return DType::kUint64;
    default:
      return std::nullopt;
  }
}

std::optional<DType> dtype_of(const py::dtype& type) {
  const auto size = static_cast<std::size_t>(type.itemsize());
  switch (type.kind()) {
    case 'b':
      return DType::kBool;
    case 'i':
      return signed_of(size);
    case 'u':
      return unsigned_of(size);
    case 'f':
      if (size == 2) return DType::kFp16;
      if (size == 4) return DType::kFp32;
      return size == 8 ? std::optional(DType::kFp64) : std::nullopt;
    case 'O':
    case 'S':
    case 'U':
      return DType::kBytes;
    default:
      if (size == 2 && py::str(type.attr("name")).cast<std::string>() == "bfloat16") return DType::kBf16;
      return std::nullopt;
  }
}

py::dtype numpy_dtype(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return py::dtype("?");
    case DType::kUint8:
      return py::dtype("u1");
    case DType::kUint16:
      return py::dtype("u2");
    case DType::kUint32:
      return py::dtype("u4");
    case DType::kUint64:
      return py::dtype("u8");
    case DType::kInt8:
      return py::dtype("i1");
    case DType::kInt16:
      return py::dtype("i2");
    case DType::kInt32:
      return py::dtype("i4");
    case DType::kInt64:
      return py::dtype("i8");
    case DType::kFp16:
      return py::dtype("f2");
    case DType::kBf16:
    case DType::kFp32:
      return py::dtype("f4");
    case DType::kFp64:
      return py::dtype("f8");
    case DType::kBytes:
      return py::dtype("O");
  }
  return py::dtype("u1");
}

Status append_element(std::string_view input, const py::handle& element, ByteBuffer& out) {
  const auto put = [&out](const char* bytes, std::size_t size) {
    const auto length = static_cast<std::uint32_t>(size);
    out.append(&length, sizeof(length));
    out.append(bytes, size);
  };
  if (PyBytes_Check(element.ptr())) {
    put(PyBytes_AS_STRING(element.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(element.ptr())));
    return Status::ok();
  }
  if (PyUnicode_Check(element.ptr())) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(element.ptr(), &size);
    if (text == nullptr) throw py::error_already_set();
    put(text, static_cast<std::size_t>(size));
    return Status::ok();
  }
  return invalid_argument("inputs[\"" + std::string(input) + "\"]: got an element of type " +
                          std::string(Py_TYPE(element.ptr())->tp_name) + ", want str or bytes");
}

Status serialize_strings(std::string_view name, const py::array& array, Request& request, TensorView& view) {
  ByteBuffer bytes;
  const py::object flat = array.attr("ravel")();
  for (const py::handle element : flat.attr("tolist")())
    FS_RETURN_IF_ERROR(append_element(name, element, bytes));
  const std::span<std::byte> held = request.scratch.allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(held.data(), bytes.data(), bytes.size());
  view.data = held;
  return Status::ok();
}

bool borrowable(const py::array& array) {
  return (array.flags() & py::array::c_style) != 0 && array.dtype().byteorder() != '>';
}

Status bind_input(std::string_view name, const py::handle& value, Request& request,
                  std::vector<py::object>& keep) {
  py::array array = py::array::ensure(value);
  if (!array) {
    PyErr_Clear();
    return invalid_argument("inputs[\"" + std::string(name) + "\"]: got " +
                            std::string(Py_TYPE(value.ptr())->tp_name) +
                            ", want something numpy makes an array of");
  }
  const auto dtype = dtype_of(array.dtype());
  if (!dtype) {
    return invalid_argument("inputs[\"" + std::string(name) + "\"].dtype: got " +
                            py::str(array.dtype()).cast<std::string>() + ", which no OIP datatype matches");
  }
  if (static_cast<std::size_t>(array.ndim()) > kMaxRank) {
    return invalid_argument("inputs[\"" + std::string(name) + "\"].shape: got rank " +
                            std::to_string(array.ndim()) + ", want " + std::to_string(kMaxRank) +
                            " or fewer");
  }
  TensorView view{name, *dtype, {}, {}};
  for (py::ssize_t i = 0; i < array.ndim(); ++i) view.shape.push_back(array.shape(i));
  if (*dtype == DType::kBytes) {
    FS_RETURN_IF_ERROR(serialize_strings(name, array, request, view));
  } else {
    if (!borrowable(array)) {
      const py::object native = array.dtype().attr("newbyteorder")("<");
      array = py::module_::import("numpy").attr("ascontiguousarray")(array, native);
    }
    view.data = {static_cast<const std::byte*>(array.data()), static_cast<std::size_t>(array.nbytes())};
  }
  keep.push_back(std::move(array));
  request.inputs.push_back(view);
  return Status::ok();
}

py::object copy_strings(const OutputTensor& output, const std::vector<py::ssize_t>& shape) {
  py::array out(py::dtype("O"), shape);
  auto** cells = static_cast<PyObject**>(out.mutable_data());
  std::size_t at = 0;
  for (py::ssize_t i = 0; i < out.size(); ++i) {
    std::uint32_t length = 0;
    std::memcpy(&length, output.data.data() + at, sizeof(length));
    at += sizeof(length);
    PyObject* element =
        PyBytes_FromStringAndSize(reinterpret_cast<const char*>(output.data.data() + at), length);
    if (element == nullptr) throw py::error_already_set();
    Py_XDECREF(std::exchange(cells[i], element));
    at += length;
  }
  return out;
}

void widen_bf16(std::span<const std::byte> from, float* to) {
  for (std::size_t i = 0; i * 2 < from.size(); ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, from.data() + i * 2, sizeof(half));
    const std::uint32_t bits = std::uint32_t{half} << 16;
    std::memcpy(to + i, &bits, sizeof(bits));
  }
}

py::object copy_output(const OutputTensor& output) {
  const auto dims = output.shape.dims();
  const std::vector<py::ssize_t> shape(dims.begin(), dims.end());
  if (output.dtype == DType::kBytes) return copy_strings(output, shape);
  py::array out(numpy_dtype(output.dtype), shape);
  if (output.dtype == DType::kBf16) {
    widen_bf16(output.data, static_cast<float*>(out.mutable_data()));
  } else if (!output.data.empty()) {
    std::memcpy(out.mutable_data(), output.data.data(), output.data.size());
  }
  return out;
}

}  // namespace

Status bind_inputs(const py::dict& arrays, Request& request, std::vector<py::object>& keep) {
  for (const auto& [key, value] : arrays) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_Check(key.ptr()) ? PyUnicode_AsUTF8AndSize(key.ptr(), &size) : nullptr;
    if (text == nullptr) {
      PyErr_Clear();
      return invalid_argument("inputs: got a key of type " + std::string(Py_TYPE(key.ptr())->tp_name) +
                              ", want the name of an input");
    }
    keep.push_back(py::reinterpret_borrow<py::object>(key));
    FS_RETURN_IF_ERROR(bind_input({text, static_cast<std::size_t>(size)}, value, request, keep));
  }
  return Status::ok();
}

py::dict copy_outputs(const Response& response, const Signature& signature) {
  py::dict out;
  for (const OutputTensor& output : response.outputs) {
    out[py::str(signature.outputs[static_cast<std::size_t>(output.index)].name)] = copy_output(output);
  }
  return out;
}

}  // namespace fastserve::bind

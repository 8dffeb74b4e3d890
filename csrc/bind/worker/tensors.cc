#include "bind/worker/tensors.h"

#include <cstring>
#include <string_view>

#include "tensor/tensor.h"

namespace py = pybind11;

namespace fastserve::bind::worker {
namespace {

// One for each DType; made once, never destroyed. BF16 is widened, BYTES are objects.
const py::dtype& numpy_dtype(DType dtype) {
  static const auto* const held = [] {
    auto* made = new std::vector<py::dtype>;
    for (const char* code :
         {"?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f4", "f8", "O"})
      made->emplace_back(py::dtype(code));
    return made;
  }();
  return (*held)[static_cast<std::size_t>(dtype)];
}

py::object strings_of(const Shape& shape, std::span<const std::byte> data) {
  const auto dims = shape.dims();
  py::array out(numpy_dtype(DType::kBytes), std::vector<py::ssize_t>(dims.begin(), dims.end()));
  const auto extent = bytes_extent(data, out.size());
  if (!extent || *extent != data.size())
    throw py::value_error("a BYTES tensor whose lengths do not fit its shape");
  auto** cells = static_cast<PyObject**>(out.mutable_data());
  std::size_t at = 0;
  for (py::ssize_t i = 0; i < out.size(); ++i) {
    std::uint32_t length = 0;
    std::memcpy(&length, data.data() + at, sizeof length);
    at += sizeof length;
    PyObject* element = PyBytes_FromStringAndSize(reinterpret_cast<const char*>(data.data() + at), length);
    if (element == nullptr) throw py::error_already_set();
    Py_XDECREF(std::exchange(cells[i], element));
    at += length;
  }
  return out;
}

py::object widened(const Shape& shape, std::span<const std::byte> data) {
  const auto dims = shape.dims();
  py::array_t<float> out(std::vector<py::ssize_t>(dims.begin(), dims.end()));
  float* to = out.mutable_data();
  for (std::size_t i = 0; i < static_cast<std::size_t>(out.size()); ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, data.data() + i * sizeof half, sizeof half);
    const std::uint32_t bits = std::uint32_t{half} << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
  return out;
}

// Rounded to the nearest, ties to even; NaN stays one.
void narrow(const float* from, std::size_t count, std::vector<std::byte>& out) {
  out.resize(count * sizeof(std::uint16_t));
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, from + i, sizeof bits);
    const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
    const std::uint32_t rounded = nan ? bits | 0x00400000U : bits + 0x7fffU + ((bits >> 16) & 1U);
    const auto half = static_cast<std::uint16_t>(rounded >> 16);
    std::memcpy(out.data() + i * sizeof half, &half, sizeof half);
  }
}

bool put_string(py::handle element, std::vector<std::byte>& out) {
  const char* text = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_Check(element.ptr())) {
    text = PyBytes_AS_STRING(element.ptr());
    size = PyBytes_GET_SIZE(element.ptr());
  } else if (PyUnicode_Check(element.ptr())) {
    text = PyUnicode_AsUTF8AndSize(element.ptr(), &size);
    if (text == nullptr) throw py::error_already_set();
  } else {
    return false;
  }
  const auto length = static_cast<std::uint32_t>(size);
  const auto* prefix = reinterpret_cast<const std::byte*>(&length);
  out.insert(out.end(), prefix, prefix + sizeof length);
  out.insert(out.end(), reinterpret_cast<const std::byte*>(text),
             reinterpret_cast<const std::byte*>(text) + size);
  return true;
}

std::string read_strings(const py::array& array, Output& out) {
  for (const py::handle element : array.attr("ravel")().attr("tolist")()) {
    if (!put_string(element, out.made))
      return std::string("got an element of type ") + Py_TYPE(element.ptr())->tp_name + ", want bytes or str";
  }
  out.data = out.made.data();
  out.bytes = out.made.size();
  return {};
}

bool is_strings(const py::array& array) {
  const char kind = array.dtype().kind();
  return kind == 'O' || kind == 'S' || kind == 'U';
}

// Contiguous and of the machine's order.
py::array settled(const py::array& array) {
  if ((array.flags() & py::array::c_style) != 0 && array.dtype().byteorder() != '>') return array;
  return py::module_::import("numpy").attr("ascontiguousarray")(array,
                                                                array.dtype().attr("newbyteorder")("<"));
}

}  // namespace

py::object array_of(DType dtype, const Shape& shape, std::span<std::byte> data, py::handle base) {
  if (dtype == DType::kBytes) return strings_of(shape, data);
  if (shape.byte_count(dtype) != data.size())
    throw py::value_error("a tensor whose bytes do not fit its shape");
  if (dtype == DType::kBf16) return widened(shape, data);
  const auto dims = shape.dims();
  return py::array(numpy_dtype(dtype), std::vector<py::ssize_t>(dims.begin(), dims.end()), data.data(), base);
}

std::string read_output(py::handle value, DType want, Output& out) {
  py::array array = py::array::ensure(value);
  if (!array) {
    PyErr_Clear();
    return std::string("got ") + Py_TYPE(value.ptr())->tp_name + ", want an array";
  }
  if (static_cast<std::size_t>(array.ndim()) > kMaxRank) {
    return "got rank " + std::to_string(array.ndim()) + ", want " + std::to_string(kMaxRank) + " or fewer";
  }
  out.dtype = want;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) out.shape.push_back(array.shape(i));
  const auto wrong = [&] {
    return "got dtype " + py::str(array.dtype()).cast<std::string>() + ", want " +
           std::string(dtype_name(want));
  };
  if (want == DType::kBytes) return is_strings(array) ? read_strings(array, out) : wrong();
  const py::dtype& target = numpy_dtype(want);
  const bool is_bf16 = want == DType::kBf16 && array.itemsize() == 2 && array.dtype().kind() == 'V';
  if (!is_bf16 && (array.dtype().kind() != target.kind() || array.itemsize() != target.itemsize()))
    return wrong();
  array = settled(array);
  out.data = static_cast<const std::byte*>(array.data());
  out.bytes = static_cast<std::size_t>(array.nbytes());
  if (want == DType::kBf16 && !is_bf16) {
    narrow(static_cast<const float*>(array.data()), static_cast<std::size_t>(array.size()), out.made);
    out.data = out.made.data();
    out.bytes = out.made.size();
  }
  out.array = std::move(array);
  return {};
}

}  // namespace fastserve::bind::worker

#include "bind/dtypes.h"

#include <string>

namespace py = pybind11;

namespace fastserve::bind {
namespace {

using Npy = py::detail::npy_api;

// numpy's type numbers that pybind11 does not name (numpy/ndarraytypes.h).
constexpr int kNpyHalf = 23;
constexpr int kNpyFirstUser = 256;

std::optional<DType> integer(bool is_signed, std::size_t bytes) {
  switch (bytes) {
    case 1:
      return is_signed ? DType::kInt8 : DType::kUint8;
    case 2:
      return is_signed ? DType::kInt16 : DType::kUint16;
    case 4:
      return is_signed ? DType::kInt32 : DType::kUint32;
    case 8:
      return is_signed ? DType::kInt64 : DType::kUint64;
    default:
      return std::nullopt;
  }
}

std::optional<DType> user_dtype(PyObject* descr) {
  const auto type = py::reinterpret_borrow<py::dtype>(descr);
  if (type.itemsize() == 2 && py::str(type.attr("name")).cast<std::string>() == "bfloat16")
    return DType::kBf16;
  return std::nullopt;
}

int type_number(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return Npy::NPY_BOOL_;
    case DType::kUint8:
      return Npy::NPY_UINT8_;
    case DType::kUint16:
      return Npy::NPY_UINT16_;
    case DType::kUint32:
      return Npy::NPY_UINT32_;
    case DType::kUint64:
      return Npy::NPY_UINT64_;
    case DType::kInt8:
      return Npy::NPY_INT8_;
    case DType::kInt16:
      return Npy::NPY_INT16_;
    case DType::kInt32:
      return Npy::NPY_INT32_;
    case DType::kInt64:
      return Npy::NPY_INT64_;
    case DType::kFp16:
      return kNpyHalf;
    case DType::kBf16:
    case DType::kFp32:
      return Npy::NPY_FLOAT32_;
    case DType::kFp64:
      return Npy::NPY_FLOAT64_;
    case DType::kBytes:
      return Npy::NPY_OBJECT_;
  }
  return Npy::NPY_UINT8_;
}

}  // namespace

std::optional<DType> dtype_of(PyObject* descr) {
  const int number = py::detail::array_descriptor_proxy(descr)->type_num;
  if (number == Npy::NPY_FLOAT_) return DType::kFp32;
  switch (py::detail::array_descriptor_proxy(descr)->kind) {
    case 'b':
      return DType::kBool;
    case 'i':
    case 'u':
      return integer(py::detail::array_descriptor_proxy(descr)->kind == 'i',
                     static_cast<std::size_t>(py::reinterpret_borrow<py::dtype>(descr).itemsize()));
    case 'f':
      if (number == kNpyHalf) return DType::kFp16;
      return number == Npy::NPY_DOUBLE_ ? std::optional(DType::kFp64) : std::nullopt;
    case 'O':
    case 'S':
    case 'U':
      return DType::kBytes;
    default:
      return number >= kNpyFirstUser ? user_dtype(descr) : std::nullopt;
  }
}

PyObject* new_numpy_dtype(DType dtype) { return Npy::get().PyArray_DescrFromType_(type_number(dtype)); }

const char* numpy_name(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return "bool";
    case DType::kUint8:
      return "uint8";
    case DType::kUint16:
      return "uint16";
    case DType::kUint32:
      return "uint32";
    case DType::kUint64:
      return "uint64";
    case DType::kInt8:
      return "int8";
    case DType::kInt16:
      return "int16";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kFp16:
      return "float16";
    case DType::kBf16:
      return "bfloat16";
    case DType::kFp32:
      return "float32";
    case DType::kFp64:
      return "float64";
    case DType::kBytes:
      return "object";
  }
  return "";
}

}  // namespace fastserve::bind

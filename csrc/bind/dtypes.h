// OIP datatypes as numpy and DLPack have them. Interpreter lock held in all of these.
#pragma once

#include <pybind11/numpy.h>

#include <optional>

#include "tensor/dtype.h"

namespace fastserve::bind {

// nullopt: no OIP datatype matches (complex, structured, float128). Object, S and U arrays are BYTES; ml_dtypes' bfloat16
// is BF16. Byte order is not looked at.
std::optional<DType> dtype_of(PyObject* descr);

// A new reference to numpy's dtype for the results of one: BF16 gives float32, BYTES object.
PyObject* new_numpy_dtype(DType dtype);

// What arrays of a dtype are called: "float32", "bfloat16".
const char* numpy_name(DType dtype);

}  // namespace fastserve::bind

// The body of a METH_FASTCALL method: checks the number of arguments, and turns C++ exceptions into Python's.
#pragma once

#include <pybind11/pybind11.h>

#include <new>

namespace fastserve::bind {

// `body` returns a new reference.
template <class Body>
PyObject* fast_call(Py_ssize_t want, Py_ssize_t got, Body&& body) noexcept {
  if (want != got) return PyErr_Format(PyExc_TypeError, "got %zd arguments, want %zd", got, want);
  try {
    return body();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

}  // namespace fastserve::bind

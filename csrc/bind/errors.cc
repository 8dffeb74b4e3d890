#include "bind/errors.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// Never destroyed: the interpreter may be gone when static destructors run.
py::object& factory() {
  static auto* held = new py::object(py::none());
  return *held;
}

}  // namespace

py::object make_exception(const Status& status) {
  if (!factory().is_none()) return factory()(static_cast<int>(status.code()), status.message());
  return py::reinterpret_borrow<py::object>(PyExc_RuntimeError)(std::string(code_name(status.code())) + ": " +
                                                                status.message());
}

void raise(const Status& status) {
  const py::object error = make_exception(status);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

void register_errors(py::module_& module) {
  module.def(
      "set_error_factory", [](py::object made_by) { factory() = std::move(made_by); }, py::arg("factory"));
}

}  // namespace fastserve::bind

// fastserve._core: registration only; one bound family per file.
#include <pybind11/pybind11.h>

#include <atomic>

#include "base/log.h"
#include "bind/engine.h"
#include "bind/errors.h"

#ifndef FASTSERVE_VERSION
#define FASTSERVE_VERSION "0"
#endif

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// Never destroyed, see errors.cc.
py::object& python_sink() {
  static auto* held = new py::object(py::none());
  return *held;
}

void log_to_python(LogLevel level, std::string_view message) {
  if (Py_IsInitialized() == 0) return;
  const py::gil_scoped_acquire lock;
  if (python_sink().is_none()) return;
  try {
    python_sink()(static_cast<int>(level), py::str(message.data(), message.size()));
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("fastserve log sink");
  }
}

void use_sink(py::object sink) {
  set_log_sink(sink.is_none() ? nullptr : &log_to_python);
  python_sink() = std::move(sink);
}

}  // namespace
}  // namespace fastserve::bind

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ engine of fastserve. Internal: programs use fastserve.Engine.";
  module.attr("version") = FASTSERVE_VERSION;
  fastserve::bind::register_errors(module);
  module.def("set_log_sink", &fastserve::bind::use_sink, py::arg("sink"));
  fastserve::bind::register_status(module);
  fastserve::bind::register_engine(module);
  fastserve::bind::register_async_port(module);
}

// Traces of requests: _core.Engine.set_trace, clear_trace, take_traces.
#include "engine/trace.h"

#include <pybind11/stl.h>

#include "bind/engine.h"
#include "bind/errors.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

py::dict as_dict(const Trace& trace) {
  py::list timestamps;
  for (const auto& [name, moment] : trace.timestamps) {
    timestamps.append(py::make_tuple(py::str(name.data(), name.size()), moment));
  }
  py::dict out;
  out["id"] = trace.id;
  out["request_id"] = trace.request_id;
  out["model_name"] = trace.model;
  out["model_version"] = trace.version;
  out["timestamps"] = std::move(timestamps);
  return out;
}

py::list take_traces(PyEngine& self) {
  py::list out;
  for (const Trace& trace : self.engine().tracer().take()) out.append(as_dict(trace));
  return out;
}

}  // namespace

void register_trace(py::class_<PyEngine>& engine) {
  engine
      .def(
          "set_trace",
          [](PyEngine& self, const std::optional<std::string>& model, std::int64_t rate, std::int64_t count,
             bool level) {
            raise_if_error(self.engine().tracer().set(model.value_or(""), {level, rate, count}));
          },
          py::arg("model"), py::arg("rate"), py::arg("count"), py::arg("level"))
      .def(
          "clear_trace",
          [](PyEngine& self, const std::string& model) { self.engine().tracer().clear(model); },
          py::arg("model"))
      .def("take_traces", &take_traces)
      .def_property_readonly("traces_dropped",
                             [](PyEngine& self) { return self.engine().tracer().dropped(); });
}

}  // namespace fastserve::bind

// _core.Engine.set_labels and labels(): names for versions.
#include <pybind11/stl.h>

#include "bind/engine.h"
#include "bind/errors.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

// Label -> version -> weight.
using Labels = std::map<std::string, std::map<std::int64_t, std::int64_t>>;

void set_labels(PyEngine& self, const std::string& model, const Labels& labels) {
  std::vector<LabelSpec> specs;
  for (const auto& [name, versions] : labels) {
    LabelSpec& spec = specs.emplace_back(LabelSpec{name, {}});
    for (const auto& [version, weight] : versions) spec.targets.push_back({version, weight});
  }
  raise_if_error(self.engine().set_labels(model, std::move(specs)));
}

}  // namespace

void register_labels(py::module_& module, py::class_<PyEngine>& engine) {
  py::class_<LabelStatus>(module, "LabelStatus")
      .def_readonly("model", &LabelStatus::model)
      .def_readonly("label", &LabelStatus::label)
      .def_readonly("version", &LabelStatus::version)
      .def_readonly("weight", &LabelStatus::weight)
      .def_readonly("ready", &LabelStatus::ready)
      .def_readonly("requests", &LabelStatus::requests);
  engine.def("set_labels", &set_labels, py::arg("model"), py::arg("labels"))
      .def("labels", [](PyEngine& self) { return self.engine().labels(); });
}

}  // namespace fastserve::bind

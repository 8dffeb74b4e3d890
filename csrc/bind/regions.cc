// _core.Engine: named shared memory of clients (memory/region_table.h). Short calls, which keep the interpreter lock.
#include <pybind11/stl.h>

#include "bind/engine.h"
#include "bind/errors.h"
#include "memory/region_table.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

void allow(PyEngine& self, std::size_t regions, std::uint64_t bytes, std::uint64_t copied_bytes) {
  self.engine().regions().allow({regions, bytes, copied_bytes});
}

void add(PyEngine& self, std::string name, std::string key, std::uint64_t offset, std::uint64_t bytes) {
  raise_if_error(self.engine().regions().add({std::move(name), std::move(key), offset, bytes}));
}

py::dict totals(PyEngine& self) {
  const RegionTotals totals = self.engine().regions().totals();
  py::dict out;
  out["allowed"] = totals.allowed;
  out["registered"] = totals.registered;
  out["broken"] = totals.broken;
  out["regions"] = totals.regions;
  out["bytes"] = totals.bytes;
  out["refused"] = totals.refused;
  return out;
}

py::list list(PyEngine& self) {
  py::list out;
  for (const RegionSpec& region : self.engine().regions().list()) {
    out.append(py::make_tuple(region.name, region.key, region.offset, region.bytes));
  }
  return out;
}

}  // namespace

void register_regions(py::module_& module, py::class_<PyEngine>& engine) {
  module.def("install_sigbus_guard", [] { raise_if_error(install_sigbus_guard()); });
  const RegionLimits standard;
  engine
      .def("allow_client_shared_memory", &allow, py::kw_only(), py::arg("regions") = standard.most_regions,
           py::arg("bytes") = standard.most_bytes, py::arg("copied_bytes") = standard.most_copied_bytes)
      .def("register_region", &add, py::arg("name"), py::arg("key"), py::arg("offset"), py::arg("byte_size"))
      .def(
          "unregister_region",
          [](PyEngine& self, const std::string& name) { self.engine().regions().remove(name); },
          py::arg("name"))
      .def("unregister_regions", [](PyEngine& self) { self.engine().regions().remove_all(); })
      .def("shared_memory_regions", &list)
      .def("shared_memory", &totals);
}

}  // namespace fastserve::bind

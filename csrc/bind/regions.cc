// _core.Engine: named shared memory of clients (memory/region_table.h). Short calls, which keep the interpreter lock; but those that
// may ask the CUDA driver.
#include <pybind11/stl.h>

#include <limits>

#ifdef FASTSERVE_CUDA_LANE
#include "backend/cuda_ipc.h"
#endif
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
  const std::shared_ptr<Engine> engine = self.shared();
  RegionSpec spec{std::move(name), std::move(key), offset, bytes};
  Status status;
  {
    const py::gil_scoped_release unlocked;  // while a GPU is in use the region is page-locked
    status = engine->regions().add(std::move(spec));
  }
  raise_if_error(status);
}

Result<DeviceMemoryOpener*> opener() {
#ifdef FASTSERVE_CUDA_LANE
  return cuda_ipc_opener();
#else
  return Status(Code::kFailedPrecondition, "this build has no GPU lane");
#endif
}

// `device`: 64 bits, as the wire has it.
Status add_on_device(RegionTable& table, std::string name, std::string_view handle, std::int64_t device,
                     std::uint64_t bytes) {
  const Result<DeviceMemoryOpener*> with = opener();
  if (!with.is_ok()) {
    table.count_refusal();
    return unimplemented("failed to register CUDA shared memory region: '" + shown(name) +
                         "': GPUs are not supported: " + with.status().message());
  }
  if (device < 0 || device > std::numeric_limits<int>::max()) {
    table.count_refusal();
    return invalid_argument("device_id: got " + std::to_string(device) + ", want the number of a GPU");
  }
  RegionSpec spec{std::move(name), "", 0, bytes, static_cast<int>(device)};
  return table.add_on_device(std::move(spec), std::as_bytes(std::span(handle)), *with.value());
}

void add_cuda(PyEngine& self, std::string name, const py::bytes& handle, std::int64_t device,
              std::uint64_t bytes) {
  const std::shared_ptr<Engine> engine = self.shared();
  const std::string own = handle;
  Status status;
  {
    const py::gil_scoped_release unlocked;  // the first call starts the driver, which may take a second
    status = add_on_device(engine->regions(), std::move(name), own, device, bytes);
  }
  raise_if_error(status);
}

// Closing a handle asks the driver as well.
void remove(PyEngine& self, const std::string& name) {
  const std::shared_ptr<Engine> engine = self.shared();
  const py::gil_scoped_release unlocked;
  engine->regions().remove(name);
}

void remove_all(PyEngine& self, bool on_device) {
  const std::shared_ptr<Engine> engine = self.shared();
  const py::gil_scoped_release unlocked;
  engine->regions().remove_all(on_device);
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
  out["on_device"] = totals.on_device;
  return out;
}

py::list list(PyEngine& self) {
  py::list out;
  for (const RegionSpec& region : self.engine().regions().list()) {
    if (region.on_device()) continue;
    out.append(py::make_tuple(region.name, region.key, region.offset, region.bytes));
  }
  return out;
}

py::list list_cuda(PyEngine& self) {
  py::list out;
  for (const RegionSpec& region : self.engine().regions().list()) {
    if (region.on_device()) out.append(py::make_tuple(region.name, region.device, region.bytes));
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
      .def("register_cuda_region", &add_cuda, py::arg("name"), py::arg("raw_handle"), py::arg("device_id"),
           py::arg("byte_size"))
      .def("unregister_region", &remove, py::arg("name"))
      .def("unregister_regions", &remove_all, py::arg("on_device") = false)
      .def("shared_memory_regions", &list)
      .def("cuda_memory_regions", &list_cuda)
      .def("shared_memory", &totals);
}

}  // namespace fastserve::bind

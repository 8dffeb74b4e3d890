// The GPUs of this machine, or why there are none.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "bind/engine.h"
#include "bind/errors.h"

#ifdef FASTSERVE_CUDA_LANE
#include "backend/cuda_devices.h"
#endif

namespace py = pybind11;

namespace fastserve::bind {
namespace {

#ifdef FASTSERVE_CUDA_LANE
py::dict described(const CudaDeviceFacts& device) {
  py::dict facts;
  facts["ordinal"] = device.ordinal;
  facts["name"] = device.name;
  facts["uuid"] = device.uuid;
  facts["compute_capability"] = std::to_string(device.sm / 10) + "." + std::to_string(device.sm % 10);
  facts["memory_bytes"] = device.total_bytes;
  facts["pci"] = device.pci;
  facts["numa_node"] =
      device.memory_node < 0 ? py::object(py::none()) : py::object(py::int_(device.memory_node));
  return facts;
}
#endif

// (devices, ""), or ([], why there are none). The first call starts the driver, without the interpreter lock.
std::pair<py::list, std::string> cuda_devices() {
  py::list devices;
#ifdef FASTSERVE_CUDA_LANE
  const auto found = [] {
    const py::gil_scoped_release unlocked;
    return list_cuda_devices();
  }();
  if (!found.is_ok()) return {devices, found.status().message()};
  for (const CudaDeviceFacts& device : *found) devices.append(described(device));
  return {devices, ""};
#else
  return {
      devices,
      "this fastserve was built without the GPU lane (FASTSERVE_CUDA=OFF, or no cuda.h when it was built)"};
#endif
}

}  // namespace

void register_cuda_devices(py::module_& module) { module.def("cuda_devices", &cuda_devices); }

}  // namespace fastserve::bind

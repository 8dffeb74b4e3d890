// _core: the GPU lane as Python registers its sources and reads its state. A build without the lane has the same names.
#include <pybind11/pybind11.h>

#include "bind/engine.h"
#include "bind/errors.h"

#ifdef FASTSERVE_CUDA_LANE
#include "backend/cuda.h"
#include "backend/cuda_counts.h"
#include "backend/cuda_fault.h"
#include "bind/cuda_source.h"
#endif

namespace py = pybind11;

namespace fastserve::bind {
namespace {

#ifdef FASTSERVE_CUDA_LANE

constexpr bool kHasLane = true;

void add_graph_backend(PyEngine& self, std::string name, py::object calls) {
  self.engine().backends().add_owned(
      std::make_unique<CudaBackend>(std::make_unique<PythonGraphSource>(std::move(name), std::move(calls))));
}

py::list gpu_faults() {
  py::list out;
  for (const DeviceFault& fault : device_faults()) {
    py::dict row;
    row["device"] = fault.device;
    row["uuid"] = fault.uuid;
    row["reason"] = fault.status.message();
    row["batch"] = fault.batch;
    row["at_ns"] = fault.at;
    out.append(row);
  }
  return out;
}

py::list gpu_lane_counts() {
  py::list out;
  for (const CudaCountsRow& counts : cuda_counts()) {
    py::dict row;
    row["device"] = counts.device;
    row["uuid"] = counts.uuid;
    row["lost"] = counts.lost;
    row["graph_batches"] = counts.graph_batches;
    row["fallback_batches"] = counts.fallback_batches;
    row["failed_batches"] = counts.failed_batches;
    row["in_place_copies"] = counts.in_place_copies;
    row["unpinned_copies"] = counts.unpinned_copies;
    out.append(row);
  }
  return out;
}

#else

constexpr bool kHasLane = false;

void add_graph_backend(PyEngine&, const std::string&, const py::object&) {
  raise({Code::kFailedPrecondition, "this build has no GPU lane: it was compiled without cuda.h"});
}
py::list gpu_faults() { return py::list(); }
py::list gpu_lane_counts() { return py::list(); }

#endif

}  // namespace

void register_gpu(py::module_& module, py::class_<PyEngine>& engine) {
  module.attr("has_gpu_lane") = kHasLane;
  module.def("gpu_faults", &gpu_faults);
  module.def("gpu_lane_counts", &gpu_lane_counts);
  engine.def("add_graph_backend", &add_graph_backend, py::arg("name"), py::arg("source"));
}

}  // namespace fastserve::bind

// The read-only records of _core: status, statistics. What is handed down is in load_spec.cc.
#include <pybind11/stl.h>

#include "bind/engine.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

void register_version_status(py::module_& module) {
  py::class_<VersionStatus>(module, "VersionStatus")
      .def_readonly("model", &VersionStatus::model)
      .def_readonly("version", &VersionStatus::version)
      .def_property_readonly(
          "state", [](const VersionStatus& self) { return std::string(version_state_name(self.state)); })
      .def_readonly("reason", &VersionStatus::reason)
      .def_readonly("progress", &VersionStatus::progress)
      .def_readonly("load_seconds", &VersionStatus::load_seconds)
      .def_readonly("backend", &VersionStatus::backend)
      .def_readonly("platform", &VersionStatus::platform)
      .def_property_readonly("inputs", [](const VersionStatus& self) { return self.signature.inputs; })
      .def_property_readonly("outputs", [](const VersionStatus& self) { return self.signature.outputs; })
      .def_property_readonly("max_batch_rows",
                             [](const VersionStatus& self) { return self.signature.max_batch_rows; })
      .def_readonly("instance_count", &VersionStatus::instance_count)
      .def_readonly("buckets", &VersionStatus::buckets)
      .def_readonly("properties", &VersionStatus::properties)
      .def_readonly("memory_bytes", &VersionStatus::memory_bytes);
}

// Every step that csrc/model/version_state.cc has, as names: what the Python side has must be the same.
std::vector<std::pair<std::string, std::string>> version_transitions() {
  std::vector<std::pair<std::string, std::string>> steps;
  for (int from = 0; from < kVersionStateCount; ++from) {
    for (int to = 0; to < kVersionStateCount; ++to) {
      const auto one = static_cast<VersionState>(from);
      const auto other = static_cast<VersionState>(to);
      if (!transition_allowed(one, other)) continue;
      steps.emplace_back(version_state_name(one), version_state_name(other));
    }
  }
  return steps;
}

void register_statistics(py::module_& module) {
  py::class_<StageTotal>(module, "StageTotal")
      .def_readonly("count", &StageTotal::count)
      .def_readonly("ns", &StageTotal::ns);
  py::class_<BatchSizeTotal>(module, "BatchSizeTotal")
      .def_readonly("rows", &BatchSizeTotal::rows)
      .def_readonly("compute_input", &BatchSizeTotal::compute_input)
      .def_readonly("compute_infer", &BatchSizeTotal::compute_infer)
      .def_readonly("compute_output", &BatchSizeTotal::compute_output);
  py::class_<Histogram>(module, "Histogram")
      .def_readonly("upper_bounds", &Histogram::upper_bounds)
      .def_readonly("counts", &Histogram::counts)
      .def_readonly("sum", &Histogram::sum);
  py::class_<VersionStatistics>(module, "VersionStatistics")
      .def_readonly("inference_count", &VersionStatistics::inference_count)
      .def_readonly("execution_count", &VersionStatistics::execution_count)
      .def_readonly("last_inference_ms", &VersionStatistics::last_inference_ms)
      .def_readonly("success", &VersionStatistics::success)
      .def_readonly("fail", &VersionStatistics::fail)
      .def_readonly("cancel", &VersionStatistics::cancel)
      .def_readonly("rejected", &VersionStatistics::rejected)
      .def_readonly("other", &VersionStatistics::other)
      .def_readonly("requests_rejected", &VersionStatistics::requests_rejected)
      .def_readonly("batch_rows", &VersionStatistics::batch_rows)
      .def_readonly("cache_hit", &VersionStatistics::cache_hit)
      .def_readonly("cache_miss", &VersionStatistics::cache_miss)
      .def_readonly("queue", &VersionStatistics::queue)
      .def_readonly("compute_input", &VersionStatistics::compute_input)
      .def_readonly("compute_infer", &VersionStatistics::compute_infer)
      .def_readonly("compute_output", &VersionStatistics::compute_output)
      .def_readonly("batches", &VersionStatistics::batches)
      .def_readonly("pending", &VersionStatistics::pending)
      .def_readonly("in_flight", &VersionStatistics::in_flight)
      .def_readonly("stage_seconds", &VersionStatistics::stage_seconds)
      .def_readonly("copied_bytes", &VersionStatistics::copied_bytes)
      .def_readonly("expired_executed", &VersionStatistics::expired_executed);
}

}  // namespace

void register_status(py::module_& module) {
  register_warm_up(module);
  register_load_spec(module);
  register_version_status(module);
  module.def("version_transitions", &version_transitions);
  register_statistics(module);
}

}  // namespace fastserve::bind

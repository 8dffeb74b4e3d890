// The read-only records of _core: specs, status, statistics.
#include <pybind11/stl.h>

#include "bind/engine.h"
#include "bind/errors.h"

namespace py = pybind11;

namespace fastserve::bind {
namespace {

TensorSpec make_spec(std::string name, const std::string& datatype, const std::vector<std::int64_t>& shape,
                     bool optional) {
  const auto dtype = parse_dtype(datatype);
  if (!dtype)
    raise(invalid_argument("datatype: got \"" + datatype + "\", want an OIP datatype such as FP32"));
  if (shape.size() > kMaxRank) {
    raise(invalid_argument("shape: got rank " + std::to_string(shape.size()) + ", want " +
                           std::to_string(kMaxRank) + " or fewer"));
  }
  return {std::move(name), *dtype, Shape(shape), optional};
}

std::vector<std::int64_t> dims_of(const TensorSpec& spec) {
  const auto dims = spec.shape.dims();
  return {dims.begin(), dims.end()};
}

LoadSpec make_load_spec(std::string model, std::int64_t version, std::string backend, std::string path,
                        std::int64_t max_batch_rows, std::vector<TensorSpec> inputs,
                        std::vector<TensorSpec> outputs, int instance_count, std::int64_t max_queue_delay_us,
                        std::int64_t max_queue_requests, std::vector<std::int64_t> preferred_rows,
                        std::map<std::string, std::string> parameters,
                        std::map<std::string, std::vector<std::string>> labels) {
  LoadSpec spec;
  spec.model = std::move(model);
  spec.version = version;
  spec.backend = std::move(backend);
  spec.path = std::move(path);
  spec.max_batch_rows = max_batch_rows;
  spec.inputs = std::move(inputs);
  spec.outputs = std::move(outputs);
  spec.instance_count = instance_count;
  spec.limits.max_queue_delay_ns = max_queue_delay_us * kMicrosecond;
  spec.limits.max_queue_requests = max_queue_requests;
  spec.limits.preferred_rows = std::move(preferred_rows);
  spec.parameters = std::move(parameters);
  spec.labels = std::move(labels);
  return spec;
}

void register_specs(py::module_& module) {
  py::class_<TensorSpec>(module, "TensorSpec")
      .def(py::init(&make_spec), py::arg("name"), py::arg("datatype"), py::arg("shape"),
           py::arg("optional") = false)
      .def_readonly("name", &TensorSpec::name)
      .def_property_readonly("datatype",
                             [](const TensorSpec& self) { return std::string(dtype_name(self.dtype)); })
      .def_property_readonly("shape", &dims_of)
      .def_readonly("optional", &TensorSpec::optional);
  py::class_<LoadSpec>(module, "LoadSpec")
      .def(py::init(&make_load_spec), py::arg("model"), py::arg("version") = 1, py::kw_only(),
           py::arg("backend") = "", py::arg("path") = "", py::arg("max_batch_rows") = -1,
           py::arg("inputs") = py::tuple(), py::arg("outputs") = py::tuple(), py::arg("instance_count") = 0,
           py::arg("max_queue_delay_us") = 0, py::arg("max_queue_requests") = 0,
           py::arg("preferred_rows") = py::tuple(), py::arg("parameters") = py::dict(),
           py::arg("labels") = py::dict())
      .def_readonly("model", &LoadSpec::model)
      .def_readonly("version", &LoadSpec::version)
      .def_readonly("backend", &LoadSpec::backend)
      .def_readonly("path", &LoadSpec::path)
      .def_readonly("max_batch_rows", &LoadSpec::max_batch_rows)
      .def_readonly("inputs", &LoadSpec::inputs)
      .def_readonly("outputs", &LoadSpec::outputs)
      .def_readonly("instance_count", &LoadSpec::instance_count)
      .def_property_readonly(
          "max_queue_delay_us",
          [](const LoadSpec& self) { return self.limits.max_queue_delay_ns / kMicrosecond; })
      .def_property_readonly("max_queue_requests",
                             [](const LoadSpec& self) { return self.limits.max_queue_requests; })
      .def_property_readonly("preferred_rows",
                             [](const LoadSpec& self) { return self.limits.preferred_rows; })
      .def_readonly("parameters", &LoadSpec::parameters)
      .def_readonly("labels", &LoadSpec::labels);
}

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
      .def_readonly("properties", &VersionStatus::properties);
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
      .def_readonly("queue", &VersionStatistics::queue)
      .def_readonly("compute_input", &VersionStatistics::compute_input)
      .def_readonly("compute_infer", &VersionStatistics::compute_infer)
      .def_readonly("compute_output", &VersionStatistics::compute_output)
      .def_readonly("batches", &VersionStatistics::batches)
      .def_readonly("pending", &VersionStatistics::pending)
      .def_readonly("in_flight", &VersionStatistics::in_flight)
      .def_readonly("stage_seconds", &VersionStatistics::stage_seconds);
}

}  // namespace

void register_status(py::module_& module) {
  register_specs(module);
  register_version_status(module);
  register_statistics(module);
}

}  // namespace fastserve::bind

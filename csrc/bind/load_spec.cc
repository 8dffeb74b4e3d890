// LoadSpec and what hangs on it: the configuration of a version as Python hands it down, plain data in both directions.
#include <pybind11/stl.h>

#include <utility>

#include "backend/backend.h"
#include "backend/model_bytes.h"
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

QueuePolicy make_queue_policy(const std::string& on_timeout, std::int64_t timeout_us, bool request_may_lower,
                              std::int64_t max_requests) {
  if (on_timeout != "reject" && on_timeout != "delay")
    raise(invalid_argument("on_timeout: got \"" + on_timeout + "\", want \"reject\" or \"delay\""));
  QueuePolicy policy;
  policy.on_timeout =
      on_timeout == "delay" ? QueuePolicy::OnTimeout::kDelay : QueuePolicy::OnTimeout::kReject;
  policy.timeout_ns = timeout_us * kMicrosecond;
  policy.request_may_lower = request_may_lower;
  policy.max_requests = max_requests;
  return policy;
}

std::string on_timeout_of(const QueuePolicy& policy) {
  return policy.on_timeout == QueuePolicy::OnTimeout::kDelay ? "delay" : "reject";
}

QueueLimits make_queue_limits(std::uint32_t priority_levels, std::uint32_t default_priority,
                              QueuePolicy default_policy, std::map<std::uint32_t, QueuePolicy> by_priority,
                              bool preserve_ordering) {
  QueueLimits limits;
  limits.priority_levels = priority_levels;
  limits.default_priority = default_priority;
  limits.default_policy = default_policy;
  limits.by_priority = std::move(by_priority);
  limits.preserve_ordering = preserve_ordering;
  return limits;
}

ResourceNeed make_resource(std::string name, std::int64_t count, bool is_global) {
  ResourceNeed need;
  need.name = std::move(name);
  need.global = is_global;
  need.count = count;
  return need;
}

InstanceGroup make_group(std::string name, int count, std::vector<int> cpus,
                         std::vector<ResourceNeed> resources, std::uint32_t rate_priority, std::string gpu) {
  InstanceGroup group;
  group.name = std::move(name);
  group.count = count;
  group.cpus = std::move(cpus);
  group.resources = std::move(resources);
  group.rate_priority = rate_priority;
  group.gpu = std::move(gpu);
  return group;
}

LoadSpec make_load_spec(std::string model, std::int64_t version, std::string backend, std::string path,
                        std::int64_t max_batch_rows, std::vector<TensorSpec> inputs,
                        std::vector<TensorSpec> outputs, int instance_count, std::int64_t max_queue_delay_us,
                        std::int64_t max_queue_requests, std::vector<std::int64_t> preferred_rows,
                        std::map<std::string, std::string> parameters,
                        std::map<std::string, std::vector<std::string>> labels, std::int64_t target_p99_us,
                        QueueLimits queue, std::vector<InstanceGroup> groups,
                        std::vector<std::int64_t> allowed_rows, std::int64_t max_request_rows,
                        std::vector<WarmUpSample> warm_up, bool response_cache) {
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
  spec.limits.target_p99_ns = target_p99_us * kMicrosecond;
  spec.parameters = std::move(parameters);
  spec.labels = std::move(labels);
  spec.queue = std::move(queue);
  spec.groups = std::move(groups);
  spec.allowed_rows = std::move(allowed_rows);
  spec.max_request_rows = max_request_rows;
  spec.warm_up = std::move(warm_up);
  spec.response_cache = response_cache;
  if (!spec.groups.empty()) {
    spec.instance_count = 0;
    for (const InstanceGroup& group : spec.groups) spec.instance_count += group.count;
  }
  return spec;
}

std::span<const std::byte> bytes_of(const py::buffer_info& buffer) {
  return {static_cast<const std::byte*>(buffer.ptr), static_cast<std::size_t>(buffer.size * buffer.itemsize)};
}

// Copies both; the caller wipes its own.
void hold(LoadSpec& self, const py::buffer& model, const py::buffer& weights) {
  self.in_memory = std::make_shared<ModelBytes>(bytes_of(model.request()), bytes_of(weights.request()));
}

void register_queue(py::module_& module) {
  py::class_<QueuePolicy>(module, "QueuePolicy")
      .def(py::init(&make_queue_policy), py::kw_only(), py::arg("on_timeout") = "reject",
           py::arg("timeout_us") = 0, py::arg("request_may_lower") = true, py::arg("max_requests") = 0)
      .def_property_readonly("on_timeout", &on_timeout_of)
      .def_property_readonly("timeout_us",
                             [](const QueuePolicy& self) { return self.timeout_ns / kMicrosecond; })
      .def_readonly("request_may_lower", &QueuePolicy::request_may_lower)
      .def_readonly("max_requests", &QueuePolicy::max_requests);
  py::class_<QueueLimits>(module, "QueueLimits")
      .def(py::init(&make_queue_limits), py::kw_only(), py::arg("priority_levels") = 0,
           py::arg("default_priority") = 0, py::arg("default_policy") = QueuePolicy(),
           py::arg("by_priority") = py::dict(), py::arg("preserve_ordering") = false)
      .def_readonly("priority_levels", &QueueLimits::priority_levels)
      .def_readonly("default_priority", &QueueLimits::default_priority)
      .def_readonly("default_policy", &QueueLimits::default_policy)
      .def_readonly("by_priority", &QueueLimits::by_priority)
      .def_readonly("preserve_ordering", &QueueLimits::preserve_ordering);
}

void register_groups(py::module_& module) {
  py::class_<ResourceNeed>(module, "ResourceNeed")
      .def(py::init(&make_resource), py::arg("name"), py::kw_only(), py::arg("count") = 1,
           py::arg("is_global") = false)
      .def_readonly("name", &ResourceNeed::name)
      .def_readonly("count", &ResourceNeed::count)
      .def_readonly("is_global", &ResourceNeed::global);
  py::class_<InstanceGroup>(module, "InstanceGroup")
      .def(py::init(&make_group), py::kw_only(), py::arg("name") = "", py::arg("count") = 1,
           py::arg("cpus") = py::tuple(), py::arg("resources") = py::tuple(), py::arg("rate_priority") = 0,
           py::arg("gpu") = "")
      .def_readonly("name", &InstanceGroup::name)
      .def_readonly("count", &InstanceGroup::count)
      .def_readonly("cpus", &InstanceGroup::cpus)
      .def_readonly("resources", &InstanceGroup::resources)
      .def_readonly("rate_priority", &InstanceGroup::rate_priority)
      .def_readonly("gpu", &InstanceGroup::gpu);
}

void register_tensor_spec(py::module_& module) {
  py::class_<TensorSpec>(module, "TensorSpec")
      .def(py::init(&make_spec), py::arg("name"), py::arg("datatype"), py::arg("shape"),
           py::arg("optional") = false)
      .def_readonly("name", &TensorSpec::name)
      .def_property_readonly("datatype",
                             [](const TensorSpec& self) { return std::string(dtype_name(self.dtype)); })
      .def_property_readonly("shape", &dims_of)
      .def_readonly("optional", &TensorSpec::optional);
}

void register_spec(py::module_& module) {
  py::class_<LoadSpec>(module, "LoadSpec")
      .def(py::init(&make_load_spec), py::arg("model"), py::arg("version") = 1, py::kw_only(),
           py::arg("backend") = "", py::arg("path") = "", py::arg("max_batch_rows") = -1,
           py::arg("inputs") = py::tuple(), py::arg("outputs") = py::tuple(), py::arg("instance_count") = 0,
           py::arg("max_queue_delay_us") = 0, py::arg("max_queue_requests") = 0,
           py::arg("preferred_rows") = py::tuple(), py::arg("parameters") = py::dict(),
           py::arg("labels") = py::dict(), py::arg("target_p99_us") = 0, py::arg("queue") = QueueLimits(),
           py::arg("groups") = py::tuple(), py::arg("allowed_rows") = py::tuple(),
           py::arg("max_request_rows") = 0, py::arg("warm_up") = py::tuple(),
           py::arg("response_cache") = false)
      .def("hold", &hold, py::arg("model"), py::arg("weights"))
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
      .def_property_readonly("target_p99_us",
                             [](const LoadSpec& self) { return self.limits.target_p99_ns / kMicrosecond; })
      .def_readonly("parameters", &LoadSpec::parameters)
      .def_readonly("labels", &LoadSpec::labels)
      .def_readonly("queue", &LoadSpec::queue)
      .def_readonly("groups", &LoadSpec::groups)
      .def_readonly("allowed_rows", &LoadSpec::allowed_rows)
      .def_readonly("max_request_rows", &LoadSpec::max_request_rows)
      .def_readonly("warm_up", &LoadSpec::warm_up)
      .def_readonly("response_cache", &LoadSpec::response_cache);
}

}  // namespace

void register_load_spec(py::module_& module) {
  register_tensor_spec(module);
  register_queue(module);
  register_groups(module);
  register_spec(module);
}

}  // namespace fastserve::bind
